"""Figure of an audit: flagged units by network or by pair, and by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from leaderboard.applications.common.figures import COLORS, GREY, INK, create_panels, styled

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from leaderboard.record_format.application_record import ApplicationRecord


@styled
def draw_counts(record: ApplicationRecord, counts: pd.DataFrame) -> Figure:
    """Draw the flagged units of the first list of words.

    Args:
        record: record of an audit.
        counts: `curves.csv`.
    """
    group, results = next(iter(record.results["groups"].items()))
    pairs = [entry["networks"] for entry in results["pairs"]]
    rows = counts[counts.group == group]
    words = ", ".join(record.settings["words"][group])
    figure, (left, right) = create_panels(
        2,
        title=f"Units described with {words}   ({record.method})",
        synthetic=record.synthetic,
        size=(4.6, 3.1),
        shared=False,
    )
    if pairs:
        _draw_pairs(left, rows, pairs)
    else:
        _draw_networks(left, rows)
    _draw_layers(right, rows, pairs)
    for axes in (left, right):
        # a little below 0, so that points at 0 are whole
        axes.set_ylim(bottom=-0.02 * axes.get_ylim()[1])
    return figure


def _draw_pairs(axes: Axes, rows: pd.DataFrame, pairs: list[list[str]]) -> None:
    """Draw one line per pair, from its first network to its second, and the means."""
    flagged = rows[rows.layer == ""].set_index("network").flagged
    values = np.array([[flagged[first], flagged[second]] for first, second in pairs], dtype=float)
    for pair in values:
        axes.plot((0, 1), pair, color=GREY, linewidth=1, marker="o", markersize=4)
    for x, mean in enumerate(values.mean(0)):
        color = COLORS[x]
        axes.plot((x - 0.14, x + 0.14), (mean, mean), color=color, linewidth=3, zorder=3)
        side, offset = ("right", -0.18) if x == 0 else ("left", 0.18)
        axes.text(x + offset, mean, f"{mean:.1f}", ha=side, va="center", color=color, weight="bold")
    axes.set_xticks((0, 1), [_shared_name([pair[side] for pair in pairs]) for side in (0, 1)])
    axes.set_xlim(-0.6, 1.6)
    axes.set_ylabel("flagged units")
    axes.set_title("by pair, bars are means", loc="left")


def _draw_networks(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw one bar per network, with Wilson's interval."""
    rows = rows[rows.layer == ""]
    heights = rows.flagged / rows.units * 100
    x = np.arange(len(rows))
    axes.bar(x, heights, color=COLORS[0], width=0.6)
    errors = (heights - rows.share_low * 100, rows.share_high * 100 - heights)
    axes.errorbar(x, heights, errors, fmt="none", ecolor=INK, capsize=3, linewidth=1)
    names = [str(name) for name in rows.network]
    axes.set_xticks(x, names, rotation=20 if len(rows) > 2 else 0)
    axes.set_xlim(-1, len(rows))
    axes.set_ylabel("flagged units (%)")
    axes.set_title("by network, with 95 % intervals", loc="left")


def _draw_layers(axes: Axes, rows: pd.DataFrame, pairs: list[list[str]]) -> None:
    """Draw the share of flagged units of each layer, over the networks of each side of the pairs.

    Without pairs, all networks are one side. Intervals are Wilson's.
    """
    from leaderboard.statistics import share_interval

    layers = list(dict.fromkeys(rows.layer[rows.layer != ""]))
    sides = [[pair[side] for pair in pairs] for side in (0, 1)] if pairs else [list(rows.network)]
    for side, names in enumerate(sides):
        totals = rows[rows.network.isin(names)].groupby("layer")[["flagged", "units"]].sum()
        totals = totals.reindex(layers).fillna(0)
        low, high = np.array(
            [share_interval(int(flagged), int(n)) for flagged, n in totals.itertuples(index=False)]
        ).T
        shares = (totals.flagged / totals.units).to_numpy()
        offset = (side - 0.5) * 0.16 if pairs else 0  # the two sides stand beside each other
        axes.errorbar(
            np.arange(len(layers)) + offset,
            shares * 100,
            # a layer that a network lacks has no interval
            np.nan_to_num(np.array([shares - low, high - shares]) * 100).clip(0),
            fmt="o-",
            color=COLORS[side],
            capsize=3,
            linewidth=1.2,
            markersize=4,
            label=_shared_name(names) if pairs else None,
        )
    axes.set_xticks(range(len(layers)), layers, rotation=20 if len(layers) > 6 else 0)
    axes.set_ylabel("flagged units of the layer (%)")
    axes.set_title("by layer, with 95 % intervals", loc="left")
    if pairs:
        axes.legend()


def _shared_name(names: list[str]) -> str:
    """Return the parts that all names share, or the first name.

    Example:
        >>> _shared_name(["vgg11-imagenet-blurred", "vgg13-imagenet-blurred"])
        'imagenet-blurred'
    """
    if len(names) == 1:
        return names[0]
    parts = [name.split("-") for name in names]
    shared = [part for part in parts[0] if all(part in other for other in parts)]
    return "-".join(shared) or names[0]
