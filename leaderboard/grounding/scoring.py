"""Score descriptions by what units do: does a description predict when the unit fires?

The metrics go through what scores words (`leaderboard.score`): lift is above the layer's
descriptions shuffled, failures count, intervals are over units, and the floors, and one person
where people described the units, are held against the same activations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leaderboard.evaluation import scoring
from leaderboard.evaluation.estimates import FLOOR
from leaderboard.evaluation.reference_views import Answers, Mask
from leaderboard.evaluation.references import References
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.grounding.metrics import GroundedMetric, build
from leaderboard.grounding.scorers import Presences, Scorer, open_scorer
from leaderboard.record_format.score_record import Grounding
from milannotations.errors import InputError
from milannotations.schema import Unit

if TYPE_CHECKING:
    from leaderboard.evaluation.predictions import Predictions
    from leaderboard.evaluation.scoring import Score
    from leaderboard.grounding.activations import HeldOutActivations
    from leaderboard.metrics import Metric


def score(
    predictions: Any,
    held: HeldOutActivations,
    scorer: Scorer | str,
    metrics: str | Sequence[str] = ("headline",),
    *,
    references: Any = None,
    config: str | None = None,
    network: str | None = None,
    layers: str | Sequence[str] = (),
    split: str | None = None,
    allow_missing: bool = False,
    method: str | None = None,
    settings: ScoreConfig | None = None,
    accounts: Sequence[Mapping[str, Any]] | None = None,
    beside: Mapping[str, Predictions] | None = None,
    exemplars_seen: bool | None = None,
    progress: bool = False,
) -> Score:
    """Score one method's descriptions by what units do on held-out pictures.

    Args:
        predictions: as of `leaderboard.score`.
        held: what the units did (`held.of_subject`, `held.of_mini`).
        scorer: in which pictures descriptions hold, or its name (`scorers.open_scorer`).
        metrics: names, or `headline`, or `all`.
        references: an edition with the units, for people's descriptions beside and the truth of
            synthetic units; None scores every unit of the layers that are described.
        config, network, layers, split, allow_missing, method, settings, accounts, beside, progress:
            as of `leaderboard.score`.
        exemplars_seen: whether exemplars of the units are among the pictures, if it is known.

    Returns:
        A `Score`, whose record is of the kind `grounding`.

    Raises:
        InputError: anything that the caller can mend, with what to do.
    """
    layers = [layers] if isinstance(layers, str) else list(layers)
    scorer = open_scorer(scorer) if isinstance(scorer, str) else scorer
    presences = Presences(scorer, held.probe, held.grid)
    asked = [metrics] if isinstance(metrics, str) else list(metrics)
    if references is None:
        if network is None and len(held.probings) == 1:
            network = next(iter(held.probings))
        predictions = scoring.read_predictions(predictions, None, network, layers)
        references = _units(held, predictions)
    return scoring.score(
        predictions,
        references,
        build(asked, held, presences),
        network=network,
        config=config,
        layers=layers,
        split=split,
        allow_missing=allow_missing,
        method=method,
        settings=settings,
        beside=beside,
        accounts=accounts,
        ground=Ground(held, presences, exemplars_seen),
        progress=progress,
    )


def _units(held: HeldOutActivations, said: Predictions) -> References:
    """Return all units of the layers that are described, of which nobody said anything."""
    described = dict.fromkeys((unit.network, unit.layer) for unit in said.units)
    sizes = {key: values.shape[1] for key, values in held.layers.items()}
    lacking = [
        f"{network}/{layer}" for network, layer in described if (network, layer) not in sizes
    ]
    if lacking:
        raise InputError(
            f"The predictions are of {', '.join(lacking)}; activations are of "
            f"{', '.join('/'.join(key) for key in sizes)}. Say which: --network, --layer."
        )
    units = [Unit(*key, index) for key in described for index in range(sizes[key])]
    n = len(units)
    networks = "+".join(dict.fromkeys(unit.network for unit in units))
    return References(
        tuple(units), ((),) * n, ("test",) * n, (None,) * n, edition="activations", config=networks
    )


@dataclass(frozen=True)
class Ground:
    """What a score in activations is made of, as `leaderboard.score` asks for it.

    Attributes:
        held: what the units did.
        presences: in which pictures the descriptions are.
        exemplars_seen: whether exemplars of the units are among the pictures; None if unknown.
    """

    held: HeldOutActivations
    presences: Presences
    exemplars_seen: bool | None = None

    def covers(self, units: Sequence[Unit]) -> Mask:
        """Return which units were seen."""
        return self.held.covers(units)

    def floors(
        self, known: References, answers: Answers, constants: Sequence[str]
    ) -> dict[str, Answers]:
        """Return the answers of the floors: the commonest that the scorer reads.

        They are people's, or, where nobody described the units, the method's own.

        Raises:
            InputError: the scorer can read none.
        """
        texts: Sequence[Sequence[str]] = known.texts
        if not any(texts):
            texts = [() if text is None else (text,) for text in answers]
        self.presences.of([text for text in dict.fromkeys(answers) if text is not None])  # at once
        readable = self.presences.readable
        made = scoring.floors(known, list(filter(readable, constants)), texts, readable)
        if made[FLOOR][0] is None:
            shown = next((text for text in answers if text is not None), "")
            raise InputError(
                f"The scorer '{self.presences.scorer.source['scorer']}' can read none of the "
                f"descriptions (such as '{shown[:60]}'). Take another, or another lexicon."
            )
        return made

    def entry(
        self,
        known: References,
        answers: Answers,
        scope: Mask,
        accounts: Sequence[Mapping[str, Any]],
        built: Mapping[str, Metric],
    ) -> Grounding:
        """Return what a record says of it."""
        said = [text for text, wanted in zip(answers, scope, strict=True) if wanted]
        described = [text for text in said if text is not None]
        unreadable = sum(not self.presences.readable(text) for text in described)
        held_out, why = self._held_out(accounts)
        source, judge = self.held.source, self.presences.scorer.source
        chose_by = [
            own["text_image_model"]
            for each in accounts
            for own in each.get("chosen_on", {}).values()
            if "text_image_model" in own
        ]
        is_judge = judge["scorer"] == "clip"
        return Grounding(
            scorer=dict(judge),
            images=source["images"],
            networks=source["networks"],
            grid=self.held.grid,
            n_unreadable=unreadable,
            coverage=1 - unreadable / len(described) if described else None,
            held_out=held_out,
            why=why,
            same_model=judge["digest"] in chose_by if accounts and is_judge else None,
            same_family=bool(chose_by) if accounts and is_judge else None,
            fails={
                name: list(metric.definition.fails)
                for name, metric in built.items()
                if isinstance(metric, GroundedMetric) and metric.definition.fails
            },
            one_picture_a_label=_one_each(self.held) and judge["scorer"] == "labels",
        )

    def _held_out(self, accounts: Sequence[Mapping[str, Any]]) -> tuple[bool | None, list[str]]:
        """Return whether pictures played no part in what is scored, and what that goes by."""
        own = self.held.source["images"]["sha256"]
        chosen = {
            network: made
            for each in accounts
            for network, made in each.get("chosen_on", {}).items()
        }
        same = [n for n, made in chosen.items() if _digest_of(made) == own]
        why = []
        if same:
            why.append(f"The method chose on these pictures ({', '.join(same)}).")
        elif chosen:
            why.append("The method chose on other pictures, by their digest.")
        elif accounts:
            why.append("The method chose on no probe pictures, by its account.")
        else:
            why.append("There is no account of how the answers were made.")
        if self.exemplars_seen is None:
            why.append("It is not known which pictures the exemplars are.")
        elif self.exemplars_seen:
            why.append("Exemplars of the units are among these pictures.")
        else:
            why.append("No exemplar of the units is among these pictures.")
        if same or self.exemplars_seen:
            return False, why
        return (True if accounts and self.exemplars_seen is False else None), why


def _digest_of(chosen: Mapping[str, Any]) -> str | None:
    """Return the digest of the pictures that an account says a method chose on."""
    images = chosen.get("images") or {}
    found = (images.get("probe") or images).get("sha256")
    return None if found is None else str(found)


def _one_each(held: HeldOutActivations) -> bool:
    """Say whether pictures are of classes, and no class has two."""
    concepts = held.probe.concepts
    if not concepts or any(concept.category != "class" for concept in concepts):
        return False
    return len(held.probe) <= len(concepts)
