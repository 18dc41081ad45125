"""Figures of application records: panels, bands and style; the same bytes on every run."""

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
"""Colors of lines in the order of drawing; they differ in lightness too."""

LEAST_WIDTH = 7.0
"""Least width of a figure in inches: a title is as wide."""

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
"""Metadata without times and versions, so that the same figure has the same bytes."""


def styled(draw: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """Decorate a function that draws a figure with the style of application records."""

    @wraps(draw)
    def draw_styled(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        from matplotlib import rc_context

        with rc_context(_STYLE):
            return draw(*args, **kwargs)

    return draw_styled


def create_panels(
    count: int,
    columns: int = 3,
    *,
    title: str = "",
    synthetic: bool = False,
    size: tuple[float, float] = (3.4, 2.5),
    shared: bool = True,
) -> tuple[Figure, list[Axes]]:
    """Create a figure of panels in rows; call it inside a `styled` function.

    Args:
        count: number of panels.
        columns: most panels in a row.
        title: title of the figure.
        synthetic: add the footnote of synthetic results.
        size: width and height of a panel in inches.
        shared: use the same scales in all panels.
    """
    from matplotlib.figure import Figure

    columns = min(columns, count)
    rows = -(-count // columns)
    # .75 inches hold title, legend and footnote
    width, height = max(LEAST_WIDTH, size[0] * columns), size[1] * rows + 0.75
    figure = Figure(figsize=(width, height), layout="constrained", dpi=144)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared)
    for spare in axes.flat[count:]:
        spare.set_visible(False)
    if title:
        figure.suptitle(title, fontsize=11, fontweight="bold", x=0.01, ha="left")
    if synthetic:
        footnote = SYNTHETIC_FOOTNOTE.partition(". ")[0] + "."
        figure.supxlabel(footnote, fontsize=7, color=GREY, x=0.01, ha="left")
    return figure, list(axes.flat[:count])


def draw_band(
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
    """Draw a line with a band around it; an `alpha` of 0 leaves the band out."""
    if alpha:
        axes.fill_between(x, low, high, color=color, alpha=alpha, linewidth=0)
    axes.plot(x, middle, color=color, label=label, **{"linewidth": 1.6, **line})


def encode_figure(figure: Figure, name: str = "figure") -> dict[str, bytes]:
    """Return the content of `NAME.png` and `NAME.svg`, for `application_record.save`."""
    import io

    from matplotlib import rc_context

    files = {}
    with rc_context(_STYLE):
        for kind, metadata in _METADATA.items():
            stream = io.BytesIO()
            figure.savefig(stream, format=kind, metadata=metadata)
            files[f"{name}.{kind}"] = stream.getvalue()
    return files
