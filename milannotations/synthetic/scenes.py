"""Scenes: small images of which every pixel is known.

A scene is a 64 x 64 image of a few objects before a background, sometimes with a word or a cartoon
face, beside label maps that say for each pixel what it is and a graph of where each item stands.
Everything is drawn with whole numbers, so that a scene is the same array on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from milannotations.synthetic.concepts import CATEGORIES, label, one_hot
from milannotations.synthetic.drawing import (
    TURNS,
    Mask,
    face_masks,
    gradient_ramp,
    line_pattern,
    shape_masks,
    texture_mask,
    word_mask,
)

Bytes = NDArray[np.uint8]

SIZE = 64
"""Side of a scene in pixels."""

WORDS = (
    "cat", "dog", "sun", "tree", "fish", "book", "lamp", "road",
    "milk", "king", "home", "ship", "gold", "rain", "wolf", "salt",
)  # fmt: skip
"""Words that scenes show."""

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
"""Largest noise of a pixel, in steps of 255, the same for each colour."""

_BACKGROUNDS = ("plain", "gradient", "noisy", "lined")


class Item(NamedTuple):
    """Item of a scene: a node of its graph.

    Attributes:
        kind: shape, text or face.
        shape, color, texture: concepts of a shape; `color` also of a text.
        word: the word of a text.
        box: left, top, right, bottom in pixels, the last two exclusive.
        pixels: number of its pixels that nothing hides.
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
    """An image and its annotations.

    Attributes:
        source_id: `<world>-<seed>-<index>`.
        image: (64, 64, 3) RGB.
        labels: (category, 64, 64), in the order of `concepts.CATEGORIES`.
        instances: (64, 64); 0 is background, i+1 is `items[i]`.
        background: its kind, and dark or light.
        items: objects, text and faces, in the order of drawing: later ones hide earlier ones.
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
        relations = []
        for i, one in enumerate(self.items):
            for j, other in enumerate(self.items):
                if one.center[1] + 4 <= other.center[1]:
                    relations.append((i, "above", j))
                if one.center[0] + 4 <= other.center[0]:
                    relations.append((i, "left of", j))
        return relations

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
    """Distribution of scenes. The defaults are the mini world's.

    Attributes:
        name: first part of the scenes' ids.
        most_items: most objects in a scene; the least is 1.
        radii: least and largest radius of an object, in pixels.
        text, face: share of scenes with a word, with a face.
        blurred_faces: blur faces, so that they have no eyes and mouths.
    """

    name: str = "mini"
    most_items: int = 4
    radii: tuple[int, int] = (7, 13)
    text: float = 0.36
    face: float = 0.33
    blurred_faces: bool = False

    def scene(self, seed: int, index: int) -> Scene:
        """Draw scene `index` of the stream `seed`: always the same arrays.

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
    """Canvas of one scene. All random draws come from (seed, index), in the order of the calls.

    Attributes:
        seed, index: random seed, and index of the scene in the seed's stream.
        image: (64, 64, 3), signed, so that sums below 0 and above 255 can be clipped at the end.
        labels, instances: see `Scene`.
    """

    seed: int
    index: int
    image: NDArray[np.int16] = field(init=False)
    labels: Bytes = field(init=False)
    instances: Bytes = field(init=False)

    def __post_init__(self) -> None:
        self._generator = np.random.Generator(np.random.PCG64([self.seed, self.index]))
        # drawn 128 at a time: a call of the generator per number takes longer than drawing
        self._draws = self._generator.integers(0, 1 << 31, 128).tolist()
        self._next = 0
        self.image = np.zeros((SIZE, SIZE, 3), dtype=np.int16)
        self.labels = np.zeros((len(CATEGORIES), SIZE, SIZE), dtype=np.uint8)
        self.instances = np.zeros((SIZE, SIZE), dtype=np.uint8)
        self._items: list[Item] = []
        self._discs: list[tuple[int, int, int]] = []  # (x, y, radius) of the space taken
        self._background = ("plain", "dark")

    def draw(self, count: int) -> int:
        """Return a whole number from 0 to count - 1."""
        if self._next == len(self._draws):
            self._draws += self._generator.integers(0, 1 << 31, 128).tolist()
        self._next += 1
        return int(self._draws[self._next - 1] % count)

    def chance(self, share: float) -> bool:
        """Return True with a probability, rounded to a ten-thousandth."""
        return self.draw(10_000) < round(share * 10_000)

    def paint_background(self) -> None:
        """Paint one of the four backgrounds, dark or light, and label it."""
        kind, light = _BACKGROUNDS[self.draw(4)], ("dark", "light")[self.draw(2)]
        base = 30 + self.draw(40) if light == "dark" else 168 + self.draw(40)
        tint = np.array([base + self.draw(21) - 10 for _ in range(3)], dtype=np.int16)
        self.image[:] = tint
        if kind == "gradient":
            ramp = gradient_ramp(self.draw(4), SIZE)
            self.image += (ramp * (48 + self.draw(24)) // 64 - 30)[:, :, None].astype(np.int16)
        elif kind == "noisy":
            grain = self._generator.integers(-4, 5, (SIZE, SIZE), dtype=np.int16)
            self.image += 9 * grain[:, :, None]
        elif kind == "lined":
            self.image += (line_pattern(self.draw(4), 3 + self.draw(3), SIZE) * 36 - 18)[:, :, None]
        self._background = (kind, light)
        for concept in (f"{kind}_background", f"{light}_background"):
            category, number = label(concept)
            self.labels[category] = number

    def add_shape(
        self,
        radius: int,
        shape: str | None = None,
        center: tuple[int, int] | None = None,
    ) -> bool:
        """Draw an object, at a centre or where there is room.

        Returns:
            False where there is no room.
        """
        shape = shape or SHAPES[self.draw(len(SHAPES))]
        color = tuple(COLORS)[self.draw(len(COLORS))]
        texture = CATEGORIES["texture"][self.draw(4)]
        turn, variant = self.draw(TURNS.get(shape, 8)), self.draw(8)
        jitter = [self.draw(25) - 12 for _ in range(3)]
        if center is not None:
            self._discs.append((*center, radius))
        center = center or self._find_room(radius, radius)
        if center is None:
            return False
        mask, edge = shape_masks(shape, radius, turn)
        second_tone = texture_mask(texture, radius, variant)
        paint = np.array(COLORS[color], dtype=np.int16) + np.array(jitter, dtype=np.int16)
        darker = paint * 45 // 100 if color != "white" else paint * 62 // 100
        item = Item("shape", shape, color, texture, None, (0, 0, 0, 0), 0)
        window, visible = self._add(item, mask, center, (shape, color, texture))
        inside = self.image[window]
        shades = np.where(second_tone[visible][..., None], darker, paint)
        inside[mask[visible]] = shades[mask[visible]]
        category, number = label("edge")
        self.labels[category][window][edge[visible]] = number
        return True

    def add_face(self, radius: int, *, blurred: bool = False) -> bool:
        """Draw a cartoon face where there is room.

        Returns:
            False where there is no room.
        """
        skin, hair = SKIN[self.draw(4)], HAIR[self.draw(4)]
        center = self._find_room(radius, radius + radius // 4)
        if center is None:
            return False
        masks = face_masks(radius)
        item = Item("face", None, None, None, None, (0, 0, 0, 0), 0)
        window, visible = self._add(item, masks["face"], center, ("face",))
        inside = self.image[window]
        paints = {"skin": skin, "hair": hair, "eyeball": EYEBALL, "pupil": PUPIL, "mouth": MOUTH}
        for name, paint in paints.items():
            inside[masks[name][visible]] = paint
        for part in ("hair", "eye", "mouth"):
            category, number = label(part)
            if not blurred or part == "hair":
                self.labels[category][window][masks[part][visible]] = number
        if blurred:
            self._blur(window, masks["face"][visible])
        return True

    def add_text(self, word: str, color: str | None = None, corner: int | None = None) -> None:
        """Write a word on a dark plate, in a corner of the image (0 to 3) or anywhere.

        The region of a text is its whole plate, not only the strokes.
        """
        color = color or tuple(COLORS)[self.draw(len(COLORS))]
        glyphs = word_mask(word)
        high, wide = glyphs.shape
        room = (SIZE - high, SIZE - wide)
        if corner is not None:
            top, left = (1 + (corner // 2) * (room[0] - 2), 1 + (corner % 2) * (room[1] - 2))
        else:
            top, left = self.draw(room[0] + 1), self.draw(room[1] + 1)
        center = (left + wide // 2, top + high // 2)
        dark = self.draw(10)
        item = Item("text", None, color, None, word, (0, 0, 0, 0), 0)
        mask = np.ones(glyphs.shape, dtype=bool)
        window, _ = self._add(item, mask, center, ("text", color), corner=(left, top))
        self.image[window] = 8 + dark
        self.image[window][glyphs] = COLORS[color]

    def scene(self, source_id: str) -> Scene:
        """Return the scene that was drawn, with noise."""
        noise = self._generator.integers(-NOISE, NOISE + 1, (SIZE, SIZE, 1), dtype=np.int16)
        image = np.clip(self.image + noise, 0, 255).astype(np.uint8)
        counts = np.bincount(self.instances.ravel(), minlength=len(self._items) + 1)
        items = tuple(
            item._replace(pixels=int(count))
            for item, count in zip(self._items, counts[1:], strict=True)
        )
        return Scene(source_id, image, self.labels, self.instances, self._background, items)

    def _find_room(self, wide: int, high: int) -> tuple[int, int] | None:
        """Reserve room for an item, `wide` and `high` from its centre to its edges.

        Returns:
            Its centre; None after 12 attempts.
        """
        for _ in range(12):
            x = wide + self.draw(SIZE - 2 * wide)
            y = high + self.draw(SIZE - 2 * high)
            reach = max(wide, high)
            # centres are .89 of the sum of the radii apart: items may overlap a little
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
        """Add an item to labels, instances and graph.

        Args:
            item: without its box.
            mask: its pixels.
            center: where the centre of the mask lies; parts may lie outside of the scene.
            concepts: its labels. Labels of whatever it hides are removed.
            corner: left and top of the mask, instead of `center`.

        Returns:
            The window of the scene that the mask covers, and that part of the mask.
        """
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
            category, number = label(concept)
            self.labels[category][window][mask] = number
        self.instances[window][mask] = len(self._items) + 1
        box = (window[1].start, window[0].start, right, bottom)
        self._items.append(item._replace(box=box))
        return window, visible

    def _blur(self, window: tuple[slice, slice], mask: Mask) -> None:
        """Replace the masked pixels by the mean of the 9 x 9 around them, in whole numbers."""
        padded = np.pad(self.image[window], ((4, 4), (4, 4), (0, 0)), mode="edge").astype(np.int32)
        # summed-area table: the sum over any box is that of four of its entries
        sums = np.pad(padded.cumsum(0).cumsum(1), ((1, 0), (1, 0), (0, 0)))
        blurred = (sums[9:, 9:] - sums[:-9, 9:] - sums[9:, :-9] + sums[:-9, :-9]) // 81
        self.image[window][mask] = blurred[mask]
