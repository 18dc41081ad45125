"""Contact sheets: images of units and scenes for display."""

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
"""Pixels around a sheet."""

INK, PAPER, OUTLINE = (24, 24, 28), (250, 250, 248), (255, 0, 200)
"""RGB colours of text, background and mask outlines."""

SYNTHETIC_NOTE = "SYNTHETIC: planted units, drawn images, simulated annotators"
"""Line above synthetic units wherever they are shown."""

DIMMED = 0.3
"""Factor on brightness outside the mask."""


def draw_mask(image: Any, mask: Any) -> NDArray[np.uint8]:
    """Dim an image outside its mask and draw the mask's outline.

    Args:
        image: a PIL image or array (h, w, 3), uint8.
        mask: a PIL 1-bit image or array (h, w); true where the unit responds.

    Returns:
        (h, w, 3), uint8.
    """
    pixels = np.asarray(image.convert("RGB") if hasattr(image, "convert") else image)
    region = np.asarray(mask).astype(bool)
    if pixels.shape[:2] != region.shape:
        raise InputError(
            f"An image of {pixels.shape[:2]} has a mask of {region.shape}. Expected equal sizes."
        )
    within = np.repeat(region, 3).reshape(pixels.shape)  # broadcasting over an axis of 3 is slow
    drawn = np.where(within, pixels, (pixels * np.float32(DIMMED)).astype(np.uint8))
    # the outline is the ring of pixels outside the mask that touch it: dilate by one, subtract
    dilated = np.zeros_like(region)
    dilated[1:] |= region[:-1]
    dilated[:-1] |= region[1:]
    dilated[:, 1:] |= region[:, :-1]
    dilated[:, :-1] |= region[:, 1:]
    drawn[dilated & ~region] = OUTLINE
    return drawn


def tile_images(images: Sequence[NDArray[np.uint8]], columns: int, side: int = 0) -> Image.Image:
    """Tile images in rows of `columns`; `side` is the longer side of each (0 keeps the size)."""
    from PIL import Image

    if not images:
        raise InputError("There are no images to show.")
    tiles = [Image.fromarray(image) for image in images]
    if side:
        tiles = [tile.resize(_fit(tile.size, side), Image.Resampling.NEAREST) for tile in tiles]
    width, height = (max(tile.size[axis] for tile in tiles) + 2 for axis in (0, 1))
    n_rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (width * min(columns, len(tiles)), height * n_rows), PAPER)
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % columns * width, i // columns * height))
    return sheet


def shrink(image: Any, mask: Any, side: int) -> tuple[Any, Any]:
    """Shrink an image and its mask to a longer side of at most `side` pixels.

    Do this before `draw_mask`: shrinking afterwards would blur most of the outline away.

    Args:
        image: a PIL image.
        mask: a PIL 1-bit image of the same size. A pixel of the small mask is true where at least
            half of the area that it covers is.
        side: in pixels.

    Returns:
        The small image and mask, or both unchanged if they are small enough.
    """
    from PIL import Image

    if max(image.size) <= side or image.size != mask.size:
        return image, mask
    size, box = _fit(image.size, side), Image.Resampling.BOX
    small_mask = np.asarray(mask.convert("L").resize(size, box)) >= 128
    return image.convert("RGB").resize(size, box), small_mask


def _fit(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return the (width, height) that has a longer side of `side`."""
    width, height = (max(1, round(length * side / max(size))) for length in size)
    return width, height


def unit_sheet(
    units: Iterable[Mapping[str, Any]],
    *,
    exemplars: int = 15,
    columns: int | None = None,
    side: int = 96,
    says: Callable[[Mapping[str, Any]], list[str]] | None = None,
) -> Image.Image:
    """Draw one strip per unit: lines of text, then its exemplars, dimmed outside the masks.

    Args:
        units: rows of an edition with exemplars.
        exemplars: most exemplars per unit, strongest first.
        columns: images per row; None puts all into one row.
        side: longer side of an image, in pixels; 0 keeps the size.
        says: returns the lines above a unit's images (default: `unit_lines`).

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
        images = [draw_mask(image, mask) for image, mask in pairs]
        tiles = tile_images(images, columns or len(pairs), side)
        strips.append(_stack([*map(_draw_text, (says or unit_lines)(unit)), tiles]))
    if not strips:
        raise InputError("There are no units to show.")
    if any(unit["unit_kind"] == "synthetic" for unit in units):
        strips.insert(0, _draw_text(SYNTHETIC_NOTE))
    sheet = _stack(strips)
    framed = Image.new("RGB", (sheet.width + 2 * MARGIN, sheet.height + MARGIN), PAPER)
    framed.paste(sheet, (MARGIN, MARGIN))
    return framed


def unit_lines(unit: Mapping[str, Any]) -> list[str]:
    """Return the text of a unit, in lines: its key, its truth if known, its descriptions.

    A unit without an activation above its threshold is called dead: its masks are empty.
    """
    lines = [f"{unit['network']}/{unit['layer']}/{unit['unit']}"]
    threshold, activations = unit["threshold"], unit["activations"]
    if threshold is not None and activations and threshold >= activations[0]:
        lines[0] += f"   (dead: no activation is above the threshold, {threshold:.4g})"
    if unit["truth"] is not None:
        lines.append(f"truth: {unit['truth']}   [{unit['truth_formula']}]")
    authors = "simulated annotators" if unit["unit_kind"] == "synthetic" else "humans"
    descriptions = unit["descriptions"]
    lines.append(f"{authors}: {' | '.join(descriptions)}" if descriptions else "no descriptions")
    return lines


def _stack(parts: Sequence[Image.Image]) -> Image.Image:
    from PIL import Image

    height = sum(part.height for part in parts) + MARGIN
    sheet = Image.new("RGB", (max(part.width for part in parts), height), PAPER)
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


def _draw_text(text: str) -> Image.Image:
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
