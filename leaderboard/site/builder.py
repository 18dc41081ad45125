"""`milan board build`: static pages from records, and from the editions that they name."""

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
    rendering,
    thumbnails,
    track_table,
    unit_browser,
)
from leaderboard.site import method_page as methods
from leaderboard.site.load_records import ApplicationRun
from leaderboard.site.safe_text import method_file, script_json, slug, track_file
from milannotations.errors import InputError
from milannotations.utils.cache import DEFAULT_FOLDER
from milannotations.utils.files import replacing

RECORDS = Path(__file__).parent.parent / "results"
"""The records that ship: every method that needs no download, on `mini`."""

SHIPPED = "shipped"
"""What they are called beside folders of one's own."""


@dataclass
class UnitPage:
    """A page of units: of one state of the references of an edition's config."""

    of: tuple[str, str, str]
    file: str
    title: str
    runs: list[tuple[TrackRuns, EntryRun]]
    synthetic: bool
    why: str = ""
    n: int = 0
    methods: int = 0

    def shows(self, named: tuple[str, str | None]) -> bool:
        """Say whether a method's answers, by (name, version), are on the page."""
        return any((run.record.method, run.record.version) == named for _, run in self.runs)


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
    """Write a board: whole, or not at all. The same records give the same bytes.

    Args:
        out: folder of the site; one that `build` made is replaced.
        folders: of records, at any depth; `shipped` are those that ship (default: these alone).
        editions: folders of editions that records name; embedded ones are at hand.
        real: folder of other people's real descriptions (see `board.real`): their rows too.
        cache: folder of what is made once: an edition's thumbnails, scores of real rows.
        tell: called with a line of progress.
        progress: show progress bars.

    Returns:
        The page to open.

    Raises:
        InputError: a folder without records, a record that is damaged or may not stand where it
            would; `out` holds something else, or the records.
    """
    roots = [RECORDS if str(each) == SHIPPED else Path(each) for each in folders or (SHIPPED,)]
    places, out = list(editions), Path(out)
    _check_place(out, roots)
    if real is not None:
        from leaderboard.site import published_rows

        own, edition = published_rows.build_records(real, cache=cache, tell=tell)
        roots, places = [*roots, own], [*places, edition]
    runs, findings = load_records.load_records(roots)
    tables = load_records.group_by_track(runs)
    with replacing(out) as site:
        site.mkdir()
        _Site(site, runs, tables, findings, places, Path(cache), tell, progress).write()
    return out / "index.html"


def _check_place(out: Path, folders: Sequence[Path]) -> None:
    if out.is_file():
        raise InputError(f"{out} is a file; a folder was expected at --out.")
    if out.is_dir() and any(out.iterdir()):
        page = out / "index.html"
        if not page.is_file() or rendering.MARK not in page.read_text("utf-8", errors="replace"):
            raise InputError(f"{out} is not empty and holds no board. Give another --out.")
    for folder in folders:
        if folder.resolve().is_relative_to(out.resolve()):
            raise InputError(f"{folder} lies in {out}, which is written anew. Give another --out.")


@dataclass
class _Site:
    """A site that is being written."""

    at: Path
    runs: Sequence[EntryRun]
    tables: Sequence[TrackRuns]
    findings: Sequence[ApplicationRun]
    editions: Sequence[str | os.PathLike[str]]
    cache: Path
    tell: Callable[[str], Any]
    progress: bool

    def write(self) -> None:
        for name in rendering.ASSETS:
            self._put(f"assets/{name}", rendering.asset(name))
        self.tell(
            f"{sum(len(table.runs) for table in self.tables)} records on {len(self.tables)} tables"
        )
        made = [
            (table, track_table.table_data(table, self._grounded(table))) for table in self.tables
        ]
        browsers = self._browsers(made)
        shown = [self._track(table, values, browsers) for table, values in made]
        works = application_page.tables(self.findings)
        for work in works:
            self._application(work)
        listed = [
            self._method(page, browsers, works)
            for page in methods.pages(self.tables, self.findings)
        ]
        (self.at / "downloads").mkdir()
        files = downloads.write(self.at / "downloads", self.runs, self.findings)
        self._put(
            "index.html",
            rendering.render(
                "index.html",
                root="",
                real=[each for each in shown if not each["track"].synthetic and not each["newest"]],
                synthetic=[
                    each for each in shown if each["track"].synthetic and not each["newest"]
                ],
                real_applied=[work for work in works if not work["synthetic"]],
                synthetic_applied=[work for work in works if work["synthetic"]],
                frozen=[each for each in shown if each["newest"]],
                browse=browsers,
                methods=listed,
                downloads=[
                    {"file": name, "says": says, "size": self._size(f"downloads/{name}")}
                    for name, says in files
                ],
            ),
        )

    def _grounded(self, table: TrackRuns) -> list[TrackRuns]:
        """Return the tables of scores in activations of the units of a table of agreement."""
        if table.track.task == "grounding":
            return []
        edition = table.runs[0].record.edition
        return [
            other
            for other in self.tables
            if other.track.task == "grounding" and other.runs[0].record.edition == edition
        ]

    def _put(self, name: str, text: str) -> None:
        path = self.at / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")

    def _size(self, name: str) -> str:
        return f"{(self.at / name).stat().st_size / 1e6:,.1f} MB"

    def _track(
        self, table: TrackRuns, values: dict[str, Any], browsers: Sequence[UnitPage]
    ) -> dict[str, Any]:
        file = track_file(table.track)
        there = {each.track.key for each in self.tables}
        newest = table.newest
        self._put(
            f"tracks/{file}",
            rendering.render(
                "track.html",
                root="../",
                here="tracks",
                units_page=_page_of(table, browsers),
                newest_file=f"{newest.slug}.html" if newest and newest.key in there else None,
                **values,
            ),
        )
        return {**values, "file": file}

    def _browsers(self, made: Sequence[tuple[TrackRuns, dict[str, Any]]]) -> list[UnitPage]:
        found: dict[tuple[str, str, str], UnitPage] = {}
        for table, values in made:
            place = {(row["name"], row["version"]): i for i, row in enumerate(values["rows"])}
            seen: set[tuple[str, str | None]] = set()
            for run in sorted(
                table.runs, key=lambda run: place.get((run.record.method, run.record.version), 0)
            ):
                edition, named = run.record.edition, (run.record.method, run.record.version)
                key = _key(run)
                if named in seen:  # another seed: the first stands for all
                    continue
                seen.add(named)
                title = f"{edition.edition} / {edition.config}"
                if any(other[:2] == key[:2] and other != key for other in found):
                    title += f", references {edition.digest[:6]}"
                browser = found.setdefault(key, UnitPage(key, "", title, [], edition.synthetic))
                browser.file = f"{slug('-'.join((*key[:2], key[2][:6])))}.html"
                # a score in activations is of words that are shown already, as a rule
                if table.track.task != "grounding" or not browser.shows(named):
                    browser.runs.append((table, run))
        for browser in found.values():
            self._browse(browser)
        return list(found.values())

    def _browse(self, browser: UnitPage) -> None:
        record = browser.runs[0][1].record
        edition, browser.why = load_records.find_edition(record, self.editions)
        known = sheets = None
        if edition is not None:
            known = unit_browser.read_annotations(edition, record.edition.config)
            sheets = thumbnails.make_sheets(
                edition,
                record.edition.config,
                cache=self.cache,
                tell=self.tell,
                progress=self.progress,
            )
        names = [(run.record.method, run.record.version) for _, run in browser.runs]
        measure = track_table.head(browser.runs[0][0].track.ranked_by)
        said = []
        for table, run in browser.runs:
            own = run.record
            kind = "method" if own.about is None else own.about.kind
            metric = table.track.ranked_by
            if track_table.head(metric) != measure:  # values of another kind are not the same thing
                metric = ""
            told = unit_browser.read_descriptions(
                run, kind, method_file(own.method, own.version), metric
            )
            if names.count((own.method, own.version)) > 1:
                told = unit_browser.renamed(told, f"{told.name} on {table.track.key}")
            said.append(told)
        made = unit_browser.build_browser(said, known, sheets, title=browser.title, measure=measure)
        browser.n, browser.methods = len(made.index["unit"]), len(said)
        folder = browser.file.removesuffix(".html")
        self._put(f"units/{folder}/index.js", f"milanIndex({script_json(made.index)});\n")
        for number, part in enumerate(made.parts):
            data = f"milanPart({number},{script_json(part)});\n"
            self._put(f"units/{folder}/part-{number}.js", data)
        place = None
        if sheets is not None:
            place = f"../sprites/{sheets.digest[:16]}"
            target = self.at / "sprites" / sheets.digest[:16]
            target.mkdir(parents=True, exist_ok=True)
            for number in made.sheets:
                shutil.copy(sheets.path(number), target)
        self._put(
            f"units/{browser.file}",
            rendering.render(
                "units.html",
                root="../",
                here="units",
                title=browser.title,
                synthetic=browser.synthetic,
                why=browser.why,
                measure=measure,
                folder=folder,
                sheets=place,
                method_pages="../methods",
            ),
        )

    def _method(
        self,
        page: methods.MethodPage,
        browsers: Sequence[UnitPage],
        works: Sequence[dict[str, Any]],
    ) -> dict[str, Any]:
        title = f"{page.name} {page.version}" if page.version else page.name
        shown = []
        for table, record in page.records:
            track = table.track
            shown.append(
                {
                    "track": track,
                    "file": track_file(track),
                    "synthetic": record.edition.synthetic,
                    "seed": None if record.about is None else record.about.seed,
                    "units_page": _page_of(table, browsers),
                    "slices": methods.slices(record, (track.ranked_by, track.ties_by)),
                    "scores": methods.scores(record),
                    "warnings": record.warnings,
                }
            )
        at_work = [
            {**row, "title": work["says"], "file": work["file"], "synthetic": work["synthetic"]}
            for work in works
            for row in work["rows"]
            if (row["name"], row["version"]) == (page.name, page.version)
        ]
        self._put(
            f"methods/{page.file}",
            rendering.render(
                "method.html",
                root="../",
                here="methods",
                title=title,
                facts=methods.facts(page),
                commands=methods.commands(page),
                records=shown,
                applied=at_work,
                costs=methods.costs(page),
            ),
        )
        return {"file": page.file, "title": title}

    def _application(self, work: dict[str, Any]) -> None:
        for row in work["rows"]:
            if row["figure"]:
                (self.at / "figures").mkdir(exist_ok=True)
                shutil.copyfile(row["folder"] / "figure.png", self.at / "figures" / row["figure"])
        self._put(
            f"applications/{work['file']}",
            rendering.render("application.html", root="../", here="tracks", table=work),
        )


def _page_of(table: TrackRuns, browsers: Sequence[UnitPage]) -> str | None:
    """Return the page of the units of a table."""
    key = _key(table.runs[0])
    return next((browser.file for browser in browsers if browser.of == key), None)


def _key(run: EntryRun) -> tuple[str, str, str]:
    """Return what a page of units is of: edition, config, and the state of its references."""
    edition = run.record.edition
    return edition.edition, edition.config, edition.digest
