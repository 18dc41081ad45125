"""The figure of an edit: what is gained, and how numbers were chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from leaderboard.applications.common.figures import COLORS, GREY, INK, PALE, band, panels, styled
from leaderboard.record_format.application_record import ApplicationRecord

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ARMS = {
    "method": COLORS[0],
    "all units": COLORS[1],
    "shuffled": COLORS[3],
    "oracle": COLORS[2],
}
NAMES = {
    "method": "flagged units",
    "placebo": "placebo flags",
    "all units": "all units, same order",
    "shuffled": "shuffled descriptions",
    "oracle": "oracle flags",
}
CHOICE = {
    "edit-plain": "Chosen on pictures without text",
    "edit-conflict": "Chosen on pictures with wrong names",
}


@styled
def draw(outcome: ApplicationRecord, curves: pd.DataFrame) -> Figure:
    """Return a row a protocol: gains with intervals, and validation curves with the control."""
    protocols = list(outcome.settings["protocols"])
    title = f"Deleting the units that are described as text   ({outcome.method})"
    figure, axes = panels(
        2 * len(protocols),
        2,
        title=title,
        synthetic=outcome.synthetic,
        size=(4.4, 2.9),
        shared=False,
    )
    for row, protocol in enumerate(protocols):
        results = outcome.results[protocol]
        _gains(axes[2 * row], protocol, results)
        own = curves[curves.protocol == protocol]
        _validation(axes[2 * row + 1], protocol, own)
    return figure


def _gains(axes: Axes, protocol: str, results: Mapping[str, Any]) -> None:
    """Draw each arm's gain on wrong names, and its loss without text, network by network."""
    arms = results["arms"]
    shown = {name: arms[name]["gain"] for name in ARMS if name in arms}
    shown["placebo"] = arms["method"]["control"]
    order = [
        name for name in ("oracle", "method", "shuffled", "placebo", "all units") if name in shown
    ]
    for place, name in enumerate(reversed(order)):
        own, color = shown[name], ARMS.get(name, GREY)
        axes.scatter(
            100 * np.array(own["each"]), [place] * len(own["each"]), s=12, color=color, alpha=0.45,
            linewidth=0,
        )  # fmt: skip
        if own["low"] is not None and own["high"] is not None and len(own["each"]) > 1:
            axes.plot(
                [100 * own["low"], 100 * own["high"]], [place, place], color=color, linewidth=2.2
            )
        axes.plot(100 * own["mean"], place, "D", color=color, markersize=6)
    axes.axvline(0, color=PALE, zorder=0)
    axes.set_yticks(range(len(order)), [NAMES[name] for name in reversed(order)])
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.set_xlabel("points gained on pictures with wrong names")
    axes.set_title(protocol, loc="left", color=INK)


def _validation(axes: Axes, protocol: str, own: pd.DataFrame) -> None:
    """Draw validation accuracy by the share of flagged units deleted, over networks and draws."""
    placebo = _by_share(own[own.arm == "placebo"])
    if len(placebo):
        spread = placebo.agg(["mean", "min", "max"], axis=1)
        band(
            axes, 100 * spread.index, 100 * spread["mean"], 100 * spread["min"],
            100 * spread["max"], NAMES["placebo"], GREY,
        )  # fmt: skip
    for name, color in ARMS.items():
        means = _by_share(own[own.arm == name]).mean(axis=1)
        if len(means) > 1:
            axes.plot(
                100 * means.index,
                100 * means,
                color=color,
                label=NAMES[name],
                linewidth=2.2 if name == "method" else 1.4,
                zorder=4 if name == "method" else 2,
            )
            picked = own[(own.arm == name) & own.chosen]
            if name == "method":
                axes.plot(
                    100 * picked.share, 100 * picked.validation, "o", color=color, markersize=4,
                    zorder=5, label="chosen, each network",
                )  # fmt: skip
    axes.set_xlabel("% of the flagged units deleted")
    axes.set_ylabel("% right, validation")
    axes.set_title(CHOICE[protocol], loc="left", color=INK, fontweight="normal", fontsize=9)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(handles, labels, fontsize=7)


def _by_share(own: pd.DataFrame) -> pd.DataFrame:
    """Return mean accuracy over networks, (share, draw): shares as the settings have them."""
    from leaderboard.applications.edit.config import SHARES

    if own.empty:
        return own[["validation"]]
    nearest = np.array(SHARES)[np.abs(own.share.to_numpy()[:, None] - np.array(SHARES)).argmin(1)]
    return (
        own.assign(nearest=nearest)
        .pivot_table(index="nearest", columns="draw", values="validation", aggfunc="mean")
        .sort_index()
    )
