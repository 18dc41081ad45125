"""Figure of an edit: accuracy gained by each arm, and the curves that counts were chosen on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from leaderboard.applications.common.figures import (
    COLORS,
    GREY,
    INK,
    PALE,
    create_panels,
    draw_band,
    styled,
)
from leaderboard.applications.edit.config import SHARES
from leaderboard.record_format.application_record import ApplicationRecord

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ARM_COLORS = {
    "method": COLORS[0],
    "all units": COLORS[1],
    "shuffled": COLORS[3],
    "oracle": COLORS[2],
}
ARM_NAMES = {
    "method": "flagged units",
    "placebo": "placebo flags",
    "all units": "all units, same order",
    "shuffled": "shuffled descriptions",
    "oracle": "oracle flags",
}
CHOICES = {
    "edit-plain": "Chosen on images without text",
    "edit-conflict": "Chosen on images with wrong names",
}


@styled
def draw_edit(record: ApplicationRecord, curves: pd.DataFrame) -> Figure:
    """Draw one row per protocol: gains with intervals, and validation curves with the control.

    Args:
        record: record of an edit.
        curves: `curves.csv`.
    """
    protocols = list(record.settings["protocols"])
    figure, panels = create_panels(
        2 * len(protocols),
        2,
        title=f"Ablation of the units described as text   ({record.method})",
        synthetic=record.synthetic,
        size=(4.4, 2.9),
        shared=False,
    )
    for row, protocol in enumerate(protocols):
        _draw_gains(panels[2 * row], protocol, record.results[protocol])
        _draw_validation(panels[2 * row + 1], protocol, curves[curves.protocol == protocol])
    return figure


def _draw_gains(axes: Axes, protocol: str, results: Mapping[str, Any]) -> None:
    """Draw each arm's gain on images with wrong names, one point per network."""
    arms = results["arms"]
    gains = {name: arms[name]["gain"] for name in ARM_COLORS if name in arms}
    gains["placebo"] = arms["method"]["control"]
    names = [
        name for name in ("all units", "placebo", "shuffled", "method", "oracle") if name in gains
    ]
    for y, name in enumerate(names):
        gain, color = gains[name], ARM_COLORS.get(name, GREY)
        axes.scatter(
            100 * np.array(gain["each"]), [y] * len(gain["each"]), s=12, color=color, alpha=0.45,
            linewidth=0,
        )  # fmt: skip
        if gain["low"] is not None and gain["high"] is not None and len(gain["each"]) > 1:
            axes.plot([100 * gain["low"], 100 * gain["high"]], [y, y], color=color, linewidth=2.2)
        axes.plot(100 * gain["mean"], y, "D", color=color, markersize=6)
    axes.axvline(0, color=PALE, zorder=0)
    axes.set_yticks(range(len(names)), [ARM_NAMES[name] for name in names])
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel("accuracy gained on images with wrong names (points)")
    axes.set_title(protocol, loc="left", color=INK)


def _draw_validation(axes: Axes, protocol: str, curves: pd.DataFrame) -> None:
    """Draw validation accuracy by the share of flagged units ablated, averaged over networks."""
    placebo = _mean_by_share(curves[curves.arm == "placebo"])
    if len(placebo):
        spread = placebo.agg(["mean", "min", "max"], axis=1)
        draw_band(
            axes, 100 * spread.index, 100 * spread["mean"], 100 * spread["min"],
            100 * spread["max"], ARM_NAMES["placebo"], GREY,
        )  # fmt: skip
    for name, color in ARM_COLORS.items():
        means = _mean_by_share(curves[curves.arm == name]).mean(axis=1)
        if len(means) < 2:
            continue
        is_method = name == "method"
        axes.plot(
            100 * means.index,
            100 * means,
            color=color,
            label=ARM_NAMES[name],
            linewidth=2.2 if is_method else 1.4,
            zorder=4 if is_method else 2,
        )
        if is_method:
            chosen = curves[(curves.arm == name) & curves.chosen]
            axes.plot(
                100 * chosen.share, 100 * chosen.validation, "o", color=color, markersize=4,
                zorder=5, label="chosen, each network",
            )  # fmt: skip
    axes.set_xlabel("flagged units ablated (%)")
    axes.set_ylabel("validation accuracy (%)")
    axes.set_title(CHOICES[protocol], loc="left", color=INK, fontweight="normal", fontsize=9)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(handles, labels, fontsize=7)


def _mean_by_share(curves: pd.DataFrame) -> pd.DataFrame:
    """Return mean validation accuracy over networks (share, draw).

    Shares of a few units are rounded to whole units, so that they differ between networks: each is
    moved to the nearest one of `SHARES`.
    """
    if curves.empty:
        return curves[["validation"]]
    shares = np.array(SHARES)
    nearest = shares[np.abs(curves.share.to_numpy()[:, None] - shares).argmin(1)]
    return (
        curves.assign(nearest=nearest)
        .pivot_table(index="nearest", columns="draw", values="validation", aggfunc="mean")
        .sort_index()
    )
