"""Pictures of units and scenes for people to look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from milannotations.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

MARGIN = 6
INK, PAPER, OUTLINE = (24, 24, 28), (250, 250, 248), (255, 0, 200)
SYNTHETIC = "SYNTHETIC: planted units, drawn pictures, simulated annotators"
"""What stands above synthetic units wherever they are shown."""

DIMMED = 0.3
"""What is left of a picture's brightness outside the mask."""


def masked(image: Any, mask: Any) -> NDArray[np.uint8]:
    """Return a picture, dimmed outside its mask, with the mask's outline drawn.

    Args:
        image: a PIL picture or array (h, w, 3), uint8.
        mask: a PIL 1-bit picture or array (h, w); true where the unit responds.

    Returns:
        (h, w, 3), uint8.
    """
    pixels = np.asarray(image.convert("RGB") if hasattr(image, "convert") else image)
    region = np.asarray(mask).astype(bool)
    if pixels.shape[:2] != region.shape:
        raise InputError(f"A picture of {pixels.shape[:2]} with a mask of {region.shape}.")
    shown = np.where(region[..., None], pixels, (pixels * DIMMED).astype(np.uint8))
    beside = np.pad(region, 1)
    around = beside[2:, 1:-1] | beside[:-2, 1:-1] | beside[1:-1, 2:] | beside[1:-1, :-2]
    shown[around & ~region] = OUTLINE
    return shown.astype(np.uint8)


def grid(pictures: Sequence[NDArray[np.uint8]], columns: int, side: int = 0) -> Image.Image:
    """Return pictures in rows of `columns`, each `side` pixels square (0: as they are)."""
    from PIL import Image

    if not pictures:
        raise InputError("There is no picture to show.")
    tiles = [Image.fromarray(picture) for picture in pictures]
    if side:
        tiles = [tile.resize((side, side), Image.Resampling.NEAREST) for tile in tiles]
    wide, high = (max(tile.size[axis] for tile in tiles) + 2 for axis in (0, 1))
    n_rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (wide * min(columns, len(tiles)), high * n_rows), PAPER)
    for place, tile in enumerate(tiles):
        sheet.paste(tile, (place % columns * wide, place // columns * high))
    return sheet


def unit_sheet(
    units: Iterable[Mapping[str, Any]],
    *,
    exemplars: int = 15,
    columns: int | None = None,
    side: int = 96,
) -> Image.Image:
    """Return a strip a unit: its exemplars, dimmed outside the masks, and what is said of it.

    Args:
        units: rows of an edition with exemplars.
        exemplars: pictures of each, strongest first.
        columns: pictures in a row; None puts them all in one.
        side: of a picture, in pixels.

    Raises:
        InputError: a unit without exemplars, or no unit.
    """
    from PIL import Image

    strips, units = [], list(units)
    for unit in units:
        key = f"{unit['network']}/{unit['layer']}/{unit['unit']}"
        if unit["images"] is None:
            raise InputError(f"{key} has no exemplars to show; this edition holds text alone.")
        pairs = list(zip(unit["images"], unit["masks"], strict=True))[:exemplars]
        tiles = grid([masked(image, mask) for image, mask in pairs], columns or len(pairs), side)
        strips.append(_stack([*map(_line, lines(unit)), tiles]))
    if not strips:
        raise InputError("There is no unit to show.")
    if any(unit["unit_kind"] == "synthetic" for unit in units):
        strips.insert(0, _line(SYNTHETIC))
    sheet = _stack(strips)
    framed = Image.new("RGB", (sheet.width + 2 * MARGIN, sheet.height + MARGIN), PAPER)
    framed.paste(sheet, (MARGIN, MARGIN))
    return framed


def lines(unit: Mapping[str, Any]) -> list[str]:
    """Return what is said of a unit, in lines: its key, its truth if known, its descriptions."""
    said = [f"{unit['network']}/{unit['layer']}/{unit['unit']}"]
    if unit["truth"] is not None:
        said.append(f"truth: {unit['truth']}   [{unit['truth_formula']}]")
    who = "simulated annotators" if unit["unit_kind"] == "synthetic" else "people"
    said.append(f"{who}: " + (" | ".join(unit["descriptions"]) or "nothing"))
    return said


def _stack(parts: Sequence[Image.Image]) -> Image.Image:
    from PIL import Image

    high = sum(part.height for part in parts) + MARGIN
    whole = Image.new("RGB", (max(part.width for part in parts), high), PAPER)
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height
    return whole


def _line(text: str) -> Image.Image:
    from PIL import Image, ImageDraw

    font = _font()
    left, _, right, _ = font.getbbox(text)
    line = Image.new("RGB", (int(right - left) + 4, 20), PAPER)
    ImageDraw.Draw(line).text((0, 2), text, fill=INK, font=font)
    return line


@cache
def _font() -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(14)
