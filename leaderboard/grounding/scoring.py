"""Score descriptions by activations: does a description predict when the unit fires?

The metrics go through the same evaluation as metrics of words (`leaderboard.score`): lift is over
the layer's descriptions shuffled, failures count, intervals are over units. The floors and, if
humans described the units, the leave-one-out human are scored against the same activations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leaderboard.evaluation import predictions as prediction_files
from leaderboard.evaluation import scoring
from leaderboard.evaluation.floors import floor_descriptions
from leaderboard.evaluation.references import Descriptions, Mask, References
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.grounding.metrics import GroundedMetric, build
from leaderboard.grounding.scorers import Presences, Scorer, open_scorer
from leaderboard.record_format.score_record import CONSTANT_FLOOR, Grounding
from milannotations.errors import InputError
from milannotations.schema import Unit

if TYPE_CHECKING:
    from leaderboard.evaluation.predictions import Predictions
    from leaderboard.evaluation.scoring import Score
    from leaderboard.grounding.activations import HeldOutActivations
    from leaderboard.metrics import Metric


def score(
    predictions: Any,
    held_out: HeldOutActivations,
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
    """Score one method's descriptions by the units' activations on held-out images.

    Args:
        predictions: as for `leaderboard.score`.
        held_out: activations of the units (`activations.probe_subject`, `probe_mini`).
        scorer: scorer of presence in images, or its name (`scorers.open_scorer`).
        metrics: names of metrics, or `headline`, or `all`.
        references: an edition with the units, for human descriptions and for the truth of synthetic
            units; None scores every unit of the described layers.
        config, network, layers, split, allow_missing, method, settings, accounts, beside, progress:
            as for `leaderboard.score`.
        exemplars_seen: True if exemplars of the units are among the images; None if unknown.

    Returns:
        A `Score`, whose record is of the kind `grounding`.

    Raises:
        InputError: an error in the input; the message says what to change.
    """
    layers = [layers] if isinstance(layers, str) else list(layers)
    scorer = open_scorer(scorer) if isinstance(scorer, str) else scorer
    presences = Presences(scorer, held_out.probe, held_out.grid)
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    if references is None:
        if network is None and len(held_out.probings) == 1:
            network = next(iter(held_out.probings))
        predictions = prediction_files.load(predictions, network=network, layers=layers)
        references = _references_without_texts(held_out, predictions)
    return scoring.score(
        predictions,
        references,
        build(names, held_out, presences),
        network=network,
        config=config,
        layers=layers,
        split=split,
        allow_missing=allow_missing,
        method=method,
        settings=settings,
        beside=beside,
        accounts=accounts,
        ground=Ground(held_out, presences, exemplars_seen),
        progress=progress,
    )


def _references_without_texts(held_out: HeldOutActivations, predictions: Predictions) -> References:
    """Return all units of the described layers, without any human description."""
    described = dict.fromkeys((unit.network, unit.layer) for unit in predictions.units)
    sizes = {layer: values.shape[1] for layer, values in held_out.layers.items()}
    missing = ["/".join(layer) for layer in described if layer not in sizes]
    if missing:
        raise InputError(
            f"The predictions are of {', '.join(missing)}; activations are of "
            f"{', '.join('/'.join(layer) for layer in sizes)}. Name the layer of the predictions: "
            "--network, --layer."
        )
    units = [Unit(*layer, index) for layer in described for index in range(sizes[layer])]
    n = len(units)
    networks = "+".join(dict.fromkeys(unit.network for unit in units))
    return References(
        tuple(units), ((),) * n, ("test",) * n, (None,) * n, edition="activations", config=networks
    )


@dataclass(frozen=True)
class Ground:
    """Activations and presences behind a grounded score, as `leaderboard.score` asks for them.

    Attributes:
        held_out: activations of the units.
        presences: presence of descriptions in the same images.
        exemplars_seen: True if exemplars of the units are among the images; None if unknown.
    """

    held_out: HeldOutActivations
    presences: Presences
    exemplars_seen: bool | None = None

    def covers(self, units: Sequence[Unit]) -> Mask:
        """Return which units have activations: bool (unit,)."""
        return self.held_out.covers(units)

    def floors(
        self, known: References, answers: Descriptions, constants: Sequence[str]
    ) -> dict[str, Descriptions]:
        """Return the descriptions of the floors: the most common ones that the scorer can read.

        They are taken from the human descriptions or, if there are none, from the method's own.

        Raises:
            InputError: the scorer can read none of them.
        """
        texts: Sequence[Sequence[str]] = known.texts
        if not any(texts):
            texts = [() if text is None else (text,) for text in answers]
        # One call for all texts: models embed them in batches.
        self.presences.of([text for text in dict.fromkeys(answers) if text is not None])
        readable = self.presences.readable
        floors = floor_descriptions(known, list(filter(readable, constants)), texts, readable)
        if floors[CONSTANT_FLOOR][0] is None:
            example = next((text for text in answers if text is not None), "")
            raise InputError(
                f"The scorer '{self.presences.scorer.source['scorer']}' can read none of the "
                f"descriptions (such as '{example[:60]}'). Use another one, or another lexicon: "
                "--scorer."
            )
        return floors

    def entry(
        self,
        known: References,
        answers: Descriptions,
        scope: Mask,
        accounts: Sequence[Mapping[str, Any]],
        built: Mapping[str, Metric],
    ) -> Grounding:
        """Return the `grounding` entry of a record."""
        in_scope = [text for text, inside in zip(answers, scope, strict=True) if inside]
        described = [text for text in in_scope if text is not None]
        n_unreadable = sum(not self.presences.readable(text) for text in described)
        is_held_out, reasons = self._held_out(accounts)
        source, judge = self.held_out.source, self.presences.scorer.source
        # Digests of the text-image models by which methods chose their descriptions.
        chosen_by = [
            choice["text_image_model"]
            for account in accounts
            for choice in account.get("chosen_on", {}).values()
            if "text_image_model" in choice
        ]
        known_judge = bool(accounts) and judge["scorer"] == "clip"
        return Grounding(
            scorer=dict(judge),
            images=source["images"],
            networks=source["networks"],
            grid=self.held_out.grid,
            n_unreadable=n_unreadable,
            coverage=1 - n_unreadable / len(described) if described else None,
            held_out=is_held_out,
            why=reasons,
            same_model=judge["digest"] in chosen_by if known_judge else None,
            same_family=bool(chosen_by) if known_judge else None,
            fails={
                name: list(metric.definition.fails)
                for name, metric in built.items()
                if isinstance(metric, GroundedMetric) and metric.definition.fails
            },
            one_picture_a_label=_one_image_per_label(self.held_out) and judge["scorer"] == "labels",
        )

    def _held_out(self, accounts: Sequence[Mapping[str, Any]]) -> tuple[bool | None, list[str]]:
        """Return whether the images are held out (None if unknown), and the reasons."""
        digest = self.held_out.source["images"]["sha256"]
        choices = {
            network: choice
            for account in accounts
            for network, choice in account.get("chosen_on", {}).items()
        }
        same = [network for network, choice in choices.items() if _image_digest(choice) == digest]
        reasons = []
        if same:
            reasons.append(f"Descriptions were chosen on these same images ({', '.join(same)}).")
        elif choices:
            reasons.append("Descriptions were chosen on other images, according to their digest.")
        elif accounts:
            reasons.append("The method chose on no probe images, according to its account.")
        else:
            reasons.append("No account says how the descriptions were made.")
        if self.exemplars_seen is None:
            reasons.append("The source ids of the exemplars are unknown.")
        elif self.exemplars_seen:
            reasons.append("Exemplars of the units are among these images.")
        else:
            reasons.append("No exemplar of the units is among these images.")
        if same or self.exemplars_seen:
            return False, reasons
        return (True if accounts and self.exemplars_seen is False else None), reasons


def _image_digest(choice: Mapping[str, Any]) -> str | None:
    """Return the digest of the images that a method chose on, from its account."""
    images = choice.get("images") or {}
    digest = (images.get("probe") or images).get("sha256")
    return None if digest is None else str(digest)


def _one_image_per_label(held_out: HeldOutActivations) -> bool:
    """Return True if labels are classes of whole images and no class has two images."""
    concepts = held_out.probe.concepts
    if not concepts or any(concept.category != "class" for concept in concepts):
        return False
    return len(held_out.probe) <= len(concepts)
