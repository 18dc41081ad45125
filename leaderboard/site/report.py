"""Report of a network's units and their descriptions, in one self-contained file."""

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
"""Scores shown for units with human descriptions; none of them needs a text model."""

N_COMMON = 3
"""Most common descriptions listed for each layer."""


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
    """Write one self-contained page with an edition's units and their descriptions.

    Args:
        edition: folder of an edition, or name of an embedded one.
        files: descriptions, one file per method; `NAME=FILE` names the method, which is otherwise
            named by the file.
        out: path of the page, `.html`.
        config: config of the edition; optional if there is only one.
        network: network of files without this column.
        layer: layer of files without this column.
        settings: random seed and numbers of draws of the scores.
        cache: cache folder for thumbnails.
        tell: called with each line of progress.
        progress: show progress bars.

    Raises:
        InputError: no such edition or file; descriptions of units that are not in the edition.
    """
    if Path(out).suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out {out} is not a name of a page; expected one that ends in .html.")
    check_writable(out)
    config = pick_config(edition, config)
    known = load_records.read_references(edition, config)
    predictions_of = _read(files, known, network, layer)
    runs = _score(predictions_of, known, settings or ScoreConfig(), tell)
    table = track_table.table_data(load_records.group_by_track(runs)[0]) if runs else None
    for row in table["rows"] if table else ():
        row["page"] = None  # a report has no pages of methods
    methods = [
        MethodDescriptions(
            name,
            "method",
            None,
            predictions_of[name],
            unit_browser.unit_values(runs[i], METRICS[0]) if runs else {},
        )
        for i, name in enumerate(predictions_of)
    ]
    sheets = thumbnails.make_sheets(edition, config, cache=cache, tell=tell, progress=progress)
    name = edition_name(edition)
    title = config if config == name else f"{name} / {config}"
    measure = track_table.column_title(METRICS[0])
    annotations = unit_browser.read_annotations(edition, config)
    data = unit_browser.build_browser(methods, annotations, sheets, title=title, measure=measure)
    if sheets is not None:
        data.index["sheet"]["data"] = {n: _data_url(sheets.path(n)) for n in data.sheets}
    # The index comes last: when it is read, the scripts and all parts are there.
    scripts = [
        *(rendering.asset(f"{name}.js") for name in ("table", "units")),
        *(f"milanPart({n},{script_json(part)});" for n, part in enumerate(data.parts)),
        f"milanIndex({script_json(data.index)});",
    ]
    page = rendering.inline(
        "report.html",
        scripts=scripts,
        theme=rendering.asset("theme.js"),
        style=rendering.asset("board.css"),
        title=title,
        synthetic=known.synthetic,
        n_units=len(data.index["unit"]),
        methods=list(predictions_of),
        reason="" if runs else "Not scored: no unit has two human descriptions.",
        measure=measure,
        table=table,
        layers=_layer_rows(methods, known),
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
    """Read predictions by the name of their method."""
    predictions_of: dict[str, Predictions] = {}
    if network is None and len(known.networks) == 1:
        network = known.networks[0]
    for file in files:
        name, path = predictions.split_layer(file)
        name = name or Path(path).stem
        if name in predictions_of:
            raise InputError(f"Two files are named '{name}'. Name them: one={path} other=FILE")
        predictions_of[name] = predictions.read(path, network=network, layer=layer)
        unknown = [unit for unit in predictions_of[name].units if unit not in known.index]
        if unknown:
            raise InputError(
                f"{path} describes {unknown[0]}, which is not in {known.edition} / {known.config}."
            )
    return predictions_of


def _score(
    predictions_of: dict[str, Predictions],
    known: References,
    settings: ScoreConfig,
    tell: Callable[[str], Any],
) -> list[EntryRun]:
    """Score each method on the units that any of them describes.

    Returns:
        One run per method; none if no described unit has two human descriptions, which matched
        scores need.
    """
    described = {unit for members in predictions_of.values() for unit in members.units}
    scorable = {
        unit for unit, texts in zip(known.units, known.texts, strict=True) if len(texts) > 1
    }
    if not described & scorable:
        return []
    runs = []
    splits = sorted({known.splits[known.index[unit]] for unit in described})
    for name, method_predictions in predictions_of.items():
        tell(f"{name}: scoring")
        score = scoring.score(
            method_predictions,
            known,
            METRICS,
            split="+".join(splits),
            allow_missing=True,
            unlisted=True,
            method=name.replace("@", "-"),  # what follows an @ would be a version
            settings=settings,
            accounts=[],
        )
        runs.append(EntryRun(score.record, score.units))
    return runs


def _layer_rows(methods: Sequence[MethodDescriptions], known: References) -> list[dict[str, Any]]:
    """Return one row per layer and method: counts and the most common descriptions."""
    rows = []
    for (network, layer), members in known.layers.items():
        layer_units = [known.units[i] for i in members]
        for method in methods:
            firsts = {unit: method.predictions.first(unit) for unit in layer_units}
            units = [unit for unit, first in firsts.items() if first is not None]
            if not units:
                continue
            texts = [
                normalise(first.description)
                for first in firsts.values()
                if first is not None and first.status == "ok"
            ]
            counts = Counter(texts)
            values = [method.values[unit] for unit in units if unit in method.values]
            n_words = sum(len(text.split()) for text in texts)
            by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
            rows.append(
                {
                    "layer": f"{network}/{layer}",
                    "method": method.name,
                    "units": len(units),
                    "described": len(texts),
                    "distinct": len(counts),
                    "words": f"{n_words / len(texts):.1f}" if texts else "-",
                    "retrieval": three(sum(values) / len(values) if values else None),
                    "most_common": by_count[:N_COMMON],
                }
            )
    return rows


def _data_url(path: Path) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode()
