"""The main job: several methods describe an edition's units, and all are scored alike."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import baselines
from baselines import Account, MethodSpec, Subject
from baselines.framework.units import unit_keys
from leaderboard.evaluation import predictions, references, scoring
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.evaluation.scoring import Score
from leaderboard.metrics import build, expand
from leaderboard.ranking import tracks
from leaderboard.record_format import score_record
from leaderboard.record_format.method_info import from_spec
from milannotations.editions.configs import edition_name
from milannotations.errors import InputError

MINI_REQUIREMENTS = ("truth", "trained model", "activations")
"""What methods may require of the mini world: it is at hand."""


FAST_METHODS = ("nearest", "milan")
"""Beside floors and references, the methods of the short form of the main job."""


def offline_methods(
    synthetic: bool, exemplars: bool, *, activations: bool = False, fast: bool = False
) -> list[str]:
    """Return the methods that need nothing but what is at hand.

    Args:
        synthetic: whether the truth is known.
        exemplars: whether units have pictures; without, floors alone are left.
        activations: whether the network is at hand, on a probe data set.
        fast: of methods, only those of `FAST_METHODS`.
    """
    at_hand = {"training", *(["activations"] if activations else [])}
    at_hand |= set(MINI_REQUIREMENTS if synthetic else [])
    return [
        spec.name
        for spec in baselines.specs()
        if set(spec.requires) <= at_hand
        and spec.name != "human"
        and (exemplars or spec.kind != "method")
        and (not fast or spec.kind != "method" or spec.name in FAST_METHODS)
    ]


def uses_exemplars(spec: MethodSpec) -> bool:
    """Say whether a method describes units by their exemplars: others go by activations."""
    return spec.kind == "method" and "activations" not in spec.requires


def has_exemplars(units: Any) -> bool:
    """Say whether any unit has pictures."""
    # a few rows at a time: the first that has pictures answers, and the others are not read
    parts = units.select_columns(["images"]).with_format("arrow").iter(16)
    return any(part["images"].null_count < len(part) for part in parts)


def run(
    data: str | os.PathLike[str] = "mini",
    methods: Sequence[str] | None = None,
    *,
    fast: bool = False,
    config: str | None = None,
    split: str | None = "test",
    metrics: Sequence[str] | None = None,
    settings: ScoreConfig | None = None,
    subject: Subject | None = None,
    blind: bool = False,
    track: str | None = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    tell: Callable[[str], Any] = lambda line: None,
) -> dict[str, Score]:
    """Describe and score an edition's units with several methods.

    Args:
        data: edition: a folder, or the name of an embedded one.
        methods: names or paths (default: all that need nothing but the edition).
        fast: of those, floors, references, `nearest` and `milan` alone.
        config: config of the edition; may be left out if there is only one.
        split: describe and score this split; None is all of them.
        metrics: names or sets (default: `synthetic` where the truth is known, else `default`).
        settings: seeds and numbers of draws.
        subject: the network with a probe data set, for methods that need activations.
        blind: let the methods that look at exemplars describe shuffled ones too, as a floor:
            the control, which has no lift.
        track: run for this track of the board: it says config, split and metrics, and records
            are of it.
        out: folder to write a record a method to, `<edition>-<config>-<split>/<method>`, or
            `<track>/<method>-<version>-seed<N>`.
        overwrite: replace records that are there.
        tell: called with a line of progress.

    Returns:
        The score of each method, in the order asked.

    Raises:
        InputError: as `baselines.describe` and `leaderboard.score` do.
    """
    settings = settings or ScoreConfig()
    stands = None if track is None else _track(track, data)
    if stands is not None:
        config, split, metrics = stands.config, stands.split, stands.metrics
    known = references.load(data, config=config)
    if stands is not None and stands.edition_digest not in (None, known.digest):
        raise InputError(f"{data} is not the edition of {stands.key}: its digest is another.")
    units = baselines.open_units(data, config=config, split=split)
    names = list(
        methods
        or offline_methods(
            known.synthetic, has_exemplars(units), activations=subject is not None, fast=fast
        )
    )
    made = [baselines.get(name) for name in names]
    titles = [f"{method.spec.name}@{method.spec.version}" for method in made]
    called = [method.spec.name for method in made]
    twice = [name for name in called if called.count(name) > 1]
    if twice:
        raise InputError(f"'{twice[0]}' is asked for twice; methods need names of their own.")
    places: list[Path | None] = [None] * len(made)
    if out is not None:
        place = Path(out) / "-".join((edition_name(data), known.config, split or "all"))
        places = [place / title.replace("@", "-") for title in titles]
        if stands is not None:
            seed = settings.seed
            specs = [method.spec for method in made]
            places = [
                Path(out) / tracks.record_path(stands, s.name, s.version, seed) for s in specs
            ]
        if Path(out).is_file():
            raise InputError(f"{out} is a file; a folder of records was expected at --out.")
        for each in places:
            score_record.check_free(str(each))  # before minutes are spent
    asked = list(metrics or (["synthetic"] if known.synthetic else ["default"]))
    built = build(expand(asked))  # once: what a text model has encoded serves all methods
    training = baselines.open_training(data, config)
    shuffled = baselines.shuffled_exemplars(units, settings.seed) if blind else units
    scores: dict[str, Score] = {}
    for method, title, place_of in zip(made, titles, places, strict=True):
        name = method.spec.name
        tell(f"{name}: describing {len(units):,} units")
        context = baselines.make_context(method.spec, units, training, subject, settings.seed)
        account = Account()
        answers = baselines.run(method, units, context, account=account)
        said = predictions.from_descriptions(zip(unit_keys(units), answers, strict=True))
        beside = {}
        if blind and uses_exemplars(method.spec):
            tell(f"{name}: describing shuffled exemplars")
            others = baselines.run(method, shuffled, context)
            beside["blind"] = predictions.from_descriptions(
                zip(unit_keys(units), others, strict=True)
            )
        tell(f"{name}: scoring")
        scores[name] = scoring.score(
            said,
            known,
            built,
            split=split,
            method=title,
            settings=settings,
            beside=beside,
            accounts=[account.to_dict()],
        )
        if stands is not None:
            words = ["milan", "run", "--track", stands.key, "--methods", method.spec.name]
            command = shlex.join([*words, "--seed", str(settings.seed)])
            about = from_spec(method.spec, command, settings.seed)
            update = {"track": stands.key, "about": about}
            scores[name].record = scores[name].record.model_copy(update=update)
        if place_of is not None:
            scores[name].save(place_of, overwrite=overwrite)
    return scores


def _track(name: str, data: str | os.PathLike[str]) -> tracks.Track:
    """Return a track whose units this edition holds, and whose rest is what methods learn from."""
    found = tracks.get(name)
    if found.task != "agreement":
        raise InputError(f"{found.key} is an application; 'milan {found.task}' runs it.")
    if found.condition and not found.condition.startswith("within-network"):
        raise InputError(
            f"{found.key} says which other networks may be learned from: train on those "
            f"(milannotations.load(..., condition='{found.condition}')), describe, and use "
            "'milan submit new'."
        )
    if edition_name(data) != found.edition:
        raise InputError(f"{found.key} is of the edition {found.edition}; give it with --data.")
    return found
