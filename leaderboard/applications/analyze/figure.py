"""The figures of an analysis: accuracy as units are ablated, and scores by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leaderboard.applications.common.figures import COLORS, GREY, band, panels, styled

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from leaderboard.record_format.application_record import ApplicationRecord

COLUMNS = 4


@styled
def draw(outcome: ApplicationRecord, curves: pd.DataFrame) -> Figure:
    """Return a panel a score: both orders, each with its control; several networks are averaged.

    Args:
        outcome: of an analysis.
        curves: `curves.csv`.
    """
    mean = (
        curves.groupby(["score", "order", "curve", "share"], sort=False)[
            ["accuracy", "low", "high"]
        ]
        .mean()
        .reset_index()
    )
    names = [name for name in dict.fromkeys(mean.score) if name != "random"]
    networks = ", ".join(outcome.networks)
    many = f"{len(outcome.networks)} networks, averaged" if len(outcome.networks) > 1 else networks
    draws = outcome.settings["draws"]
    figure, axes = panels(
        max(1, len(names)),
        COLUMNS,
        title=f"Accuracy as units are ablated in the order of their descriptions' scores\n"
        f"{many}   ({outcome.method}; bands: lowest to highest of {draws} random orders)",
        synthetic=outcome.synthetic,
        size=(3.1, 2.5),
    )
    for place, own in enumerate(axes):
        _lines(own, mean[mean.score == "random"], GREY, ":", "random, any layer", 0)
        if not names:
            own.set_title("no score varies among units", loc="left")
            break
        _panel(own, outcome, mean[mean.score == names[place]], names[place])
    for place, own in enumerate(axes):
        if place % COLUMNS == 0:
            own.set_ylabel("accuracy")
        if place >= len(axes) - COLUMNS:
            own.set_xlabel("% of units ablated")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=3, fontsize=8)
    return figure


def _panel(axes: Axes, outcome: ApplicationRecord, rows: pd.DataFrame, name: str) -> None:
    said = []
    for color, order in zip(COLORS, outcome.settings["orders"], strict=False):
        own = rows[rows.order == order]
        word = "highest" if order == "decreasing" else "lowest"
        _lines(
            axes, own[own.curve == "control"], color, "--", f"random, layers of {word} first", 0.12
        )
        _lines(axes, own[own.curve == "score"], color, "-", f"{word} first", 0.25)
        if (entry := outcome.results["areas"].get(f"{name}/{order}")) is not None:
            p = entry["p_holm"]
            said.append(
                f"{word}: {entry['area'] * 100:+.1f}" + ("" if p is None else f" (p {p:.2g})")
            )
    axes.set_title(name, loc="left")
    axes.text(
        0.02, 0.03, "area, points\n" + "\n".join(said), transform=axes.transAxes, fontsize=7,
        color=GREY, va="bottom",
    )  # fmt: skip


def _lines(
    axes: Axes, rows: pd.DataFrame, color: str, style: str, label: str, alpha: float
) -> None:
    if len(rows):
        x = rows.share * 100
        band(
            axes, x, rows.accuracy, rows.low, rows.high, label, color,
            linestyle=style, alpha=alpha, linewidth=1.5 if style == "-" else 1.1,
        )  # fmt: skip


@styled
def draw_layers(outcome: ApplicationRecord, layers: pd.DataFrame) -> Figure:
    """Return a panel a score: the mean of each layer's units, a line a network.

    Args:
        outcome: of an analysis.
        layers: `layers.csv`.
    """
    names = list(dict.fromkeys(layers.score)) if len(layers) else []
    figure, axes = panels(
        max(1, len(names)),
        COLUMNS,
        title=f"Scores of descriptions by layer, means with 95 % intervals   ({outcome.method})",
        synthetic=outcome.synthetic,
        size=(3.1, 2.3),
        shared=False,
    )
    if not names:
        axes[0].set_title("no unit is described", loc="left")
    for name, own in zip(names, axes, strict=False):
        rows = layers[layers.score == name]
        for color, (network, each) in zip(
            COLORS, rows.groupby("network", sort=False), strict=False
        ):
            at = range(len(each))
            ends = (each["mean"] - each.low, each.high - each["mean"])
            own.errorbar(
                at, each["mean"], [end.fillna(0) for end in ends], fmt="o-", color=color,
                capsize=2, linewidth=1.2, markersize=3.5, label=network,
            )  # fmt: skip
            own.set_xticks(at, each.layer, rotation=0 if len(each) < 6 else 40)
        own.set_title(name, loc="left")
    if len(outcome.networks) > 1 and names:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=3, fontsize=8)
    return figure
