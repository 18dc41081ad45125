"""Pictures of units and scenes for people to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from milannotations.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

MARGIN = 6
INK, PAPER, OUTLINE = (24, 24, 28), (250, 250, 248), (255, 0, 200)
SYNTHETIC_NOTE = "SYNTHETIC: planted units, drawn pictures, simulated annotators"
"""What stands above synthetic units wherever they are shown."""

DIMMED = 0.3
"""What is left of a picture's brightness outside the mask."""


def draw_mask(image: Any, mask: Any) -> NDArray[np.uint8]:
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
    within = np.repeat(region, 3).reshape(pixels.shape)  # numpy is slow over an axis of three
    shown = np.where(within, pixels, (pixels * np.float32(DIMMED)).astype(np.uint8))
    around = np.zeros_like(region)
    around[1:] |= region[:-1]
    around[:-1] |= region[1:]
    around[:, 1:] |= region[:, :-1]
    around[:, :-1] |= region[:, 1:]
    shown[around & ~region] = OUTLINE
    return shown


def tile_images(pictures: Sequence[NDArray[np.uint8]], columns: int, side: int = 0) -> Image.Image:
    """Return pictures in rows of `columns`, each with a longer side of `side` (0: as it is)."""
    from PIL import Image

    if not pictures:
        raise InputError("There is no picture to show.")
    tiles = [Image.fromarray(picture) for picture in pictures]
    if side:
        tiles = [tile.resize(_fit(tile.size, side), Image.Resampling.NEAREST) for tile in tiles]
    wide, high = (max(tile.size[axis] for tile in tiles) + 2 for axis in (0, 1))
    n_rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (wide * min(columns, len(tiles)), high * n_rows), PAPER)
    for place, tile in enumerate(tiles):
        sheet.paste(tile, (place % columns * wide, place // columns * high))
    return sheet


def shrink(image: Any, mask: Any, side: int) -> tuple[Any, Any]:
    """Return a picture and its mask with a longer side of at most `side` pixels.

    Dimmed and outlined first and made smaller then, photographs would lose most of an outline.

    Args:
        image: a PIL picture.
        mask: a PIL 1-bit picture of that size; where half of what becomes a pixel is in it, the
            pixel is.
        side: in pixels.
    """
    from PIL import Image

    if max(image.size) <= side or image.size != mask.size:
        return image, mask
    size, box = _fit(image.size, side), Image.Resampling.BOX
    smaller = np.asarray(mask.convert("L").resize(size, box)) >= 128
    return image.convert("RGB").resize(size, box), smaller


def _fit(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return (width, height) of a picture whose longer side is `side`."""
    wide, high = (max(1, round(length * side / max(size))) for length in size)
    return wide, high


def unit_sheet(
    units: Iterable[Mapping[str, Any]],
    *,
    exemplars: int = 15,
    columns: int | None = None,
    side: int = 96,
    says: Callable[[Mapping[str, Any]], list[str]] | None = None,
) -> Image.Image:
    """Return a strip a unit: its exemplars, dimmed outside the masks, and what is said of it.

    Args:
        units: rows of an edition with exemplars.
        exemplars: pictures of each, strongest first.
        columns: pictures in a row; None puts them all in one.
        side: the longer one of a picture, in pixels; 0 leaves them as they are.
        says: gives the lines above a unit's pictures (default: `unit_lines`).

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
        pairs = [shrink(image, mask, side) if side else (image, mask) for image, mask in pairs]
        tiles = tile_images(
            [draw_mask(image, mask) for image, mask in pairs], columns or len(pairs), side
        )
        strips.append(_stack([*map(_line, (says or unit_lines)(unit)), tiles]))
    if not strips:
        raise InputError("There is no unit to show.")
    if any(unit["unit_kind"] == "synthetic" for unit in units):
        strips.insert(0, _line(SYNTHETIC_NOTE))
    sheet = _stack(strips)
    framed = Image.new("RGB", (sheet.width + 2 * MARGIN, sheet.height + MARGIN), PAPER)
    framed.paste(sheet, (MARGIN, MARGIN))
    return framed


def unit_lines(unit: Mapping[str, Any]) -> list[str]:
    """Return what is said of a unit, in lines: its key, its truth if known, its descriptions.

    A unit without an activation above its threshold is called dead: its masks are empty.
    """
    said = [f"{unit['network']}/{unit['layer']}/{unit['unit']}"]
    threshold, activations = unit["threshold"], unit["activations"]
    if threshold is not None and activations and threshold >= activations[0]:
        said[0] += f"   (dead: no activation is above the threshold, {threshold:.4g})"
    if unit["truth"] is not None:
        said.append(f"truth: {unit['truth']}   [{unit['truth_formula']}]")
    who = "simulated annotators" if unit["unit_kind"] == "synthetic" else "people"
    written = unit["descriptions"]
    said.append(f"{who}: {' | '.join(written)}" if written else "no descriptions")
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
