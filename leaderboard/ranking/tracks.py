"""Tracks of the leaderboard. A track is (edition, split condition, set of metrics).

Scores are comparable only within one version of a track. A version never changes: another edition,
condition or metric is a new version, and the old one stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from milannotations.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from leaderboard.record_format.score_record import Record

Task = Literal["agreement", "grounding", "analyze", "audit", "edit"]

EMBEDDING = "all-MiniLM-L6-v2"
"""Text model of every track of version 1: the one of the `offline` extra."""

RANKED_BY = f"retrieval-embedding-auc@{EMBEDDING}"
"""Metric that orders tables of agreement, by `mean_all` on matched references."""

TIES_BY = "rouge-l"
"""Metric whose lift breaks ties."""

FALLBACK_METRIC = "retrieval-tfidf-auc"
"""Metric that orders tables of records without a track and without `RANKED_BY`."""

_HUMAN_METRICS = (
    RANKED_BY,
    f"retrieval-embedding-top1@{EMBEDDING}",
    TIES_BY,
    "rouge-l-allref",
    "retrieval-tfidf-auc",
    "bleu-4",
    "no-overlap",
    "distinct",
    "top10-share",
)
_PLANTED_METRICS = (
    RANKED_BY,
    TIES_BY,
    "concept-f1",
    "concept-exact",
    f"identification@{EMBEDDING}",
    f"identification-auc@{EMBEDDING}",
    "sense-recall",
    "unparsed",
    "retrieval-tfidf-auc",
    "no-overlap",
    "distinct",
    "top10-share",
)

MINI_DIGEST = "1905f5356712c9bf451de4937428a4558c834e1151032277b809dc1df69195b3"
"""Digest of the references of the edition `mini`, for version 1."""

MINI_UNITS_DIGEST = "6a93c6662aa109f0f1b1b6d37e694f4792177897ba0fb24eb0587925287bfe50"
"""Digest of the test units of the edition `mini`, for version 1."""


@dataclass(frozen=True)
class Track:
    """One table of the leaderboard.

    Attributes:
        name, version: together the key, `name@version`.
        title: one line on what is tested.
        edition, config: units and their human descriptions.
        split: split that is described and scored; None means all units of the config.
        condition: official split that says what a method may learn from; "" means the rest of the
            edition.
        task: "agreement" with human descriptions, "grounding" in activations, or the application
            that the score comes from.
        metrics: full names of the metrics to compute.
        ranked_by: metric whose `mean_all`, on matched references, orders the table.
        ties_by: metric whose lift is shown beside it and breaks ties.
        synthetic: True if units were planted and annotators are simulated.
        n_units: number of units that an entry must describe; None for an application, which makes
            its own.
        units_digest: sha256 of the official split (`milannotations.splits.digest`) or, without one,
            of the units (`submission.track_units.units_digest`).
        edition_digest: digest of the references (`References.digest`); None if the edition is made
            on each user's machine.
    """

    name: str
    version: int
    title: str
    edition: str
    config: str
    split: str | None
    condition: str
    task: Task
    metrics: tuple[str, ...]
    ranked_by: str
    ties_by: str
    synthetic: bool
    n_units: int | None
    units_digest: str | None
    edition_digest: str | None = None

    @property
    def key(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def slug(self) -> str:
        """Name for files and URLs: letters, digits, dashes and underscores."""
        return f"{self.name.replace('/', '-')}-v{self.version}"

    @property
    def stem(self) -> str:
        """Name of the predictions file, without suffix: <edition>-<config>[-<condition family>]."""
        family = [self.condition.partition("/")[0]] if self.condition else []
        return "-".join((self.edition, self.config, *family))

    def to_dict(self) -> dict[str, Any]:
        return {"key": self.key, **asdict(self)}


def all_tracks() -> tuple[Track, ...]:
    """Return every version of every track, synthetic editions first.

    Example:
        >>> [track.key for track in all_tracks()][:2]
        ['mini@1', 'mini-analyze@1']
    """
    return (*_synthetic(), *_published())


def get(name: str) -> Track:
    """Return a track by `name` (its newest version) or `name@version`.

    Raises:
        InputError: unknown track or version.

    Example:
        >>> get("leave-one-out/resnet152-imagenet").n_units
        3904
    """
    by_key = {track.key: track for track in all_tracks()}
    newest = {track.name: track for track in all_tracks()}  # versions ascend
    stripped = name.strip()
    track = by_key.get(stripped) or newest.get(stripped)
    if track is None:
        raise InputError(
            f"No track '{name[:100]}'.{did_you_mean(stripped, [*newest, *by_key])} "
            "See: milan list tracks"
        )
    return track


def record_path(track: Track, method: str, version: str | None, seed: int | None = None) -> Path:
    """Return the path of a record of a track, relative to a folder of records.

    Example:
        >>> record_path(get("mini"), "nearest", "1.0", 0).as_posix()
        'mini-v1/nearest-1.0-seed0'
    """
    parts = [method, version or "", "" if seed is None else f"seed{seed}"]
    return Path(track.slug) / "-".join(part for part in parts if part)


def mismatch(record: Record, track: Track) -> str | None:
    """Return why a record does not belong in a track's table, or None if it does."""
    edition = record.edition
    if record.track != track.key:
        return f"its track is {record.track or 'none'}"
    if record.kind != track.task:
        return f"it is a record of {record.kind}"
    if (edition.edition, edition.config) != (track.edition, track.config):
        return f"it is of {edition.edition} / {edition.config}, another edition"
    if edition.synthetic != track.synthetic:
        return "synthetic and real results are never shown in one table"
    if track.edition_digest and edition.digest != track.edition_digest:
        return f"its references have the digest {edition.digest[:12]}"
    if track.ranked_by not in record.scores:
        return f"it has no {track.ranked_by}"
    return None


@cache
def _synthetic() -> tuple[Track, ...]:
    synthetic = [
        Track(
            name="mini",
            version=1,
            title="Planted units of the mini world: agreement with simulated annotators",
            edition="mini",
            config="mini",
            split="test",
            condition="",
            task="agreement",
            metrics=_PLANTED_METRICS,
            ranked_by=RANKED_BY,
            ties_by=TIES_BY,
            synthetic=True,
            n_units=393,
            units_digest=MINI_UNITS_DIGEST,
            edition_digest=MINI_DIGEST,
        )
    ]
    for task, title in _APPLICATIONS.items():
        synthetic.append(
            Track(
                name=f"mini-{task}",
                version=1,
                title=title,
                edition="mini",
                config="mini",
                split=None,
                condition="",
                task=task,
                metrics=(),
                ranked_by="",
                ties_by="",
                synthetic=True,
                n_units=None,
                units_digest=None,
            )
        )
    return tuple(synthetic)


_APPLICATIONS: dict[Task, str] = {
    "analyze": "Networks of the mini world: do descriptions tell which units matter?",
    "audit": "Networks of the mini world: do descriptions tell what a network was trained on?",
    "edit": "Networks of the mini world: do descriptions find the units to ablate?",
}


@cache
def _published() -> tuple[Track, ...]:
    return tuple(_of_conditions())


def _of_conditions() -> Iterator[Track]:
    """Yield a track for each condition of the paper, with seed 0 of the official splits."""
    from milannotations import splits

    for condition in splits.conditions(1):
        family, _, networks = condition.name.partition("/")
        if "@" in networks:  # splits of other seeds
            continue
        within = family == "within-network"
        train, _, test = networks.partition("-to-")
        tested = test or networks
        title = _TITLES[family].format(
            train=_GROUP_NAMES.get(train, train), test=_GROUP_NAMES.get(tested, tested)
        )
        yield Track(
            name=condition.name,
            version=1,
            title=title,
            edition="release",
            config=tested,
            split="test" if within else None,
            condition=condition.name,
            task="agreement",
            metrics=_HUMAN_METRICS,
            ranked_by=RANKED_BY,
            ties_by=TIES_BY,
            synthetic=False,
            n_units=condition.n_test,
            units_digest=condition.digest,
        )


_GROUP_NAMES = {
    "base": "the six networks of 2022",
    "cls": "classifiers",
    "gen": "generators",
    "imagenet": "ImageNet networks",
    "places365": "Places365 networks",
    "alexnet": "both AlexNets",
    "resnet152": "both ResNet-152s",
}
_TITLES = {
    "within-network": "A tenth of the units of {test}, learning from its others",
    "across-network": "Units of {test}, learning from {train}",
    "across-dataset": "Units of {test}, learning from {train}",
    "across-task": "Units of {test}, learning from {train}",
    "across-arch": "Units of {test}, learning from {train}",
    "leave-one-out": "Units of {test}, learning from the five other networks",
}
