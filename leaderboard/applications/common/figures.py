"""Figures of outcomes: lines with bands, bars with intervals; the same bytes every time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

from leaderboard.record_format.application_record import SYNTHETIC_FOOTNOTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_P = ParamSpec("_P")

INK, GREY, PALE = "#1c1c20", "#6b7078", "#d5d8dc"
COLORS = ("#1f5fa8", "#c2571a", "#2c7d4f", "#8a3f9e", "#a8871f", "#b3304a", "#2b8f9a", "#5a5f66")
"""Lines in the order in which they are drawn; told apart by lightness too."""

_STYLE: dict[Any, Any] = {
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titleweight": "bold",
    "axes.titlesize": 10,
    "font.size": 9,
    "legend.frameon": False,
    "svg.hashsalt": "milannotations",
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
}


_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
}
"""No times and versions: the same figure, the same bytes."""


def styled(draw: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """Return a function that draws in the style of these figures."""

    @wraps(draw)
    def drawn(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        from matplotlib import rc_context

        with rc_context(_STYLE):
            return draw(*args, **kwargs)

    return drawn


def panels(
    count: int,
    columns: int = 3,
    *,
    title: str = "",
    synthetic: bool = False,
    size: tuple[float, float] = (3.4, 2.5),
    shared: bool = True,
) -> tuple[Figure, list[Axes]]:
    """Return a figure of so many panels in rows, under a title; synthetic ones say so.

    Call it inside a function that is `styled`.

    Args:
        count: of panels.
        columns: in a row, at most.
        title: of the whole.
        synthetic: what is shown is of the mini world.
        size: of a panel, in inches.
        shared: panels share their scales.
    """
    from matplotlib.figure import Figure

    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(
        figsize=(size[0] * columns, size[1] * rows + 0.75), layout="constrained", dpi=144
    )
    axes = figure.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared)
    for spare in axes.flat[count:]:
        spare.set_visible(False)
    if title:
        figure.suptitle(title, fontsize=11, fontweight="bold", x=0.01, ha="left")
    if synthetic:
        says = SYNTHETIC_FOOTNOTE.partition(". ")[0] + "."
        figure.supxlabel(says, fontsize=7, color=GREY, x=0.01, ha="left")
    return figure, list(axes.flat[:count])


def band(
    axes: Axes,
    x: Sequence[float],
    middle: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    label: str,
    color: str,
    *,
    alpha: float = 0.18,
    **line: Any,
) -> None:
    """Draw a line with the band around it, which is not drawn at an `alpha` of 0."""
    if alpha:
        axes.fill_between(x, low, high, color=color, alpha=alpha, linewidth=0)
    axes.plot(x, middle, color=color, label=label, **{"linewidth": 1.6, **line})


def encode_figure(figure: Figure, name: str = "figure") -> dict[str, bytes]:
    """Return a figure as the bytes of `NAME.png` and `NAME.svg`, for `application_record.save`."""
    import io

    from matplotlib import rc_context

    made = {}
    with rc_context(_STYLE):
        for kind, metadata in _METADATA.items():
            stream = io.BytesIO()
            figure.savefig(stream, format=kind, metadata=metadata)
            made[f"{name}.{kind}"] = stream.getvalue()
    return made
