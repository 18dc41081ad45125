"""Boolean masks that scenes are drawn with: shapes, textures, faces, words, backgrounds.

All are computed with whole numbers, so that they are the same arrays on every machine.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

TURNS: dict[str, int] = {"circle": 1, "ring": 1, "square": 4, "diamond": 2, "cross": 4, "star": 4}
"""Distinct rotations of a shape within its symmetry; other shapes have 8."""


def _grid(radius: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the coordinates x, y of a square of side 2 radius + 1, 0 in the centre."""
    steps = np.arange(-radius, radius + 1)
    return steps[None, :] + 0 * steps[:, None], steps[:, None] + 0 * steps[None, :]


@cache
def shape_masks(shape: str, radius: int, turn: int) -> tuple[Mask, Mask]:
    """Return a shape and its edge (2 pixels wide), bool (2 radius + 1, 2 radius + 1) both.

    Sines and cosines are rounded to thousandths, so that all arithmetic is in whole numbers and a
    mask is the same on every machine.

    Args:
        shape: a concept of the category shape.
        radius: in pixels.
        turn: rotation, from 0 to `TURNS[shape] - 1`.
    """
    x, y = _grid(radius)
    # 1. Coordinates u, v of the rotated shape, in thousandths of a pixel. A shape with a symmetry
    # is rotated within one sector of it: others would look the same.
    turns = TURNS.get(shape, 8)
    sector = {"square": 36, "cross": 90, "diamond": 20, "star": 72}.get(shape, 360)
    angle = math.radians(sector * turn / turns)
    cos, sin = round(1000 * math.cos(angle)), round(1000 * math.sin(angle))
    u, v = (x * cos + y * sin), (y * cos - x * sin)
    r = 1000 * radius
    d2 = x * x + y * y
    # 2. The pixels inside, as inequalities between whole numbers.
    if shape == "circle":
        mask = d2 * 10 <= radius * radius * 10
    elif shape == "ring":
        mask = (d2 <= radius * radius) & (d2 * 100 >= radius * radius * 30)
    elif shape == "square":
        mask = np.maximum(abs(u), abs(v)) * 100 <= r * 72
    elif shape == "diamond":
        mask = abs(u) * 100 + abs(v) * 62 <= r * 62
    elif shape == "cross":
        thin, long = np.minimum(abs(u), abs(v)), np.maximum(abs(u), abs(v))
        mask = (thin * 100 <= r * 28) & (long * 100 <= r * 92)
    elif shape == "triangle":
        # three half planes at half the radius from the centre
        mask = (v * 2 <= r) & (u * 866 - v * 500 <= r * 500) & (-u * 866 - v * 500 <= r * 500)
    elif shape == "star":
        mask = _polygon(u, v, _star(r))
    else:  # moon: a disc minus another, shifted one
        shifted = (u - 45 * radius * 10) ** 2 + v**2
        mask = (d2 <= radius * radius) & (shifted >= (78 * radius * 10) ** 2)
    mask &= d2 <= radius * radius + radius
    # 3. The edge: what two erosions by the four neighbours remove.
    inner = mask.copy()
    for _ in range(2):
        padded = np.pad(inner, 1)
        inner = inner & padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2]
    return mask, mask & ~inner


def _star(r: int) -> list[tuple[int, int]]:
    """Return the corners of a five-pointed star, outer and inner in turn, in thousandths."""
    corners = []
    for i in range(10):
        reach = r if i % 2 == 0 else r * 42 // 100
        angle = math.radians(36 * i - 90)
        cos, sin = round(1000 * math.cos(angle)), round(1000 * math.sin(angle))
        corners.append((reach * cos // 1000, reach * sin // 1000))
    return corners


def _polygon(u: NDArray[np.int64], v: NDArray[np.int64], corners: list[tuple[int, int]]) -> Mask:
    """Return which points lie in a polygon.

    Even-odd rule: a point is inside if a ray to its right crosses an odd number of sides. The side
    of a point is the sign of a cross product, in whole numbers.
    """
    inside = np.zeros(u.shape, dtype=bool)
    for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
        crosses = (v >= min(y1, y2)) & (v < max(y1, y2))
        side = (u - x1) * (y2 - y1) - (v - y1) * (x2 - x1)
        inside ^= crosses & ((side < 0) if y2 > y1 else (side > 0))
    return inside


@cache
def texture_mask(texture: str, radius: int, variant: int) -> Mask:
    """Return the pixels of a texture's second tone, bool (2 radius + 1, 2 radius + 1)."""
    x, y = _grid(radius)
    x, y = x + radius, y + radius
    if texture == "striped":
        across = (x, y, x + y, x - y)[variant % 4]
        return across // (2 + (variant % 4 > 1)) % 2 == 1
    if texture == "dotted":
        a, b = (x + variant % 3) % 5, (y + variant // 3) % 5
        return (a < 2) & (b < 2)
    if texture == "checkered":
        side = 3 + variant % 2
        return (x // side + y // side) % 2 == 1
    return np.zeros(x.shape, dtype=bool)


@cache
def face_masks(radius: int) -> dict[str, Mask]:
    """Return the regions of a face: face, skin, hair, eyeball, pupil, eye, mouth."""
    high = radius + radius // 4
    x, y = _grid(high)
    x, y = x[:, high - radius : high + radius + 1], y[:, high - radius : high + radius + 1]
    oval = x * x * high * high + y * y * radius * radius <= radius * radius * high * high
    hair = oval & ((y * 100 <= -high * 45) | ((abs(x) * 100 >= radius * 84) & (y <= 0)))
    apart, up = radius * 42 // 100, -radius // 8
    a, b = abs(x) - apart, y - up
    width, height = max(2, radius * 26 // 100), max(2, radius * 20 // 100)
    eyeball = a * a * height * height + b * b * width * width <= width * width * height * height
    pupil = (abs(a) <= 1) & (abs(b) <= 1)
    mouth = (abs(x) * 100 <= radius * 45) & (abs(y - high // 2) <= 1)
    return {
        "face": oval,
        "skin": oval & ~hair,
        "hair": hair,
        "eyeball": eyeball,
        "pupil": pupil,
        "eye": eyeball | pupil,
        "mouth": mouth,
    }


@cache
def word_mask(word: str) -> Mask:
    """Return a word's strokes with a margin of 2 pixels, in pillow's built-in bitmap font."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default_imagefont()
    left, top, right, bottom = (int(edge) for edge in font.getbbox(word))
    plate = Image.new("1", (right - left, bottom - top))
    ImageDraw.Draw(plate).text((-left, -top), word, fill=1, font=font)
    strokes = np.asarray(plate, dtype=bool)
    rows, columns = np.flatnonzero(strokes.any(1)), np.flatnonzero(strokes.any(0))
    strokes = strokes[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.pad(strokes, 2)


@cache
def gradient_ramp(direction: int, size: int) -> NDArray[np.int16]:
    """Return a slope from 0 to size - 1 over an image, in one of four directions."""
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    return (x, y, (x + y) // 2, size - 1 - x)[direction].astype(np.int16)


@cache
def line_pattern(direction: int, width: int, size: int) -> NDArray[np.int16]:
    """Return 0 and 1 in lines of a width over an image, in one of four directions."""
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    return ((x, y, x + y, x - y)[direction] // width % 2).astype(np.int16)
