"""Figures of an analysis: accuracy as units are ablated, and scores by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from leaderboard.applications.common.figures import COLORS, GREY, create_panels, draw_band, styled

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from leaderboard.record_format.application_record import ApplicationRecord

COLUMNS = 4
"""Panels in a row."""


@styled
def draw_curves(record: ApplicationRecord, curves: pd.DataFrame) -> Figure:
    """Draw one panel per score: accuracy in both orders with controls, averaged over networks.

    Args:
        record: record of an analysis.
        curves: `curves.csv`.
    """
    means = (
        curves.groupby(["score", "order", "curve", "share"], sort=False)[
            ["accuracy", "low", "high"]
        ]
        .mean()
        .reset_index()
    )
    scores = [score for score in dict.fromkeys(means.score) if score != "random"]
    count = len(record.networks)
    networks = f"mean of {count} networks" if count > 1 else ", ".join(record.networks)
    draws = record.settings["draws"]
    figure, panels = create_panels(
        max(1, len(scores)),
        COLUMNS,
        title=f"Accuracy as units are ablated in the order of a score of their descriptions\n"
        f"{networks}   ({record.method}; bands: range of {draws} random orders)",
        synthetic=record.synthetic,
        size=(3.1, 2.5),
    )
    for index, axes in enumerate(panels):
        _draw_rows(axes, means[means.score == "random"], GREY, ":", "random units, any layer", 0)
        if scores:
            _draw_score(axes, record, means[means.score == scores[index]], scores[index])
        else:
            axes.set_title("no score varies among units", loc="left")
        if index % COLUMNS == 0:
            axes.set_ylabel("accuracy")
        if index >= len(panels) - COLUMNS:
            axes.set_xlabel("units ablated (%)")
    _draw_legend(figure, panels)
    return figure


def _draw_score(axes: Axes, record: ApplicationRecord, rows: pd.DataFrame, score: str) -> None:
    lines = ["area, points"]
    for color, order in zip(COLORS, record.settings["orders"], strict=False):
        of_order = rows[rows.order == order]
        word = "highest" if order == "decreasing" else "lowest"
        control, scored = (of_order[of_order.curve == curve] for curve in ("control", "score"))
        _draw_rows(axes, control, color, "--", f"random units, layers as {word} first", 0.12)
        _draw_rows(axes, scored, color, "-", f"{word} score first", 0.25)
        if (area := record.results["areas"].get(f"{score}/{order}")) is not None:
            p = area["p_holm"]
            lines.append(
                f"{word}: {area['area'] * 100:+.1f}" + ("" if p is None else f" (p {p:.2g})")
            )
    axes.set_title(score, loc="left")
    axes.text(
        0.02, 0.03, "\n".join(lines), transform=axes.transAxes, fontsize=7, color=GREY, va="bottom"
    )


def _draw_rows(
    axes: Axes, rows: pd.DataFrame, color: str, style: str, label: str, alpha: float
) -> None:
    if len(rows):
        x = rows.share * 100
        draw_band(
            axes, x, rows.accuracy, rows.low, rows.high, label, color,
            linestyle=style, alpha=alpha, linewidth=1.5 if style == "-" else 1.1,
        )  # fmt: skip


@styled
def draw_layers(record: ApplicationRecord, layers: pd.DataFrame) -> Figure:
    """Draw one panel per score: the mean over each layer's units, one line per network.

    Args:
        record: record of an analysis.
        layers: `layers.csv`.
    """
    scores = list(dict.fromkeys(layers.score)) if len(layers) else []
    figure, panels = create_panels(
        max(1, len(scores)),
        COLUMNS,
        title=f"Scores of descriptions by layer, means with 95 % intervals   ({record.method})",
        synthetic=record.synthetic,
        size=(3.1, 2.3),
        shared=False,
    )
    if not scores:
        panels[0].set_title("no unit has a description", loc="left")
    for score, axes in zip(scores, panels, strict=False):
        networks = layers[layers.score == score].groupby("network", sort=False)
        for color, (network, rows) in zip(COLORS, networks, strict=False):
            x = range(len(rows))
            errors = (rows["mean"] - rows.low, rows.high - rows["mean"])
            axes.errorbar(
                x, rows["mean"], [error.fillna(0) for error in errors], fmt="o-", color=color,
                capsize=2, linewidth=1.2, markersize=3.5, label=network,
            )  # fmt: skip
            axes.set_xticks(x, rows.layer, rotation=0 if len(rows) < 6 else 40)
        axes.set_title(score, loc="left")
    if len(record.networks) > 1 and scores:
        _draw_legend(figure, panels)
    return figure


def _draw_legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """Draw the legend of the first panel where neither title nor footnote stands."""
    handles, labels = panels[0].get_legend_handles_labels()
    if len(panels) < COLUMNS:
        figure.legend(handles, labels, loc="outside right center", fontsize=8)
    else:  # wide enough for both footnote and legend in the last line
        figure.legend(handles, labels, loc="outside lower right", ncols=3, fontsize=8)
