"""The figure of an audit: flagged units by network, or by pair, and by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from leaderboard.applications.common.figures import COLORS, GREY, INK, panels, styled

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from leaderboard.record_format.application_record import ApplicationRecord


@styled
def draw(outcome: ApplicationRecord, counts: pd.DataFrame) -> Figure:
    """Return the figure of the first list of words.

    Args:
        outcome: of an audit.
        counts: `curves.csv`.
    """
    group, made = next(iter(outcome.results["groups"].items()))
    pairs = [entry["networks"] for entry in made["pairs"]]
    own = counts[counts.group == group]
    words = ", ".join(outcome.settings["words"][group])
    figure, (left, right) = panels(
        2,
        title=f"Units described with {words}   ({outcome.method})",
        synthetic=outcome.synthetic,
        size=(4.6, 3.1),
        shared=False,
    )
    (_pairs if pairs else _networks)(left, own, pairs)
    _layers(right, own, pairs)
    for axes in (left, right):
        axes.set_ylim(bottom=-0.02 * axes.get_ylim()[1])
    return figure


def _pairs(axes: Axes, own: pd.DataFrame, pairs: list[list[str]]) -> None:
    """Draw a line a pair, from its first network to its second, and the means."""
    of = own[own.layer == ""].set_index("network").flagged
    values = np.array([[of[first], of[second]] for first, second in pairs], dtype=float)
    for pair in values:
        axes.plot((0, 1), pair, color=GREY, linewidth=1, marker="o", markersize=4)
    means = values.mean(0)
    for place, mean in enumerate(means):
        axes.plot(
            (place - 0.14, place + 0.14), (mean, mean), color=COLORS[place], linewidth=3, zorder=3
        )
        side = "right" if place == 0 else "left"
        at = place + (-0.18 if place == 0 else 0.18)
        axes.text(at, mean, f"{mean:.1f}", ha=side, va="center", color=COLORS[place], weight="bold")
    axes.set_xticks((0, 1), [_ends([pair[place] for pair in pairs]) for place in (0, 1)])
    axes.set_xlim(-0.6, 1.6)
    axes.set_ylabel("flagged units")
    axes.set_title("a line a pair, bars are means", loc="left")


def _networks(axes: Axes, own: pd.DataFrame, pairs: Any) -> None:
    """Draw a bar a network, with Wilson's interval."""
    rows = own[own.layer == ""]
    middle = rows.flagged / rows.units * 100
    at = np.arange(len(rows))
    axes.bar(at, middle, color=COLORS[0], width=0.6)
    ends = (middle - rows.share_low * 100, rows.share_high * 100 - middle)
    axes.errorbar(at, middle, ends, fmt="none", ecolor=INK, capsize=3, linewidth=1)
    axes.set_xticks(at, [str(name) for name in rows.network], rotation=20 * (len(rows) > 2))
    axes.set_xlim(-1, len(rows))
    axes.set_ylabel("% of units flagged")
    axes.set_title("by network, with 95 % intervals", loc="left")


def _layers(axes: Axes, own: pd.DataFrame, pairs: list[list[str]]) -> None:
    """Draw the share of each layer, over all networks of a side, with Wilson's interval."""
    from leaderboard.statistics import share_interval

    sides = [[pair[place] for pair in pairs] for place in (0, 1)] if pairs else None
    layers = list(dict.fromkeys(own.layer[own.layer != ""]))
    for place, names in enumerate(sides or [list(dict.fromkeys(own.network))]):
        rows = own[own.network.isin(names)].groupby("layer")[["flagged", "units"]].sum()
        rows = rows.reindex(layers).fillna(0)
        low, high = np.array(
            [share_interval(int(f), int(n)) for f, n in rows.itertuples(index=False)]
        ).T
        middle = (rows.flagged / rows.units).to_numpy()
        at = np.arange(len(layers)) + (place - 0.5) * 0.16 * bool(sides)
        axes.errorbar(
            at,
            middle * 100,
            np.nan_to_num(np.array([middle - low, high - middle]) * 100).clip(0),
            fmt="o-",
            color=COLORS[place],
            capsize=3,
            linewidth=1.2,
            markersize=4,
            label=_ends(names) if sides else None,
        )
    axes.set_xticks(range(len(layers)), layers, rotation=20 * (len(layers) > 6))
    axes.set_ylabel("% of the layer's units")
    axes.set_title("by layer, with 95 % intervals", loc="left")
    if sides:
        axes.legend()


def _ends(names: list[str]) -> str:
    """Return what networks of one side are called: the words that all of their names share.

    Example:
        >>> _ends(["vgg11-imagenet-blurred", "vgg13-imagenet-blurred"])
        'imagenet-blurred'
    """
    if len(names) == 1:
        return names[0]
    parts = [name.split("-") for name in names]
    shared = [part for part in parts[0] if all(part in other for other in parts)]
    return "-".join(shared) or names[0]
