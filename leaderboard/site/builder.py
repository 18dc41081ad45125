"""Builder of the static leaderboard site: pages from records, and from the editions they name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leaderboard.ranking.standings import EntryRun, TrackRuns
from leaderboard.site import (
    application_page,
    downloads,
    load_records,
    method_page,
    rendering,
    thumbnails,
    track_table,
    unit_browser,
)
from leaderboard.site.load_records import ApplicationRun
from leaderboard.site.method_page import MethodPage
from leaderboard.site.safe_text import method_file, script_json, slug, track_file
from milannotations.errors import InputError
from milannotations.utils.cache import DEFAULT_FOLDER
from milannotations.utils.files import replacing

RECORDS = Path(__file__).parent.parent / "results"
"""Records that ship: every method that needs no download, on `mini`."""

SHIPPED = "shipped"
"""Name of `RECORDS` on the command line, beside folders of a user's own records."""

PageKey = tuple[str, str, str]
"""Edition, config, and digest of the references."""


@dataclass
class UnitPage:
    """A page of units, for one state of the references of an edition's config.

    Attributes:
        key: edition, config and digest of the references.
        file: file name of the page.
        title: title of the page.
        runs: tables and runs whose descriptions are shown, in the order of their columns.
        synthetic: True if units are planted.
        reason: why exemplars and annotations are not shown; "" if they are.
        n_units, n_methods: number of units and of methods on the page.
    """

    key: PageKey
    file: str
    title: str
    runs: list[tuple[TrackRuns, EntryRun]]
    synthetic: bool
    reason: str = ""
    n_units: int = 0
    n_methods: int = 0

    def shows(self, name: str, version: str | None) -> bool:
        """Return True if a method's descriptions are on the page."""
        return any((r.record.method, r.record.version) == (name, version) for _, r in self.runs)


def build(
    out: str | os.PathLike[str],
    folders: Sequence[str | os.PathLike[str]] = (),
    *,
    editions: Iterable[str | os.PathLike[str]] = (),
    real: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] = DEFAULT_FOLDER,
    tell: Callable[[str], Any] = lambda line: None,
    progress: bool = False,
) -> Path:
    """Build a leaderboard site, atomically. The same records give the same bytes.

    Args:
        out: folder of the site; a folder that `build` wrote is replaced.
        folders: folders of records, at any depth; `shipped` means the records that ship, which
            are also the default.
        editions: folders of editions that records name; embedded ones are always available.
        real: folder of published descriptions of resnet152-imagenet, whose rows are added.
        cache: cache folder for thumbnails and for scores of published rows.
        tell: called with each line of progress.
        progress: show progress bars.

    Returns:
        Path of the index page.

    Raises:
        InputError: a folder without records, a record that is damaged or does not belong to its
            track; an `out` that holds something else, or the records.
    """
    roots = [RECORDS if str(folder) == SHIPPED else Path(folder) for folder in folders]
    roots, edition_folders, out = roots or [RECORDS], list(editions), Path(out)
    _check_out(out, roots)
    if real is not None:
        from leaderboard.site import published_rows

        records, edition = published_rows.build_records(real, cache=cache, tell=tell)
        roots, edition_folders = [*roots, records], [*edition_folders, edition]
    runs, applications = load_records.load_records(roots)
    tables = load_records.group_by_track(runs)
    with replacing(out) as folder:
        folder.mkdir()
        _Site(
            folder, runs, tables, applications, edition_folders, Path(cache), tell, progress
        ).write()
    return out / "index.html"


def _check_out(out: Path, folders: Sequence[Path]) -> None:
    """Raise if replacing `out` would delete something other than a site."""
    if out.is_file():
        raise InputError(f"--out {out} is a file; expected a folder.")
    if out.is_dir() and any(out.iterdir()):
        page = out / "index.html"
        if not page.is_file() or rendering.MARK not in page.read_text("utf-8", errors="replace"):
            raise InputError(f"--out {out} holds something other than a site. Give another --out.")
    for folder in folders:
        if folder.resolve().is_relative_to(out.resolve()):
            raise InputError(
                f"{folder} is inside --out {out}, which is replaced. Give another --out."
            )


@dataclass
class _Site:
    """A site under construction: its inputs, and one method per kind of page."""

    folder: Path
    runs: Sequence[EntryRun]
    tables: Sequence[TrackRuns]
    applications: Sequence[ApplicationRun]
    editions: Sequence[str | os.PathLike[str]]
    cache: Path
    tell: Callable[[str], Any]
    progress: bool

    def write(self) -> None:
        """Write all pages; the index comes last, because it links to the others."""
        for name in rendering.ASSETS:
            self._write(f"assets/{name}", rendering.asset(name))
        n_records = sum(len(table.runs) for table in self.tables)
        self.tell(f"records: {n_records}, tables: {len(self.tables)}")
        table_data = [
            (table, track_table.table_data(table, self._grounded(table))) for table in self.tables
        ]
        unit_pages = self._unit_pages(table_data)
        track_cards = [self._write_track(table, data, unit_pages) for table, data in table_data]
        application_tables = application_page.application_tables(self.applications)
        for application_table in application_tables:
            self._write_application(application_table)
        method_links = [
            self._write_method(page, unit_pages, application_tables)
            for page in method_page.pages(self.tables, self.applications)
        ]
        (self.folder / "downloads").mkdir()
        files = downloads.write(self.folder / "downloads", self.runs, self.applications)
        current = [card for card in track_cards if not card["newest"]]
        index = rendering.render(
            "index.html",
            root="",
            real=[card for card in current if not card["track"].synthetic],
            synthetic=[card for card in current if card["track"].synthetic],
            real_applications=[t for t in application_tables if not t["synthetic"]],
            synthetic_applications=[t for t in application_tables if t["synthetic"]],
            frozen=[card for card in track_cards if card["newest"]],
            unit_pages=unit_pages,
            methods=method_links,
            downloads=[
                {"file": name, "content": content, "size": self._size(f"downloads/{name}")}
                for name, content in files
            ],
        )
        self._write("index.html", index)

    def _grounded(self, table: TrackRuns) -> list[TrackRuns]:
        """Return the tables of grounded scores of the same edition as a table of agreement."""
        if table.track.task == "grounding":
            return []
        edition = table.runs[0].record.edition
        return [
            other
            for other in self.tables
            if other.track.task == "grounding" and other.runs[0].record.edition == edition
        ]

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")

    def _size(self, name: str) -> str:
        return f"{(self.folder / name).stat().st_size / 1e6:,.1f} MB"

    def _write_track(
        self, table: TrackRuns, data: dict[str, Any], unit_pages: Sequence[UnitPage]
    ) -> dict[str, Any]:
        """Write the page of a track; return its data for the index."""
        file = track_file(table.track)
        keys = {other.track.key for other in self.tables}
        newest = table.newest
        page = rendering.render(
            "track.html",
            root="../",
            here="tracks",
            units_page=_page_of(table, unit_pages),
            newest_file=f"{newest.slug}.html" if newest and newest.key in keys else None,
            **data,
        )
        self._write(f"tracks/{file}", page)
        return {**data, "file": file}

    def _unit_pages(self, table_data: Sequence[tuple[TrackRuns, dict[str, Any]]]) -> list[UnitPage]:
        """Write the pages of units: one for each edition, config and state of the references."""
        pages: dict[PageKey, UnitPage] = {}
        for table, data in table_data:
            # Columns are in the order of the table's rows; one seed stands for all of a method.
            position = {(row["name"], row["version"]): i for i, row in enumerate(data["rows"])}
            seen: set[tuple[str, str | None]] = set()
            for run in sorted(
                table.runs, key=lambda run: position.get((run.record.method, run.record.version), 0)
            ):
                edition, method = run.record.edition, (run.record.method, run.record.version)
                if method in seen:
                    continue
                seen.add(method)
                key = _key(run)
                title = f"{edition.edition} / {edition.config}"
                if any(other[:2] == key[:2] and other != key for other in pages):
                    title += f", references {edition.digest[:6]}"
                file = f"{slug('-'.join((*key[:2], key[2][:6])))}.html"
                page = pages.setdefault(key, UnitPage(key, file, title, [], edition.synthetic))
                # A grounded score usually scores descriptions that are on the page already.
                if table.track.task != "grounding" or not page.shows(*method):
                    page.runs.append((table, run))
        for page in pages.values():
            self._write_unit_page(page)
        return list(pages.values())

    def _write_unit_page(self, page: UnitPage) -> None:
        """Write a page of units, its data scripts and its thumbnails."""
        record = page.runs[0][1].record
        edition, page.reason = load_records.find_edition(record, self.editions)
        annotations = sheets = None
        if edition is not None:
            config = record.edition.config
            annotations = unit_browser.read_annotations(edition, config)
            sheets = thumbnails.make_sheets(
                edition, config, cache=self.cache, tell=self.tell, progress=self.progress
            )
        measure = track_table.column_title(page.runs[0][0].track.ranked_by)
        methods = self._method_columns(page, measure)
        data = unit_browser.build_browser(
            methods, annotations, sheets, title=page.title, measure=measure
        )
        page.n_units, page.n_methods = len(data.index["unit"]), len(methods)
        folder = page.file.removesuffix(".html")
        self._write(f"units/{folder}/index.js", f"milanIndex({script_json(data.index)});\n")
        for number, part in enumerate(data.parts):
            script = f"milanPart({number},{script_json(part)});\n"
            self._write(f"units/{folder}/part-{number}.js", script)
        sheets_address = None
        if sheets is not None:
            sheets_address = f"../sprites/{sheets.digest[:16]}"
            target = self.folder / "sprites" / sheets.digest[:16]
            target.mkdir(parents=True, exist_ok=True)
            for number in data.sheets:
                shutil.copy(sheets.path(number), target)
        html = rendering.render(
            "units.html",
            root="../",
            here="units",
            title=page.title,
            synthetic=page.synthetic,
            reason=page.reason,
            measure=measure,
            folder=folder,
            sheets=sheets_address,
            method_pages="../methods",
        )
        self._write(f"units/{page.file}", html)

    def _method_columns(
        self, page: UnitPage, measure: str
    ) -> list[unit_browser.MethodDescriptions]:
        """Return the descriptions on a page of units, one column per method."""
        names = [(run.record.method, run.record.version) for _, run in page.runs]
        columns = []
        for table, run in page.runs:
            record, metric = run.record, table.track.ranked_by
            kind = "method" if record.about is None else record.about.kind
            if track_table.column_title(metric) != measure:
                metric = ""  # values of another metric are not shown under this measure's name
            file = method_file(record.method, record.version)
            column = unit_browser.read_descriptions(run, kind, file, metric)
            if names.count((record.method, record.version)) > 1:
                column = unit_browser.renamed(column, f"{column.name} on {table.track.key}")
            columns.append(column)
        return columns

    def _write_method(
        self,
        page: MethodPage,
        unit_pages: Sequence[UnitPage],
        application_tables: Sequence[dict[str, Any]],
    ) -> dict[str, Any]:
        """Write the page of a method; return its link for the index."""
        title = f"{page.name} {page.version}" if page.version else page.name
        records = [
            {
                "track": table.track,
                "file": track_file(table.track),
                "synthetic": record.edition.synthetic,
                "seed": None if record.about is None else record.about.seed,
                "units_page": _page_of(table, unit_pages),
                "slices": method_page.slices(record, (table.track.ranked_by, table.track.ties_by)),
                "scores": method_page.scores(record),
                "warnings": record.warnings,
            }
            for table, record in page.records
        ]
        applications = [
            {
                **row,
                "title": table["heading"],
                "file": table["file"],
                "synthetic": table["synthetic"],
            }
            for table in application_tables
            for row in table["rows"]
            if (row["name"], row["version"]) == (page.name, page.version)
        ]
        html = rendering.render(
            "method.html",
            root="../",
            here="methods",
            title=title,
            facts=method_page.facts(page),
            commands=method_page.commands(page),
            records=records,
            applications=applications,
            costs=method_page.costs(page),
        )
        self._write(f"methods/{page.file}", html)
        return {"file": page.file, "title": title}

    def _write_application(self, table: dict[str, Any]) -> None:
        """Write the page of an application, and copy its figures."""
        for row in table["rows"]:
            if row["figure"]:
                (self.folder / "figures").mkdir(exist_ok=True)
                target = self.folder / "figures" / row["figure"]
                shutil.copyfile(row["folder"] / "figure.png", target)
        html = rendering.render("application.html", root="../", here="tracks", table=table)
        self._write(f"applications/{table['file']}", html)


def _page_of(table: TrackRuns, pages: Sequence[UnitPage]) -> str | None:
    """Return the file name of the page with a table's units, if there is one."""
    key = _key(table.runs[0])
    return next((page.file for page in pages if page.key == key), None)


def _key(run: EntryRun) -> PageKey:
    edition = run.record.edition
    return edition.edition, edition.config, edition.digest
