"""Images of a unit's exemplars for the prompt of a vision-language model: grids and crops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from milannotations.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    Region = NDArray[np.bool_]

DIMMED = 0.25
"""Share of an image's brightness that is kept outside the mask, as in the images of 2022."""

PIXELS_PER_LINE = 112
"""Pixels of an image's side for which an outline is one pixel wide."""

GRID_COLUMNS = 5
"""Exemplars in a row of the grid."""

CROP_MARGIN = 0.2
"""Margin around a region in a crop, as a share of the region's longer side."""

MIN_CROP = 0.25
"""Least length of a crop's sides, as a share of the image's."""

BLANK_COLOR = (127, 127, 127)
"""RGB color of blank images."""


def dim_outside(image: Image.Image, region: Region, side: int, outline: bool = True) -> Image.Image:
    """Resize an image to a longer side of `side` and darken it outside its region.

    Args:
        image: RGB.
        region: (h, w); true where the unit responds.
        side: in pixels.
        outline: draw a line around the region, on its outside.

    Raises:
        InputError: image and region differ in size.
    """
    import numpy as np
    from PIL import Image as Images
    from PIL import ImageFilter

    from milannotations.utils.contact_sheet import OUTLINE

    _check_region(image, region)
    width, height = (max(1, round(length * side / max(image.size))) for length in image.size)
    pixels = np.asarray(image.resize((width, height), Images.Resampling.BICUBIC))
    mask = Images.fromarray(region.astype(np.uint8) * 255)
    # When an image is reduced, a pixel belongs to the region if a quarter of it does (64 of
    # 255); of a region that is smaller than that everywhere, each pixel that it touches does.
    reduced = width < image.width
    resampling = Images.Resampling.BOX if reduced else Images.Resampling.NEAREST
    shares = np.asarray(mask.resize((width, height), resampling))
    bright = shares > (64 if reduced else 0)
    if not bright.any():
        bright = shares > 0
    dimmed = np.where(bright[..., None], pixels, pixels * DIMMED)
    if outline:
        line = max(1, side // PIXELS_PER_LINE)
        dilate = ImageFilter.MaxFilter(2 * line + 1)
        dilated = np.asarray(Images.fromarray(bright).convert("L").filter(dilate)) > 0
        dimmed[dilated & ~bright] = OUTLINE
    return Images.fromarray(dimmed.astype(np.uint8))


def draw_grid(
    exemplars: Sequence[tuple[Image.Image, Region]], side: int, outline: bool = True
) -> Image.Image:
    """Draw all exemplars into one image, `GRID_COLUMNS` in a row, each in a square of `side`.

    Args:
        exemplars: (image, region) pairs; see `dim_outside`.
        side: in pixels.
        outline: draw a line around each region.
    """
    from PIL import Image as Images

    gap = max(2, side // 28)
    n_columns = min(GRID_COLUMNS, len(exemplars))
    n_rows = -(-len(exemplars) // n_columns)
    size = (n_columns * (side + gap) + gap, n_rows * (side + gap) + gap)
    grid = Images.new("RGB", size, (255, 255, 255))
    for index, (image, region) in enumerate(exemplars):
        tile = Images.new("RGB", (side, side))
        dimmed = dim_outside(image, region, side, outline)
        tile.paste(dimmed, ((side - dimmed.width) // 2, (side - dimmed.height) // 2))
        row, column = divmod(index, n_columns)
        grid.paste(tile, (column * (side + gap) + gap, row * (side + gap) + gap))
    return grid


def draw_crop(image: Image.Image, region: Region, side: int, outline: bool = True) -> Image.Image:
    """Crop an image around its region, resize it to a longer side of `side`, darken the rest.

    Args:
        image, region, side, outline: see `dim_outside`.

    Raises:
        InputError: image and region differ in size.
    """
    import numpy as np

    _check_region(image, region)
    spans = [np.flatnonzero(region.any(axis)) for axis in (0, 1)]  # columns, rows
    extents = [(int(span[0]), int(span[-1]) + 1) for span in spans]
    margin = round(CROP_MARGIN * max(high - low for low, high in extents))
    box = []
    for (low, high), length in zip(extents, image.size, strict=True):
        # what the crop still lacks to its least length is added on both sides
        lacking = max(0, round(MIN_CROP * length) - (high - low + 2 * margin))
        box.append((max(0, low - margin - lacking // 2), min(length, high + margin + lacking // 2)))
    (left, right), (top, bottom) = box
    cropped = image.crop((left, top, right, bottom))
    return dim_outside(cropped, region[top:bottom, left:right], side, outline)


def blank_images(images: Sequence[Image.Image]) -> list[Image.Image]:
    """Return gray images of the same sizes."""
    from PIL import Image as Images

    return [Images.new("RGB", image.size, BLANK_COLOR) for image in images]


def read_region(mask: Image.Image) -> Region:
    """Return a mask image as a bool array (h, w)."""
    import numpy as np

    pixels = np.asarray(mask)
    # masks of several channels have equal ones
    region: Region = pixels.reshape(*pixels.shape[:2], -1)[..., 0] > 0
    return region


def _check_region(image: Image.Image, region: Region) -> None:
    if region.shape != image.size[::-1]:
        raise InputError(f"An image of {image.size[::-1]} with a mask of {region.shape}.")
