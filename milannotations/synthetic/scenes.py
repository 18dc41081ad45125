"""Scenes: small pictures of which every pixel is known.

A scene is a 64 x 64 picture of a few objects before a background, sometimes with
a word or a cartoon face, beside label maps that say for each pixel what it is and
a graph that says what stands where. Everything is drawn with whole numbers, so
that a scene is the same array on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from milannotations.synthetic.concepts import CATEGORIES, CONCEPTS, label, one_hot

Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]

SIZE = 64
"""Side of a scene in pixels."""

WORDS = (
    "cat", "dog", "sun", "tree", "fish", "book", "lamp", "road",
    "milk", "king", "home", "ship", "gold", "rain", "wolf", "salt",
)  # fmt: skip
"""The words that scenes show."""

SHAPES = CATEGORIES["shape"]
COLORS = {
    "red": (214, 40, 40),
    "orange": (240, 134, 30),
    "yellow": (238, 220, 50),
    "green": (44, 160, 60),
    "blue": (40, 84, 214),
    "purple": (146, 56, 176),
    "white": (246, 246, 246),
}
SKIN = ((241, 194, 155), (224, 172, 120), (176, 120, 76), (112, 72, 44))
HAIR = ((40, 30, 24), (96, 60, 30), (150, 110, 60), (120, 120, 124))
MOUTH, PUPIL, EYEBALL = (150, 40, 50), (24, 20, 24), (248, 248, 248)
NOISE = 2
"""Pixels move by up to this many steps of 255, each colour alike."""

_BACKGROUNDS = ("plain", "gradient", "noisy", "lined")
_TURNS = {"circle": 1, "ring": 1, "square": 4, "diamond": 2, "cross": 4, "star": 4}


class Item(NamedTuple):
    """One thing in a scene: a node of its graph.

    `box` is left, top, right, bottom in pixels, the last two exclusive; `pixels` how
    many of its pixels nothing hides.
    """

    kind: str
    shape: str | None
    color: str | None
    texture: str | None
    word: str | None
    box: tuple[int, int, int, int]
    pixels: int

    @property
    def center(self) -> tuple[float, float]:
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2


@dataclass(frozen=True)
class Scene:
    """A picture and everything that is known about it.

    Attributes:
        source_id: `<world>-<seed>-<index>`.
        image: (64, 64, 3) RGB.
        labels: (category, 64, 64), in the order of `concepts.CATEGORIES`.
        instances: (64, 64); 0 is background, i+1 is `items[i]`.
        background: its kind and whether it is dark or light.
        items: objects, text and faces, what hides others last.
    """

    source_id: str
    image: Bytes
    labels: Bytes
    instances: Bytes
    background: tuple[str, str]
    items: tuple[Item, ...]

    @property
    def concepts(self) -> Mask:
        """Concept maps, (concept, 64, 64)."""
        return one_hot(self.labels)

    @property
    def relations(self) -> list[tuple[int, str, int]]:
        """Edges of the graph: (i, "above" | "left of", j) by centres at least 4 pixels apart."""
        found = []
        for i, one in enumerate(self.items):
            for j, other in enumerate(self.items):
                if one.center[1] + 4 <= other.center[1]:
                    found.append((i, "above", j))
                if one.center[0] + 4 <= other.center[0]:
                    found.append((i, "left of", j))
        return found

    @property
    def graph(self) -> dict[str, Any]:
        """The scene graph as plain values, for JSON."""
        return {
            "background": list(self.background),
            "items": [item._asdict() for item in self.items],
            "relations": [list(relation) for relation in self.relations],
        }


@dataclass(frozen=True)
class World:
    """What is drawn, and how often. The defaults are the mini world's.

    Attributes:
        name: begins the scenes' ids.
        most_items: objects in a scene, from 1.
        radii: least and largest radius of an object, in pixels.
        text, face: share of scenes with a word, with a face.
        blurred_faces: faces are blurred, so that eyes and mouths are gone.
    """

    name: str = "mini"
    most_items: int = 4
    radii: tuple[int, int] = (7, 13)
    text: float = 0.36
    face: float = 0.33
    blurred_faces: bool = False

    def scene(self, seed: int, index: int) -> Scene:
        """Return scene `index` of the stream `seed`: always the same arrays.

        Example:
            >>> World().scene(0, 5).image.shape
            (64, 64, 3)
        """
        canvas = Canvas(seed, index)
        canvas.paint_background()
        for _ in range(canvas.draw(self.most_items) + 1):
            radius = self.radii[0] + canvas.draw(self.radii[1] - self.radii[0] + 1)
            canvas.add_shape(radius)
        if canvas.chance(self.face):
            canvas.add_face(9 + canvas.draw(5), blurred=self.blurred_faces)
        if canvas.chance(self.text):
            canvas.add_text(WORDS[canvas.draw(len(WORDS))])
        return canvas.scene(f"{self.name}-{seed}-{index:06d}")

    def scenes(self, seed: int, count: int, start: int = 0) -> Iterator[Scene]:
        """Yield `count` scenes of the stream `seed`."""
        for index in range(start, start + count):
            yield self.scene(seed, index)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Canvas:
    """Draws one scene; every draw comes from (seed, index), in the order of the calls."""

    seed: int
    index: int
    image: NDArray[np.int16] = field(init=False)
    labels: Bytes = field(init=False)
    instances: Bytes = field(init=False)

    def __post_init__(self) -> None:
        self._generator = np.random.Generator(np.random.PCG64([self.seed, self.index]))
        self._draws = self._generator.integers(0, 1 << 31, 128).tolist()
        self._next = 0
        self.image = np.zeros((SIZE, SIZE, 3), dtype=np.int16)
        self.labels = np.zeros((len(CATEGORIES), SIZE, SIZE), dtype=np.uint8)
        self.instances = np.zeros((SIZE, SIZE), dtype=np.uint8)
        self._items: list[Item] = []
        self._discs: list[tuple[int, int, int]] = []
        self._background = ("plain", "dark")

    def draw(self, count: int) -> int:
        """Return a whole number from 0 to count - 1."""
        if self._next == len(self._draws):
            self._draws += self._generator.integers(0, 1 << 31, 128).tolist()
        self._next += 1
        return int(self._draws[self._next - 1] % count)

    def chance(self, share: float) -> bool:
        return self.draw(10_000) < round(share * 10_000)

    def paint_background(self) -> None:
        kind, light = _BACKGROUNDS[self.draw(4)], ("dark", "light")[self.draw(2)]
        base = 30 + self.draw(40) if light == "dark" else 168 + self.draw(40)
        tint = np.array([base + self.draw(21) - 10 for _ in range(3)], dtype=np.int16)
        self.image[:] = tint
        if kind == "gradient":
            ramp = _ramp(self.draw(4))
            self.image += (ramp * (48 + self.draw(24)) // 64 - 30)[:, :, None].astype(np.int16)
        elif kind == "noisy":
            grain = self._generator.integers(-4, 5, (SIZE, SIZE), dtype=np.int16)
            self.image += 9 * grain[:, :, None]
        elif kind == "lined":
            self.image += (_lines(self.draw(4), 3 + self.draw(3)) * 36 - 18)[:, :, None]
        self._background = (kind, light)
        for concept in (f"{kind}_background", f"{light}_background"):
            place, number = label(concept)
            self.labels[place] = number

    def add_shape(
        self,
        radius: int,
        shape: str | None = None,
        center: tuple[int, int] | None = None,
    ) -> bool:
        """Draw an object where there is room; return False where there is none."""
        shape = shape or SHAPES[self.draw(len(SHAPES))]
        color = tuple(COLORS)[self.draw(len(COLORS))]
        texture = CATEGORIES["texture"][self.draw(4)]
        turn, variant = self.draw(_TURNS.get(shape, 8)), self.draw(8)
        jitter = [self.draw(25) - 12 for _ in range(3)]
        if center is not None:
            self._discs.append((*center, radius))
        center = center or self._place(radius, radius)
        if center is None:
            return False
        mask, edge = _shape(shape, radius, turn)
        tone = _tone(texture, radius, variant)
        paint = np.array(COLORS[color], dtype=np.int16) + np.array(jitter, dtype=np.int16)
        second = paint * 45 // 100 if color != "white" else paint * 62 // 100
        item = Item("shape", shape, color, texture, None, (0, 0, 0, 0), 0)
        window, visible = self._add(item, mask, center, (shape, color, texture))
        inside = self.image[window]
        shades = np.where(tone[visible][..., None], second, paint)
        inside[mask[visible]] = shades[mask[visible]]
        place, number = label("edge")
        self.labels[place][window][edge[visible]] = number
        return True

    def add_face(self, radius: int, *, blurred: bool = False) -> bool:
        """Draw a cartoon face where there is room; return False where there is none."""
        skin, hair = SKIN[self.draw(4)], HAIR[self.draw(4)]
        center = self._place(radius, radius + radius // 4)
        if center is None:
            return False
        masks = _face(radius)
        item = Item("face", None, None, None, None, (0, 0, 0, 0), 0)
        window, visible = self._add(item, masks["face"], center, ("face",))
        inside = self.image[window]
        paints = {"skin": skin, "hair": hair, "eyeball": EYEBALL, "pupil": PUPIL, "mouth": MOUTH}
        for name, paint in paints.items():
            inside[masks[name][visible]] = paint
        for part in ("hair", "eye", "mouth"):
            place, number = label(part)
            if not blurred or part == "hair":
                self.labels[place][window][masks[part][visible]] = number
        if blurred:
            self._blur(window, masks["face"][visible])
        return True

    def add_text(self, word: str, color: str | None = None, corner: int | None = None) -> None:
        """Write a word, on a plate of its own, at the edge of the picture or anywhere.

        The region of a text is its plate: a word is a thing, not its strokes.
        """
        color = color or tuple(COLORS)[self.draw(len(COLORS))]
        glyphs = _word(word)
        high, wide = glyphs.shape
        room = (SIZE - high, SIZE - wide)
        if corner is not None:
            top, left = (1 + (corner // 2) * (room[0] - 2), 1 + (corner % 2) * (room[1] - 2))
        else:
            top, left = self.draw(room[0] + 1), self.draw(room[1] + 1)
        place = (left + wide // 2, top + high // 2)
        dark = self.draw(10)
        item = Item("text", None, color, None, word, (0, 0, 0, 0), 0)
        mask = np.ones(glyphs.shape, dtype=bool)
        window, _ = self._add(item, mask, place, ("text", color), corner=(left, top))
        self.image[window] = 8 + dark
        self.image[window][glyphs] = COLORS[color]

    def scene(self, source_id: str) -> Scene:
        """Return what was drawn, with noise over it."""
        noise = self._generator.integers(-NOISE, NOISE + 1, (SIZE, SIZE, 1), dtype=np.int16)
        image = np.clip(self.image + noise, 0, 255).astype(np.uint8)
        counts = np.bincount(self.instances.ravel(), minlength=len(self._items) + 1)
        items = tuple(
            item._replace(pixels=int(count))
            for item, count in zip(self._items, counts[1:], strict=True)
        )
        return Scene(source_id, image, self.labels, self.instances, self._background, items)

    def _place(self, wide: int, high: int) -> tuple[int, int] | None:
        """Return a centre with room for a disc, or None after some tries."""
        for _ in range(12):
            x = wide + self.draw(SIZE - 2 * wide)
            y = high + self.draw(SIZE - 2 * high)
            reach = max(wide, high)
            if all(
                (x - a) ** 2 + (y - b) ** 2 >= (reach + r) ** 2 * 4 // 5 for a, b, r in self._discs
            ):
                self._discs.append((x, y, reach))
                return x, y
        return None

    def _add(
        self,
        item: Item,
        mask: Mask,
        center: tuple[int, int],
        concepts: tuple[str, ...],
        corner: tuple[int, int] | None = None,
    ) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Enter an item into the maps; return its window of the scene and of its mask."""
        high, wide = mask.shape
        left, top = corner or (center[0] - wide // 2, center[1] - high // 2)
        right, bottom = min(left + wide, SIZE), min(top + high, SIZE)
        window = (slice(max(top, 0), bottom), slice(max(left, 0), right))
        visible = (
            slice(window[0].start - top, bottom - top),
            slice(window[1].start - left, right - left),
        )
        mask = mask[visible]
        self.labels[:, window[0], window[1]][:, mask] = 0
        for concept in concepts:
            place, number = label(concept)
            self.labels[place][window][mask] = number
        self.instances[window][mask] = len(self._items) + 1
        box = (window[1].start, window[0].start, right, bottom)
        self._items.append(item._replace(box=box))
        return window, visible

    def _blur(self, window: tuple[slice, slice], mask: Mask) -> None:
        """Replace the masked pixels by the mean of 9 x 9 around them, in whole numbers."""
        padded = np.pad(self.image[window], ((4, 4), (4, 4), (0, 0)), mode="edge").astype(np.int32)
        sums = np.pad(padded.cumsum(0).cumsum(1), ((1, 0), (1, 0), (0, 0)))
        blurred = (sums[9:, 9:] - sums[:-9, 9:] - sums[9:, :-9] + sums[:-9, :-9]) // 81
        self.image[window][mask] = blurred[mask]


def _grid(radius: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the coordinates x, y of a square of side 2 radius + 1, 0 in the middle."""
    steps = np.arange(-radius, radius + 1)
    return steps[None, :] + 0 * steps[:, None], steps[:, None] + 0 * steps[None, :]


@cache
def _shape(shape: str, radius: int, turn: int) -> tuple[Mask, Mask]:
    """Return a shape and its edge (2 pixels wide), bool (2 radius + 1, 2 radius + 1).

    Angles go through a table of sines rounded to a thousandth: the same everywhere.
    """
    x, y = _grid(radius)
    turns = _TURNS.get(shape, 8)
    sector = {"square": 36, "cross": 90, "diamond": 20, "star": 72}.get(shape, 360)
    angle = math.radians(sector * turn / turns)
    cos, sin = round(1000 * math.cos(angle)), round(1000 * math.sin(angle))
    u, v = (x * cos + y * sin), (y * cos - x * sin)  # thousandths of a pixel
    r = 1000 * radius
    d2 = x * x + y * y
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
        # three half planes at a distance of half the radius from the middle
        mask = (v * 2 <= r) & (u * 866 - v * 500 <= r * 500) & (-u * 866 - v * 500 <= r * 500)
    elif shape == "star":
        mask = _polygon(u, v, _star(r))
    else:  # moon: a disc less a disc
        shifted = (u - 45 * radius * 10) ** 2 + v**2
        mask = (d2 <= radius * radius) & (shifted >= (78 * radius * 10) ** 2)
    mask &= d2 <= radius * radius + radius
    inner = mask.copy()
    for _ in range(2):
        padded = np.pad(inner, 1)
        inner = inner & padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2]
    return mask, mask & ~inner


def _star(r: int) -> list[tuple[int, int]]:
    """Return the corners of a five-pointed star."""
    corners = []
    for i in range(10):
        reach = r if i % 2 == 0 else r * 42 // 100
        angle = math.radians(36 * i - 90)
        cos, sin = round(1000 * math.cos(angle)), round(1000 * math.sin(angle))
        corners.append((reach * cos // 1000, reach * sin // 1000))
    return corners


def _polygon(u: NDArray[np.int64], v: NDArray[np.int64], corners: list[tuple[int, int]]) -> Mask:
    """Return which points lie in a polygon, by the even-odd rule, in whole numbers."""
    inside = np.zeros(u.shape, dtype=bool)
    for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
        crosses = (v >= min(y1, y2)) & (v < max(y1, y2))
        side = (u - x1) * (y2 - y1) - (v - y1) * (x2 - x1)
        inside ^= crosses & ((side < 0) if y2 > y1 else (side > 0))
    return inside


@cache
def _tone(texture: str, radius: int, variant: int) -> Mask:
    """Return where a texture shows its second tone, bool (2 radius + 1, 2 radius + 1)."""
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
def _face(radius: int) -> dict[str, Mask]:
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
def _word(word: str) -> Mask:
    """Return a word's strokes with a margin of 2 pixels, by pillow's built-in bitmap font."""
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
def _ramp(direction: int) -> NDArray[np.int16]:
    """Return a slope from 0 to 63 over the picture, in one of four directions."""
    x, y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    return (x, y, (x + y) // 2, SIZE - 1 - x)[direction].astype(np.int16)


@cache
def _lines(direction: int, width: int) -> NDArray[np.int16]:
    """Return 0 and 1 in lines of a width, in one of four directions."""
    x, y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    return ((x, y, x + y, x - y)[direction] // width % 2).astype(np.int16)


__all__ = ["CONCEPTS", "SIZE", "WORDS", "Canvas", "Item", "Scene", "World"]
