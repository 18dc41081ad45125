"""`milan report`: what a network's units do, in one file that needs nothing else."""

from __future__ import annotations

import base64
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from leaderboard.evaluation import predictions, scoring
from leaderboard.evaluation.predictions import Predictions
from leaderboard.evaluation.references import References
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.metrics.text import normalise
from leaderboard.ranking.standings import EntryRun
from leaderboard.site import load_records, rendering, thumbnails, track_table, unit_browser
from leaderboard.site.cells import three
from leaderboard.site.safe_text import script_json
from leaderboard.site.unit_browser import MethodDescriptions
from milannotations.editions.configs import edition_name, pick_config
from milannotations.errors import InputError
from milannotations.utils.cache import DEFAULT_FOLDER
from milannotations.utils.files import check_writable, replacing

METRICS = ("retrieval-tfidf-auc", "rouge-l", "no-overlap", "distinct", "top10-share")
"""What scores are shown, where people described the units: none needs a text model."""

COMMONEST = 3


def report(
    edition: str | os.PathLike[str],
    files: Sequence[str],
    out: str | os.PathLike[str],
    *,
    config: str | None = None,
    network: str | None = None,
    layer: str | None = None,
    settings: ScoreConfig | None = None,
    cache: str | os.PathLike[str] = DEFAULT_FOLDER,
    tell: Callable[[str], Any] = lambda line: None,
    progress: bool = False,
) -> Path:
    """Write one self-contained page of an edition's units and of what methods say of them.

    Args:
        edition: a folder, or the name of an embedded one.
        files: descriptions, a file a method; `NAME=FILE` names the method (default: the file's).
        out: the page, `.html`.
        config: config of the edition; may be left out if there is only one.
        network, layer: for files that do not say.
        settings: seeds and draws of the scores.
        cache: folder of thumbnails, which are made once an edition.
        tell: called with a line of progress.
        progress: show progress bars.

    Raises:
        InputError: no such edition or file; descriptions of units that the edition does not have.
    """
    if Path(out).suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out {out}: a name that ends in .html was expected.")
    check_writable(out)
    config = pick_config(edition, config)
    known = load_records.read_references(edition, config)
    said = _read(files, known, network, layer)
    runs = _scored(said, known, settings or ScoreConfig(), tell)
    table = track_table.table_data(load_records.group_by_track(runs)[0]) if runs else None
    for row in table["rows"] if table else ():
        row["page"] = None  # methods have no page here
    methods = [
        MethodDescriptions(
            name,
            "method",
            None,
            each,
            unit_browser.unit_values(runs[i], METRICS[0]) if runs else {},
        )
        for i, (name, each) in enumerate(said.items())
    ]
    sheets = thumbnails.make_sheets(edition, config, cache=cache, tell=tell, progress=progress)
    name = edition_name(edition)
    title = config if config == name else f"{name} / {config}"
    measure = track_table.head(METRICS[0])
    made = unit_browser.build_browser(
        methods,
        unit_browser.read_annotations(edition, config),
        sheets,
        title=title,
        measure=measure,
    )
    if sheets is not None:
        made.index["sheet"]["data"] = {n: _data(sheets.path(n)) for n in made.sheets}
    scripts = [
        *(rendering.asset(f"{part}.js") for part in ("table", "units")),
        f"milanIndex({script_json(made.index)});",
        *(f"milanPart({n},{script_json(part)});" for n, part in enumerate(made.parts)),
    ]
    theme, style = rendering.asset("theme.js"), rendering.asset("board.css")
    page = rendering.inline(
        "report.html",
        scripts=[*scripts[:2], *scripts[3:], scripts[2]],  # parts are there when the index is read
        theme=theme,
        style=style,
        title=title,
        synthetic=known.synthetic,
        n_units=len(made.index["unit"]),
        methods=list(said),
        why="" if runs else "No unit has two descriptions by people, so nothing is scored.",
        measure=measure,
        table=table,
        layers=_layers(methods, known),
        folder="",
        sheets=None,
        method_pages=None,
    )
    with replacing(out) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")
    return Path(out)


def _read(
    files: Sequence[str], known: References, network: str | None, layer: str | None
) -> dict[str, Predictions]:
    made: dict[str, Predictions] = {}
    if network is None and len(known.networks) == 1:
        network = known.networks[0]
    for file in files:
        name, path = predictions.split_layer(file)
        name = name or Path(path).stem
        if name in made:
            raise InputError(f"Two files are named '{name}'; name them: one={path} other=FILE.")
        made[name] = predictions.read(path, network=network, layer=layer)
        strange = [unit for unit in made[name].units if unit not in known.index]
        if strange:
            raise InputError(
                f"{path} describes {strange[0]}, which is not in {known.edition} / {known.config}."
            )
    return made


def _scored(
    said: dict[str, Predictions],
    known: References,
    settings: ScoreConfig,
    tell: Callable[[str], Any],
) -> list[EntryRun]:
    """Return a run a method, on the units that any of them describes; none without references."""
    # matched scores need two descriptions of a unit
    described = {unit for each in said.values() for unit in each.units}
    twice = {unit for unit, texts in zip(known.units, known.texts, strict=True) if len(texts) > 1}
    if not described & twice:
        return []
    runs = []
    splits = sorted({known.splits[known.index[unit]] for unit in described})
    for name, each in said.items():
        tell(f"{name}: scoring")
        score = scoring.score(
            each,
            known,
            METRICS,
            split="+".join(splits),
            allow_missing=True,
            unlisted=True,
            method=f"{name.replace('@', '-')}",
            settings=settings,
            accounts=[],
        )
        runs.append(EntryRun(score.record, score.units))
    return runs


def _layers(methods: Sequence[MethodDescriptions], known: References) -> list[dict[str, Any]]:
    """Return what each method says of each layer, counted."""
    made = []
    for (network, layer), members in known.layers.items():
        inside = [known.units[i] for i in members]
        for method in methods:
            asked = [unit for unit in inside if method.said.first(unit) is not None]
            if not asked:
                continue
            found = [method.said.first(unit) for unit in asked]
            texts = [normalise(row.description) for row in found if row and row.status == "ok"]
            counts = Counter(texts)
            values = [method.values[unit] for unit in asked if unit in method.values]
            words = sum(len(text.split()) for text in texts)
            made.append(
                {
                    "layer": f"{network}/{layer}",
                    "method": method.name,
                    "units": len(asked),
                    "described": len(texts),
                    "distinct": len(counts),
                    "words": f"{words / len(texts):.1f}" if texts else "-",
                    "retrieval": three(sum(values) / len(values) if values else None),
                    "commonest": sorted(counts.items(), key=lambda item: (-item[1], item[0]))[
                        :COMMONEST
                    ],
                }
            )
    return made


def _data(path: Path) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode()
