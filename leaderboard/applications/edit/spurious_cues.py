"""Images with a cue that gives their class away: its name in a corner, or a colored frame.

Hernandez et al. 2022, section 7, wrote class names into the top-left corner of half of 500 training
images per class; how was never published. Here every choice is a setting, and a record says what
was written on which image:

    OUT/<class>/<image>.png        images, resized and cropped as the classifier will see them
    OUT/cues.csv                   path, class, cue ("" for none), wrong, left, top, right, bottom
    OUT/cues.json                  settings, versions, digests

The font is DejaVu Sans, which ships with matplotlib; its digest is in the record.
"""

from __future__ import annotations

import colorsys
import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from annotated_types import Ge

from milannotations.errors import InputError
from milannotations.utils.files import replacing, sha256
from milannotations.utils.progress import progress_bar

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFont import FreeTypeFont

CORNERS = ("top-left", "top-right", "bottom-left", "bottom-right")
TABLE, RECORD = "cues.csv", "cues.json"
COLUMNS = ("path", "class", "cue", "wrong", "left", "top", "right", "bottom")
NO_BOX = ("", "", "", "")


@dataclass(frozen=True)
class Cue:
    """A cue that gives a class away, and the images that carry it."""

    kind: Literal["text", "color"] = "text"
    """Kind of cue: `text`, the class's name in a corner; `color`, a frame in the class's color."""

    share: float = 0.5
    """Share of the images of each class that carry the cue (default: .5)."""

    wrong: bool = False
    """Write the cue of another class, each equally often, instead of the image's own."""

    corner: str = "top-left"
    """Corner of the name: top-left, top-right, bottom-left, bottom-right, any (one per image)."""

    height: float = 0.09
    """Height of letters, or width of the frame, as a share of the image's height (default: .09)."""

    ink: str = "white"
    """Color of letters (default: white)."""

    plate: str = "black"
    """Color behind the letters; empty leaves the image visible (default: black)."""

    margin: float = 0.02
    """Distance of the name from the image's edge, as a share of its height (default: .02)."""

    side: int | None = 224
    """Pixels that images are resized and center-cropped to; 0 leaves them (default: 224)."""

    seed: Annotated[int, Ge(0)] = 0
    """Random seed of images, corners and wrong classes (default: 0)."""

    def __post_init__(self) -> None:
        from PIL import ImageColor

        object.__setattr__(self, "side", self.side or None)  # 0 on the command line
        if self.kind not in ("text", "color"):
            raise InputError(f"No cue '{self.kind}' (cues: text, color).")
        if not 0 <= self.share <= 1:
            raise InputError(f"--share {self.share} is not a share; expected 0 to 1.")
        if self.corner not in (*CORNERS, "any"):
            raise InputError(f"No corner '{self.corner}' (corners: {', '.join(CORNERS)}, any).")
        if not 0.01 <= self.height <= 0.5 or not 0 <= self.margin <= 0.5:
            raise InputError(
                f"--height {self.height} and margin {self.margin}: expected shares of the image's "
                "height from .01 to .5 and from 0 to .5."
            )
        if self.side is not None and self.side < 16:
            raise InputError(
                f"--side {self.side} is too small for a name; expected at least 16 pixels."
            )
        for color in filter(None, (self.ink, self.plate)):
            try:
                ImageColor.getrgb(color)
            except ValueError:
                raise InputError(
                    f"'{color}' is not a color; expected a name, or #rrggbb."
                ) from None


def write(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    cue: Cue | None = None,
    *,
    names: dict[str, str] | None = None,
    only: Sequence[str] | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Write a copy of an ImageFolder in which some images carry a cue; return its record.

    Args:
        folder: images in ImageFolder layout (one folder per class).
        out: folder of the copy; it must not exist.
        cue: the cue, and the share of images (default: names on half of the images)
        names: text to write, by class folder (default: the folder's name)
        only: images to copy, by their path in `folder` (default: all)
        progress: show a progress bar.

    Raises:
        InputError: images without classes; one class where a wrong one is wanted; an image that
            cannot be read; `out` exists.
    """
    from milannotations.exemplars.images.decode import explain_read_errors
    from milannotations.exemplars.images.folder import FolderSource

    cue, out, source = cue or Cue(), Path(out), FolderSource(folder)
    if out.exists():
        raise InputError(f"{out} exists already; give another folder.")
    paths = sorted(source.paths) if only is None else sorted(set(only))
    unknown = sorted(set(paths) - set(source.paths))
    if unknown:
        raise InputError(f"{folder} has no image {unknown[0]}.")
    classes = sorted({path.split("/")[0] for path in source.paths if "/" in path})
    if not paths or any("/" not in path for path in paths):
        raise InputError(
            f"{folder} has images outside class folders; expected one folder per class."
        )
    if cue.wrong and len(classes) < 2:
        raise InputError(f"{folder} has one class; a wrong name needs another one.")
    texts = {name: (names or {}).get(name, name.replace("_", " ")) for name in classes}
    plan = list(_plan(paths, classes, cue))
    indices = {path: index for index, path in enumerate(source.paths)}
    with replacing(out) as temporary:
        temporary.mkdir()
        stream = io.StringIO()
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(COLUMNS)
        for path, cue_class, corner in progress_bar(
            plan, description=cue.kind, enabled=progress, unit="img"
        ):
            with explain_read_errors(path):
                image = resize_and_crop(source.load(indices[path]), cue.side)
            box: tuple[int, ...] | tuple[str, ...] = NO_BOX
            if cue_class is not None and cue.kind == "text":
                box = write_text(image, texts[cue_class], cue, corner)
            elif cue_class is not None:
                box = draw_frame(image, classes.index(cue_class), len(classes), cue)
            target = temporary / Path(path).with_suffix(".png")
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                raise InputError(f"{folder} has two images named {target.stem} in one folder.")
            image.save(target)
            image_class = path.split("/")[0]
            table.writerow(
                (
                    target.relative_to(temporary).as_posix(),
                    image_class,
                    "" if cue_class is None else cue_class,
                    cue_class not in (None, image_class),
                    *box,
                )
            )
        (temporary / TABLE).write_text(stream.getvalue(), encoding="utf-8")
        record = {
            "cue": asdict(cue),
            "classes": classes,
            "written": texts if cue.kind == "text" else None,
            "pictures": len(plan),
            "with_cue": sum(cue_class is not None for _, cue_class, _ in plan),
            "font": describe_font() if cue.kind == "text" else None,
            "source": source.describe([indices[path] for path in paths]),
            "sha256": sha256(temporary / TABLE),
        }
        (temporary / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    return record


def read(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the record of a folder that `write` made.

    Raises:
        InputError: another folder.
    """
    path = Path(folder) / RECORD
    if not path.is_file():
        raise InputError(f"{folder} has no {RECORD}: it was not made by 'milan data cues'.")
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def read_boxes(folder: str | os.PathLike[str]) -> dict[str, tuple[int, int, int, int]]:
    """Return the box of the cue on each image that carries one: (left, top, right, bottom)."""
    read(folder)
    with open(Path(folder) / TABLE, encoding="utf-8", newline="") as stream:
        return {
            row["path"]: tuple(int(row[edge]) for edge in COLUMNS[4:])  # type: ignore[misc]
            for row in csv.DictReader(stream)
            if row["cue"]
        }


def _plan(
    paths: Sequence[str], classes: Sequence[str], cue: Cue
) -> Iterator[tuple[str, str | None, str]]:
    """Yield each path, the class of its cue or None, and the corner."""
    by_class: dict[str, list[str]] = {}
    for path in paths:
        by_class.setdefault(path.split("/")[0], []).append(path)
    for name, members in by_class.items():
        # A stream of its own for each class, so that the images of other classes change nothing.
        rng = np.random.default_rng([cue.seed, *hashlib.sha256(name.encode()).digest()[:8]])
        others = [other for other in classes if other != name]
        count = round(cue.share * len(members))
        marked = set(rng.permutation(len(members))[:count].tolist())
        # Wrong classes are taken in turns from one random order, so that each comes equally often.
        turns = rng.permutation(len(others))
        wrong = iter(others[turns[i % len(others)]] for i in range(count)) if others else iter(())
        for index, path in enumerate(members):
            corner = CORNERS[int(rng.integers(4))] if cue.corner == "any" else cue.corner
            cue_class = None
            if index in marked:
                cue_class = next(wrong) if cue.wrong else name
            yield path, cue_class, corner


def resize_and_crop(image: Image.Image, side: int | None) -> Image.Image:
    """Resize an image so that its shorter side is `side`, and crop its center to a square."""
    from PIL import Image

    if side is None:
        return image
    width, height = image.size
    scale = side / min(width, height)
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return image.crop((left, top, left + side, top + side))


def write_text(
    image: Image.Image, text: str, cue: Cue, corner: str = "top-left"
) -> tuple[int, int, int, int]:
    """Write a text into a corner of an image, smaller where it is too wide; return its box.

    Returns:
        left, top, right, bottom of the plate, or of the letters; the last two are exclusive.
    """
    from PIL import ImageDraw

    width, height = image.size
    # a font of size 1.35 h has capital letters of about h pixels
    margin, size = round(cue.margin * height), max(6, round(cue.height * height * 1.35))
    padding = max(1, round(size / 6))
    while True:
        letters = load_font(size).getbbox(text)
        across, down = letters[2] - letters[0] + 2 * padding, letters[3] - letters[1] + 2 * padding
        if across <= width - 2 * margin or size <= 6:
            break
        size -= 1
    left = margin if corner.endswith("left") else width - margin - int(across)
    top = margin if corner.startswith("top") else height - margin - int(down)
    left, top = max(0, left), max(0, top)
    box = (left, top, min(width, left + int(across)), min(height, top + int(down)))
    draw = ImageDraw.Draw(image)
    if cue.plate:
        draw.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=cue.plate)
    # letters[0] and letters[1]: the font's offset of the first letter, taken back
    at = (left + padding - letters[0], top + padding - letters[1])
    draw.text(at, text, fill=cue.ink, font=load_font(size))
    return box


def draw_frame(image: Image.Image, index: int, count: int, cue: Cue) -> tuple[int, int, int, int]:
    """Draw a frame in the color of a class, from evenly spaced hues; return the image's box."""
    from PIL import ImageDraw

    width, height = image.size
    color = tuple(round(255 * part) for part in colorsys.hsv_to_rgb(index / count, 0.9, 0.9))
    draw = ImageDraw.Draw(image)
    line = max(1, round(cue.height * height))
    draw.rectangle((0, 0, width - 1, height - 1), outline=color, width=line)
    return 0, 0, width, height


@cache
def load_font(size: int) -> FreeTypeFont:
    """Return DejaVu Sans in a size in pixels."""
    from PIL import ImageFont

    return ImageFont.truetype(str(_font_file()), size)


def describe_font() -> dict[str, str]:
    """Return the font's name, digest and versions, for the record."""
    import matplotlib
    import PIL

    return {
        "name": "DejaVu Sans",
        "file": _font_file().name,
        "sha256": sha256(_font_file()),
        "matplotlib": matplotlib.__version__,
        "pillow": PIL.__version__,
    }


def _font_file() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
