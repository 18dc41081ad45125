"""Input of the leaderboard: records, grouped by track, and the editions that they name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import baselines
from leaderboard.applications import TASKS
from leaderboard.console.grounding_table import judge
from leaderboard.evaluation import references
from leaderboard.evaluation.references import References
from leaderboard.grounding.metrics import HEADLINE
from leaderboard.ranking import tracks
from leaderboard.ranking.standings import EntryRun, TrackRuns
from leaderboard.ranking.tracks import FALLBACK_METRIC, RANKED_BY, TIES_BY, Track
from leaderboard.record_format import application_record, score_record
from leaderboard.record_format.application_record import ApplicationRecord
from leaderboard.record_format.base import read_json
from leaderboard.record_format.method_info import from_spec
from leaderboard.record_format.score_record import Record
from milannotations.editions.configs import EMBEDDED, edition_name, list_configs, list_files
from milannotations.errors import InputError
from milannotations.schema import TEXT_COLUMNS
from milannotations.utils.files import sha256

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True)
class ApplicationRun:
    """Record of an application, and its folder."""

    record: ApplicationRecord
    folder: Path


def load_records(
    folders: Iterable[str | os.PathLike[str]],
) -> tuple[list[EntryRun], list[ApplicationRun]]:
    """Load all records in or under some folders, sorted: of scores, and of applications.

    Raises:
        InputError: a folder without a record; a record that cannot be read, or whose files differ
            from those that it names; a record that occurs twice.
    """
    runs: list[EntryRun] = []
    applications: list[ApplicationRun] = []
    folder_of: dict[str, Path] = {}  # by id of the record
    for root in folders:
        record_folders = sorted(path.parent for path in Path(root).rglob("record.json"))
        if not record_folders:
            raise InputError(
                f"No record under {root}. Write records with: milan run --out DIR, or milan submit "
                "score PATH --out DIR"
            )
        for folder in record_folders:
            content = read_json(folder / "record.json")
            kind = content.get("kind") if isinstance(content, dict) else None
            record: Record | ApplicationRecord
            if isinstance(kind, str) and kind in TASKS:
                record = application_record.load(folder)
                applications.append(ApplicationRun(record, folder))
            else:
                record = score_record.load(folder)
                runs.append(EntryRun(record, _read_units(folder), folder))
            _check_files(folder, record.files)
            if record.id in folder_of:
                raise InputError(
                    f"{folder} and {folder_of[record.id]} hold the same record. Leave one out."
                )
            folder_of[record.id] = folder
    runs.sort(key=lambda run: (run.record.address, run.record.id))
    applications.sort(key=lambda run: (run.record.address, run.record.id))
    return runs, applications


def _read_units(folder: Path) -> pd.DataFrame:
    """Read the rows of `units.parquet` of the metrics that order tables."""
    import pandas as pd
    import pyarrow as pa

    names = {FALLBACK_METRIC, *HEADLINE}
    for track in tracks.all_tracks():
        names |= {track.ranked_by, track.ties_by}
    path = folder / "units.parquet"
    try:
        units = pd.read_parquet(path, filters=[("metric", "in", sorted(names))])
        return units[["network", "layer", "unit", "metric", "value", "lift"]]
    except (pa.ArrowException, OSError, KeyError) as error:
        raise InputError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None


def _check_files(folder: Path, digests: dict[str, str]) -> None:
    """Raise if a file of a record is missing, is a link, or has changed."""
    for name, digest in digests.items():
        path = folder / name
        if Path(name).name != name or path.is_symlink() or not path.is_file():
            raise InputError(f"{folder} names the file {name!r:.60}, which is not in the folder.")
        if sha256(path) != digest:
            raise InputError(
                f"{path} has changed since it was written: its sha256 differs. Score it again."
            )


def group_by_track(runs: Sequence[EntryRun]) -> list[TrackRuns]:
    """Group runs by track, in the order of the tracks; runs without a track form further tables.

    Grounded scores come last, in one table per set of images and scorer.

    Raises:
        InputError: a record of an unknown track.
    """
    known = tracks.all_tracks()
    newest = {track.name: track for track in known}  # versions ascend
    by_key: dict[str, list[EntryRun]] = {}
    untracked: dict[Track, list[EntryRun]] = {}
    for run in map(_with_method_info, runs):
        if run.record.track is not None:
            track = tracks.get(run.record.track)
            if track.key != run.record.track:  # a name without its version
                raise InputError(
                    f"{run.folder} is of the unknown track '{run.record.track[:100]}'. "
                    "See: milan list tracks"
                )
            by_key.setdefault(track.key, []).append(run)
        elif own_track := _own_track(run.record):
            record = run.record.model_copy(update={"track": own_track.key})
            untracked.setdefault(own_track, []).append(replace(run, record=record))
    tables = [
        TrackRuns(
            track,
            tuple(by_key[track.key]),
            newest[track.name] if track != newest[track.name] else None,
        )
        for track in known
        if track.key in by_key
    ]
    own_tracks = sorted(untracked, key=_sort_key)
    return [*tables, *(TrackRuns(track, tuple(untracked[track])) for track in own_tracks)]


def _with_method_info(run: EntryRun) -> EntryRun:
    """Return a run whose record describes its method, from its spec if it is one of ours."""
    record = run.record
    specs = {} if record.about else {spec.name: spec for spec in baselines.specs()}
    spec = specs.get(record.method)
    if spec is None or record.version != spec.version:
        return run
    command = (
        f"milan describe {record.edition.edition} --method {spec.name} "
        f"--config {record.edition.config} --out {spec.name}.csv"
    )
    about = from_spec(spec, command, record.settings.get("seed"))
    return replace(run, record=record.model_copy(update={"about": about}))


def _sort_key(track: Track) -> tuple[bool, bool, str, str]:
    return track.task == "grounding", not track.synthetic, track.name, track.edition_digest or ""


def _own_track(record: Record) -> Track | None:
    """Return a track of version 0 for a record without one; comparable records share it.

    Returns:
        The track, named by edition, config, split and digest; None without a metric to rank by.
    """
    edition, grounding = record.edition, record.grounding
    candidates = (RANKED_BY, FALLBACK_METRIC) if grounding is None else HEADLINE
    ranked_by = next((name for name in candidates if name in record.scores), None)
    if ranked_by is None:
        return None
    track = Track(
        name="-".join((edition.edition, edition.config, edition.split, edition.digest[:6])),
        version=0,
        title=f"{edition.edition} / {edition.config}, split {edition.split}",
        edition=edition.edition,
        config=edition.config,
        split=edition.split,
        condition="",
        task="agreement",
        metrics=tuple(record.metrics),
        ranked_by=ranked_by,
        ties_by=TIES_BY,
        synthetic=edition.synthetic,
        n_units=edition.n_units,
        units_digest="",
        edition_digest=edition.digest,
    )
    if grounding is None:
        suffix = "-tfidf" if ranked_by == FALLBACK_METRIC else ""
        return replace(track, name=track.name + suffix, title=f"{track.title}: not a track")
    # The signature covers images, networks and scorer: equal signatures are comparable.
    state = hashlib.sha256(record.metrics[ranked_by].signature.encode()).hexdigest()
    return replace(
        track,
        name=f"{track.name}-grounding-{state[:6]}",
        title=f"{track.title}: activations, judged by {judge(grounding)}",
        task="grounding",
        ties_by=ranked_by,
    )


def find_edition(
    record: Record, editions: Iterable[str | os.PathLike[str]]
) -> tuple[str | os.PathLike[str] | None, str]:
    """Find the edition that a record names, among folders and embedded editions.

    Args:
        record: record with the edition's name, config and digest.
        editions: folders of editions; embedded ones are always available.

    Returns:
        The edition and ""; or None and the reason why it is not available.
    """
    name, config = record.edition.edition, record.edition.config
    by_name = {edition_name(edition): edition for edition in editions}
    edition = by_name.get(name) or (name if name in EMBEDDED else None)
    if edition is None:
        return None, f"the edition '{name}' is not available"
    if config not in list_configs(edition):
        return None, f"the available edition has no config '{config}'"
    if read_references(edition, config).digest != record.edition.digest:
        return None, "the available edition has other units or descriptions than the scored one"
    return edition, ""


def read_references(edition: str | os.PathLike[str], config: str) -> References:
    """Read the references of an edition, equal to those of `references.from_edition`.

    They are read with pyarrow only: importing `datasets` takes longer than building the pages.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    splits = {}
    for split, paths in list_files(edition, config).items():
        columns = list(TEXT_COLUMNS)
        splits[split] = _DatasetRows(
            pa.concat_tables(parquet.read_table(p, columns=columns) for p in paths)
        )
    name = edition_name(edition)
    return references.from_dataset(splits, edition=name, config=config, source=edition)


class _DatasetRows:
    """The part of the interface of `datasets.Dataset` that references need, over a table."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    @property
    def column_names(self) -> list[str]:
        names: list[str] = self.table.column_names
        return names

    def select_columns(self, names: list[str]) -> _DatasetRows:
        return _DatasetRows(self.table.select(names))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.table.to_batches():
            yield from batch.to_pylist()
