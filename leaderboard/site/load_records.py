"""What a board is made of: records, sorted into tracks, and the editions that they name."""

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
from leaderboard.evaluation import references as reference_sources
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
    """An application's record and where it lies."""

    outcome: ApplicationRecord
    folder: Path


def load_records(
    folders: Iterable[str | os.PathLike[str]],
) -> tuple[list[EntryRun], list[ApplicationRun]]:
    """Return the records in or under these folders, of scores and of applications, sorted.

    Raises:
        InputError: a folder without a record; a record that cannot be read, or whose files are
            not those that it names; a record twice.
    """
    runs: list[EntryRun] = []
    found: list[ApplicationRun] = []
    seen: dict[str, Path] = {}
    for root in folders:
        places = sorted(path.parent for path in Path(root).rglob("record.json"))
        if not places:
            raise InputError(
                f"No record lies under {root}; 'milan run --out DIR' and 'milan submit score' "
                "write them."
            )
        for place in places:
            raw = read_json(place / "record.json")
            kind = raw.get("kind") if isinstance(raw, dict) else None
            made: Record | ApplicationRecord
            if isinstance(kind, str) and kind in TASKS:
                made = application_record.load(place)
                found.append(ApplicationRun(made, place))
            else:
                made = score_record.load(place)
                runs.append(EntryRun(made, _units(place), place))
            _check_files(place, made.files)
            if made.id in seen:
                raise InputError(f"{place} and {seen[made.id]} hold the same record.")
            seen[made.id] = place
    runs.sort(key=lambda run: (run.record.address, run.record.id))
    found.sort(key=lambda each: (each.outcome.address, each.outcome.id))
    return runs, found


def _units(folder: Path) -> pd.DataFrame:
    """Return what `units.parquet` holds of the metrics that order tables."""
    import pandas as pd
    import pyarrow as pa

    names = {name for track in tracks.all_tracks() for name in (track.ranked_by, track.ties_by)}
    names |= set(HEADLINE)
    path = folder / "units.parquet"
    try:
        made = pd.read_parquet(path, filters=[("metric", "in", sorted({*names, FALLBACK_METRIC}))])
        return made[["network", "layer", "unit", "metric", "value", "lift"]]
    except (pa.ArrowException, OSError, KeyError) as error:
        raise InputError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None


def _check_files(folder: Path, digests: dict[str, str]) -> None:
    for name, digest in digests.items():
        path = folder / name
        if Path(name).name != name or path.is_symlink() or not path.is_file():
            raise InputError(f"{folder} names the file {name!r:.60}, which does not lie there.")
        if sha256(path) != digest:
            raise InputError(f"{path} is not as it was written: its sha256 differs. Score it anew.")


def group_by_track(runs: Sequence[EntryRun]) -> list[TrackRuns]:
    """Return runs by track, in the order of the tracks; those of none in tables of their own.

    Scores in activations come last, each in a table of the same pictures and the same judge.

    Raises:
        InputError: a record of a track that is not known.
    """
    known = tracks.all_tracks()
    newest = {track.name: track for track in known}
    by_key: dict[str, list[EntryRun]] = {}
    loose: dict[Track, list[EntryRun]] = {}
    for run in map(_introduced, runs):
        if run.record.track is not None:
            track = tracks.get(run.record.track)
            if track.key != run.record.track:
                raise InputError(f"{run.folder} is of track '{run.record.track[:100]}'; no such.")
            by_key.setdefault(track.key, []).append(run)
        elif track_of := _loose(run.record):
            own = run.record.model_copy(update={"track": track_of.key})
            loose.setdefault(track_of, []).append(replace(run, record=own))
    made = [
        TrackRuns(
            track,
            tuple(by_key[track.key]),
            newest[track.name] if track != newest[track.name] else None,
        )
        for track in known
        if track.key in by_key
    ]
    return [
        *made,
        *(TrackRuns(track, tuple(loose[track])) for track in sorted(loose, key=_by_name)),
    ]


def _introduced(run: EntryRun) -> EntryRun:
    """Return a run whose record says what the method is: of ours, what their specs say."""
    record = run.record
    known = {} if record.about else {spec.name: spec for spec in baselines.specs()}
    spec = known.get(record.method)
    if spec is None or record.version != spec.version:
        return run
    command = (
        f"milan describe {record.edition.edition} --method {spec.name} "
        f"--config {record.edition.config} --out {spec.name}.csv"
    )
    about = from_spec(spec, command, record.settings.get("seed"))
    return replace(run, record=record.model_copy(update={"about": about}))


def _by_name(track: Track) -> tuple[bool, bool, str, str]:
    return track.task == "grounding", not track.synthetic, track.name, track.edition_digest or ""


def _loose(record: Record) -> Track | None:
    """Return a table for records that stand on no track: what they are of is its name."""
    edition, grounding = record.edition, record.grounding
    choices = (RANKED_BY, FALLBACK_METRIC) if grounding is None else HEADLINE
    ranked_by = next((name for name in choices if name in record.scores), None)
    if ranked_by is None:
        return None
    made = Track(
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
        more = "-tfidf" if ranked_by == FALLBACK_METRIC else ""
        return replace(made, name=made.name + more, title=f"{made.title}: not a track")
    # the same pictures, networks and judge have one signature
    state = hashlib.sha256(record.metrics[ranked_by].signature.encode()).hexdigest()
    return replace(
        made,
        name=f"{made.name}-grounding-{state[:6]}",
        title=f"{made.title}: what units do, judged by {judge(grounding)}",
        task="grounding",
        ties_by=ranked_by,
    )


def find_edition(
    record: Record, places: Iterable[str | os.PathLike[str]]
) -> tuple[str | os.PathLike[str] | None, str]:
    """Return the edition that a record names, and why it is not shown where it is not at hand.

    Args:
        record: names edition, config and digest.
        places: folders of editions at hand; embedded ones always are.
    """
    named, config = record.edition.edition, record.edition.config
    known = {edition_name(place): place for place in places}
    at = known.get(named) or (named if named in EMBEDDED else None)
    if at is None:
        return None, f"the edition '{named}' is not at hand"
    if config not in list_configs(at):
        return None, f"the edition at hand has no config '{config}'"
    if read_references(at, config).digest != record.edition.digest:
        return None, "the edition at hand has other units or descriptions than was scored"
    return at, ""


def read_references(edition: str | os.PathLike[str], config: str) -> References:
    """Return what people wrote of an edition's units, as `read_references.from_edition` does.

    Read by pyarrow alone: importing `datasets` takes longer than making a board.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    parts = {}
    for split, paths in list_files(edition, config).items():
        columns = list(TEXT_COLUMNS)
        parts[split] = _Rows(
            pa.concat_tables(parquet.read_table(p, columns=columns) for p in paths)
        )
    name = edition_name(edition)
    return reference_sources.from_dataset(parts, edition=name, config=config, source=edition)


class _Rows:
    """A table whose rows are dicts, as a data set's are."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    @property
    def column_names(self) -> list[str]:
        names: list[str] = self.table.column_names
        return names

    def select_columns(self, names: list[str]) -> _Rows:
        return _Rows(self.table.select(names))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.table.to_batches():
            yield from batch.to_pylist()
