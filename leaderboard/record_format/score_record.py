"""Records: what was asked, what was resolved, what ran it, on what, and what came out.

A record is a folder: `record.json` (strict JSON, sorted keys), `units.parquet`
(network, layer, unit, metric, value, lift) and `predictions.csv`. Two identical
runs differ only in `id`, `created` and `seconds`.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from leaderboard.evaluation.abstention import Abstention, measure
from leaderboard.record_format.method_info import About
from milannotations.errors import InputError
from milannotations.schema import SPLITS
from milannotations.utils.files import check_is_file, replacing, sha256

if TYPE_CHECKING:
    import pandas as pd

    from leaderboard.evaluation.estimates import Summary
    from leaderboard.evaluation.predictions import Prediction, Predictions

SCHEMA_VERSION = 1
FILES = ("record.json", "units.parquet", "predictions.csv")
PACKAGES = (
    "bert-score",
    "datasets",
    "numpy",
    "pandas",
    "rapidfuzz",
    "rouge-score",
    "sacrebleu",
    "scikit-learn",
    "scipy",
    "sentence-transformers",
    "torch",
    "transformers",
)
FOOTNOTE = (
    "Intervals are bootstrap intervals over units: conditional on these annotators and "
    "these images. One person is scored against the others and is no ceiling: whoever "
    "writes the consensus can beat it."
)
SYNTHETIC_FOOTNOTE = (
    "Intervals are bootstrap intervals over units: conditional on these simulated annotators and "
    "these drawn images. One simulated annotator is scored against the others, or against the "
    "truth, and is no ceiling."
)


GROUNDED_FOOTNOTE = (
    "Intervals are bootstrap intervals over units: conditional on these pictures and this scorer, "
    "which says in which of them a description holds. Scores of different scorers are not "
    "comparable."
)


Model = TypeVar("Model", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Estimate(_Strict):
    """A score. Unknown is null; `mean` is over what was answered, `mean_all` over all units."""

    mean: FiniteFloat | None
    mean_all: FiniteFloat | None
    low: FiniteFloat | None
    high: FiniteFloat | None
    lift: FiniteFloat | None
    lift_low: FiniteFloat | None
    lift_high: FiniteFloat | None
    n_scored: int
    n_units: int


class Comparison(_Strict):
    """Method minus one person on matched references, paired by unit."""

    difference: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat
    p: FiniteFloat
    p_holm: FiniteFloat
    n: int


class Curve(_Strict):
    """Mean value of the most confident share of answers."""

    coverage: list[FiniteFloat]
    mean: list[FiniteFloat]
    area: FiniteFloat | None
    n: int


class MetricEntry(_Strict):
    """Spec and signature of a metric, as used."""

    title: str
    family: str
    low: FiniteFloat | None
    high: FiniteFloat | None
    direction: str | None
    source: str
    corpus: bool
    chance: FiniteFloat | None
    needs: str
    signature: str
    against: str = "descriptions"
    reads: str = "first"


class Edition(_Strict):
    """What the descriptions were held against."""

    edition: str
    config: str
    split: str
    layers: list[str]
    n_units: int
    n_descriptions: int
    digest: str
    synthetic: bool = False


class Answered(_Strict):
    """What was in the files of predictions, by unit in question."""

    files: list[dict[str, str]]
    layouts: list[str]
    n_ok: int
    n_failed: int
    n_abstained: int
    n_missing: int
    n_not_text: int
    n_distinct: int


class Grounding(_Strict):
    """What scores grounded in activations were made of.

    Attributes:
        scorer: what said in which pictures a description holds, with a digest.
        images: the pictures, with a digest, how many, and how they were sampled.
        networks: digest of each network's weights, by name.
        grid: regions a side; None where pictures are whole.
        n_unreadable: units whose description the scorer could not read; they count as failures.
        coverage: share of the units described that the scorer could read.
        held_out: whether the pictures played no part in choosing descriptions or exemplars, as
            far as accounts and source ids tell; None where nothing is known of either.
        why: what `held_out` goes by, a line each.
        same_model, same_family: whether the judge is the text-image model that a method chose
            by, or another of its kind; None where nothing is known of how answers were made.
        fails: the sanity tests that a metric fails, by metric (`milan check --metric`).
        one_picture_a_label: labels have one picture each: means over units can be read, and no
            ranking of units.
    """

    scorer: dict[str, Any]
    images: dict[str, Any]
    networks: dict[str, str]
    grid: int | None
    n_unreadable: int
    coverage: FiniteFloat | None
    held_out: bool | None
    why: list[str]
    same_model: bool | None
    same_family: bool | None
    fails: dict[str, list[str]]
    one_picture_a_label: bool


class Record(_Strict):
    """Everything that a reader needs to trust, repeat or refute a score.

    `kind` is `agreement` with words, or `grounding` in activations, which is told in `grounding`.

    `accounts` say how answers were made, as `baselines.Account` has it: options, seconds and
    tokens, and the probe pictures that a method chose on. There are none of what others made.
    """

    schema_version: int
    id: str
    created: str
    kind: str
    method: str
    version: str | None
    asked: dict[str, Any]
    settings: dict[str, Any]
    ran: dict[str, Any]
    edition: Edition
    predictions: Answered
    accounts: list[dict[str, Any]] = []
    metrics: dict[str, MetricEntry]
    scores: dict[str, Estimate]
    floors: dict[str, dict[str, Estimate]]
    versus_person: dict[str, Comparison]
    neighbours: dict[str, dict[str, FiniteFloat]]
    slices: dict[str, dict[str, Estimate]]
    person_slices: dict[str, dict[str, Estimate]] = {}
    risk_coverage: dict[str, Curve]
    abstention: Abstention | None = None
    left_out_of_lift: list[str]
    warnings: list[str]
    footnote: str
    seconds: dict[str, FiniteFloat]
    files: dict[str, str]
    track: str | None = None
    about: About | None = None
    grounding: Grounding | None = None

    @property
    def address(self) -> tuple[str, ...]:
        """What makes two records the same cell of a board."""
        edition = self.edition
        seed = None if self.about is None else self.about.seed
        return (
            edition.edition,
            edition.config,
            edition.split,
            self.method,
            self.version or "-",
            "+".join(edition.layers),
            self.track or "-",
            "-" if seed is None else str(seed),
            # records of agreement are older than other kinds
            *(() if self.grounding is None else (self.kind, self.grounding.scorer["digest"])),
        )


def assemble(
    *,
    summary: Summary,
    predictions: Predictions,
    first: Sequence[Prediction | None],
    method: str,
    asked: dict[str, Any],
    accounts: Sequence[Mapping[str, Any]] = (),
    left_out: Sequence[str] = (),
    seconds: dict[str, float],
    grounding: Grounding | None = None,
) -> Record:
    """Return the record of a run of `leaderboard.score`; `save` writes it."""
    import numpy as np

    from leaderboard.evaluation.estimates import METHOD, PERSON

    method, _, method_version = method.partition("@")
    known, scope = summary.references, summary.scope
    inside = [row for row, wanted in zip(first, scope, strict=True) if wanted]
    status = [row.status if row is not None else "missing" for row in inside]
    n_units = int(scope.sum())
    systems: dict[str, dict[str, Any]] = {"shuffled": {}}
    for name, outcomes in summary.outcomes.items():
        if (shuffled := summary.shuffled(name)) is not None:
            systems["shuffled"][name] = shuffled
        for system in outcomes:
            if system != METHOD:
                systems.setdefault(system, {})[name] = summary.estimate(system, name)
    confidence = np.array(
        [np.nan if row is None or row.score is None else row.score for row in first]
    )
    small = summary.small_layers()
    warnings = []
    if small:
        warnings.append(f"Fewer than 10 scored units, so no lift: {', '.join(small)}.")
    if PERSON not in systems and grounding is None:
        warnings.append("No unit has two references: no matched scores, no one person.")
    if left_out:
        warnings.append(
            f"No text model is at hand, so no {', '.join(left_out)}. Install the small one: "
            "pip install 'milannotations[offline]'."
        )
    if predictions.n_not_text:
        warnings.append(
            f"{predictions.n_not_text} descriptions say 'nan', 'none' or 'null' and are "
            "counted as failures."
        )
    without = [(word, status.count(word)) for word in ("failed", "abstained", "missing")]
    if any(count for _, count in without):
        listed = ", ".join(f"{count:,} {word}" for word, count in without if count)
        n = sum(count for _, count in without)
        warnings.append(f"{n:,} of {n_units:,} units have no description ({listed}): see mean_all.")
    record = Record(
        schema_version=SCHEMA_VERSION,
        id=uuid.uuid4().hex,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        kind="agreement" if grounding is None else "grounding",
        method=method,
        version=method_version or None,
        asked=asked,
        settings={
            **vars(summary.settings),
            "constants": list(summary.settings.constants or ()),
        },
        ran=what_ran(),
        edition=Edition(
            edition=known.edition,
            config=known.config,
            split=asked["split"] or "+".join(sorted(set(known.splits), key=_split_order)),
            layers=[
                f"{network}/{layer}"
                for (network, layer), members in known.layers.items()
                if scope[members].any()
            ],
            n_units=n_units,
            n_descriptions=sum(
                len(texts) for texts, wanted in zip(known.texts, scope, strict=True) if wanted
            ),
            digest=known.digest,
            synthetic=known.synthetic,
        ),
        predictions=Answered(
            files=[{"name": Path(path).name, "sha256": at} for path, at in predictions.sources],
            layouts=list(predictions.layouts),
            n_ok=status.count("ok"),
            n_failed=status.count("failed"),
            n_abstained=status.count("abstained"),
            n_missing=status.count("missing"),
            n_not_text=predictions.n_not_text,
            n_distinct=len(
                {row.description for row in inside if row is not None and row.status == "ok"}
            ),
        ),
        accounts=[dict(account) for account in accounts],
        metrics={
            name: MetricEntry(
                signature=metric.signature(),
                **{k: v for k, v in metric.spec.to_dict().items() if k != "name"},
            )
            for name, metric in summary.metrics.items()
        },
        scores={name: Estimate(**summary.estimate(METHOD, name)) for name in summary.metrics},
        floors=_estimates(systems),
        versus_person={
            name: Comparison(**entry) for name, entry in summary.versus_person().items()
        },
        neighbours=summary.neighbours(),
        slices=_estimates(summary.slices()),
        person_slices=_estimates(summary.person_slices()),
        risk_coverage={
            name: Curve(**curve) for name, curve in summary.risk_coverage(confidence).items()
        },
        abstention=measure(
            known,
            scope,
            summary.answers,
            np.array([row is not None and row.status == "abstained" for row in first]),
        ),
        left_out_of_lift=small,
        warnings=warnings,
        footnote=_footnote(known.synthetic, grounding),
        grounding=grounding,
        seconds={name: round(value, 3) for name, value in seconds.items()},
        files={},
    )
    for name, estimate in record.scores.items():
        expected = int(summary.about(name).sum())
        if not 0 <= estimate.n_scored <= estimate.n_units == expected <= n_units:
            raise AssertionError("scored and unscored units do not add up")
    return record


def _footnote(synthetic: bool, grounding: Grounding | None) -> str:
    if grounding is None:
        return SYNTHETIC_FOOTNOTE if synthetic else FOOTNOTE
    return GROUNDED_FOOTNOTE


def _estimates(made: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, Estimate]]:
    return {
        key: {name: Estimate(**values) for name, values in entries.items()}
        for key, entries in made.items()
    }


def check_free(folder: str | os.PathLike[str]) -> Path:
    """Return the folder as a Path; raise InputError unless it is absent, empty or a record.

    Called before a long run, so that its result has a place to go.
    """
    folder = Path(folder)
    check_beside(folder, held_by(folder) - set(FILES))
    return folder


def held_by(folder: Path) -> set[str]:
    """Return the names of a record's files; none where there is no record yet.

    Raises:
        InputError: a file, or a folder of something else.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a record is a folder. Give another --out.")
    held = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if held and "record.json" not in held:
        raise InputError(f"{folder} is not empty and holds no record. Give another --out.")
    return held


def check_beside(folder: Path, others: set[str]) -> None:
    """Raise InputError if a record's folder holds others' files, which would be lost."""
    if others:
        raise InputError(f"{folder} holds '{min(others)}' beside a record. Give another --out.")


def save(
    folder: str | os.PathLike[str],
    record: Record,
    units: pd.DataFrame,
    predictions: Predictions,
    *,
    overwrite: bool = False,
) -> Record:
    """Write a record's folder, whole or not at all; return the record as written.

    A record of the same method on the same edition, config and split is replaced.

    Raises:
        InputError: the folder holds something else (`overwrite=True` replaces another
            method's record, never what is not a record).
    """
    folder = check_free(folder)
    if (folder / "record.json").is_file():
        before = load(folder)
        if before.address != record.address and not overwrite:
            raise InputError(
                f"{folder} holds the record of {' / '.join(before.address)}. "
                "Give another --out, or --overwrite to replace it."
            )
    with replacing(folder) as temporary:
        temporary.mkdir()
        units.to_parquet(temporary / "units.parquet", index=False)
        predictions.write(temporary / "predictions.csv")
        files = {name: sha256(temporary / name) for name in ("predictions.csv", "units.parquet")}
        record = record.model_copy(update={"files": files})
        (temporary / "record.json").write_text(dumps(record), encoding="utf-8")
    return record


def load(folder: str | os.PathLike[str]) -> Record:
    """Return the record in a folder, checked.

    Raises:
        InputError: no `record.json`, not strict JSON, an unknown schema version, or
            fields that do not fit it.
    """
    return read_as(Record, Path(folder) / "record.json", SCHEMA_VERSION)


def read_as(model: type[Model], path: Path, version: int) -> Model:
    """Return what a JSON file with a `schema_version` holds, checked by a pydantic model.

    Args:
        model: of what is expected.
        path: of the file.
        version: of the schema, the one that is read.

    Raises:
        InputError: no such file, not strict JSON, another version, or fields that do not fit.
    """
    raw = read_strict(check_is_file(path))
    found = raw.get("schema_version") if isinstance(raw, dict) else None
    if found != version:
        raise InputError(f"{path} has schema version {found}; this version reads {version}.")
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: {where}: {first['msg']}") from None


def read_strict(path: Path) -> Any:
    """Return what a JSON file holds; raise InputError for repeated keys, NaN and infinities."""
    try:
        return json.loads(
            path.read_text(encoding="utf-8"),
            object_pairs_hook=_no_duplicates,
            parse_constant=_no_constant,
        )
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not strict JSON: {error}") from None


def dumps(record: BaseModel) -> str:
    """Return a record as strict JSON with sorted keys."""
    return json.dumps(record.model_dump(), indent=1, sort_keys=True, allow_nan=False) + "\n"


@cache
def _commit() -> tuple[str | None, bool | None]:
    """Return (commit of this package, whether it was changed since), or (None, None).

    Asks git about this file, so that an installed package says nothing of the
    repository that it happens to be run from.
    """
    here = Path(__file__).resolve()

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here.parent), *words],
                capture_output=True,
                text=True,
                check=False,
                timeout=20,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if not git("ls-files", "--error-unmatch", here.name):
        return None, None
    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "HEAD"), None if changed is None else bool(changed)


def what_ran() -> dict[str, Any]:
    """Return versions, commit and platform of this run."""
    commit, dirty = _commit()
    packages: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    try:
        own: str | None = version("milannotations")
    except PackageNotFoundError:
        own = None
    return {
        "milannotations": own,
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "platform": f"{sys.platform}-{platform.machine()}",
        "packages": packages,
    }


def _split_order(split: str) -> tuple[int, str]:
    return (SPLITS.index(split) if split in SPLITS else len(SPLITS), split)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key stands twice in an object")
    return made


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
