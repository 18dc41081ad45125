"""Description and scoring of an edition's units with several methods, under equal conditions."""

from __future__ import annotations

import os
import shlex
from collections import Counter
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
"""Requirements of methods that the mini world meets."""

FAST_METHODS = ("nearest", "milan")
"""Methods of a fast run, beside floors and references."""


def offline_methods(
    synthetic: bool, exemplars: bool, *, activations: bool = False, fast: bool = False
) -> list[str]:
    """Return the names of the methods whose requirements are available.

    Args:
        synthetic: True if the truth is known.
        exemplars: True if units have images; without images, only floors are returned.
        activations: True if the network is available, with a probe dataset.
        fast: of the methods, return only `FAST_METHODS`.
    """
    available = {"training", *(["activations"] if activations else [])}
    available |= set(MINI_REQUIREMENTS if synthetic else [])
    return [
        spec.name
        for spec in baselines.specs()
        if set(spec.requires) <= available
        and spec.name != "human"
        and (exemplars or spec.kind != "method")
        and (not fast or spec.kind != "method" or spec.name in FAST_METHODS)
    ]


def uses_exemplars(spec: MethodSpec) -> bool:
    """Return True if a method describes units by their exemplars, not by activations."""
    return spec.kind == "method" and "activations" not in spec.requires


def has_exemplars(units: Any) -> bool:
    """Return True if any unit has images."""
    # Read a few rows at a time: the first row with images decides, and the others are not read.
    batches = units.select_columns(["images"]).with_format("arrow").iter(16)
    return any(batch["images"].null_count < len(batch) for batch in batches)


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
        fast: of those, only floors, references, `nearest` and `milan`.
        config: config of the edition; optional if there is only one.
        split: split to describe and score, such as test or train+test.
        metrics: names or sets (default: `synthetic` if the truth is known, else `default`).
        settings: random seed and numbers of draws.
        subject: the network with a probe dataset, for methods that need activations.
        blind: let the methods that use exemplars describe shuffled ones too, as a floor without
            lift.
        track: run for this track of the leaderboard: it sets config, split and metrics, and the
            records name it.
        out: folder for one record per method, `<edition>-<config>-<split>/<method>`, or
            `<track>/<method>-<version>-seed<N>`.
        overwrite: replace existing records.
        tell: called with each line of progress.

    Returns:
        Score of each method by name, in the given order.

    Raises:
        InputError: as `baselines.describe` and `leaderboard.score`.
    """
    settings = settings or ScoreConfig()
    entered = None if track is None else _open_track(track, data)
    if entered is not None:
        config, split, metrics = entered.config, entered.split, entered.metrics
    known = references.load(data, config=config)
    if entered is not None and entered.edition_digest not in (None, known.digest):
        raise InputError(
            f"--data {data} is not the edition of {entered.key}: their digests differ. "
            "See: milan list tracks"
        )
    units = baselines.open_units(data, config=config, split=split)
    names = methods or offline_methods(
        known.synthetic, has_exemplars(units), activations=subject is not None, fast=fast
    )
    opened = [baselines.get(name) for name in names]
    specs = [method.spec for method in opened]
    counts = Counter(spec.name for spec in specs)
    repeated = [name for name, count in counts.items() if count > 1]
    if repeated:
        raise InputError(f"'{repeated[0]}' is given twice; expected methods of different names.")
    folders: list[Path | None] = [None] * len(specs)
    if out is not None:
        if entered is None:
            group = "-".join((edition_name(data), known.config, split or "all"))
            paths = [Path(group) / f"{spec.name}-{spec.version}" for spec in specs]
        else:
            paths = [
                tracks.record_path(entered, spec.name, spec.version, settings.seed)
                for spec in specs
            ]
        folders = [Path(out) / path for path in paths]
        if Path(out).is_file():
            raise InputError(f"--out {out} is a file; expected a folder of records.")
        for folder in folders:
            score_record.check_free(str(folder))  # fails before minutes are spent
    metric_names = list(metrics or (["synthetic"] if known.synthetic else ["default"]))
    # Build each metric once: a text model encodes the texts of all methods in one cache.
    built = build(expand(metric_names))
    training = baselines.open_training(data, config)
    shuffled = baselines.shuffled_exemplars(units, settings.seed) if blind else units
    scores: dict[str, Score] = {}
    for method, folder in zip(opened, folders, strict=True):
        spec = method.spec
        tell(f"{spec.name}: describing {len(units):,} units")
        context = baselines.make_context(spec, units, training, subject, settings.seed)
        account = Account()
        descriptions = baselines.run(method, units, context, account=account)
        beside = {}
        if blind and uses_exemplars(spec):
            tell(f"{spec.name}: describing shuffled exemplars")
            blind_descriptions = baselines.run(method, shuffled, context)
            beside["blind"] = predictions.from_descriptions(
                zip(unit_keys(units), blind_descriptions, strict=True)
            )
        tell(f"{spec.name}: scoring")
        score = scoring.score(
            predictions.from_descriptions(zip(unit_keys(units), descriptions, strict=True)),
            known,
            built,
            split=split,
            method=f"{spec.name}@{spec.version}",
            settings=settings,
            beside=beside,
            accounts=[account.to_dict()],
        )
        if entered is not None:
            words = ["milan", "run", "--track", entered.key, "--methods", spec.name]
            command = shlex.join([*words, "--seed", str(settings.seed)])
            about = from_spec(spec, command, settings.seed)
            update = {"track": entered.key, "about": about}
            score.record = score.record.model_copy(update=update)
        if folder is not None:
            score.save(folder, overwrite=overwrite)
        scores[spec.name] = score
    return scores


def _open_track(name: str, data: str | os.PathLike[str]) -> tracks.Track:
    """Return a track that a run can serve: its units and its training units are in the edition."""
    track = tracks.get(name)
    if track.task != "agreement":
        raise InputError(f"{track.key} is a track of an application. Run: milan {track.task}")
    if track.condition and not track.condition.startswith("within-network"):
        raise InputError(
            f"{track.key} restricts training to other networks. Train on those "
            f"(milan train --data release --condition {track.condition}), describe, and use milan "
            "submit new."
        )
    if edition_name(data) != track.edition:
        raise InputError(
            f"--data {data} is not the edition {track.edition} of {track.key}; give its folder "
            "with --data."
        )
    return track
