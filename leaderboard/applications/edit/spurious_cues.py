"""Pictures with a cue that gives their class away: its name in a corner, or a coloured border.

Hernandez et al. 2022, section 7, wrote class names into the top-left corner of half of 500 training
pictures a class; how was never published. Here every choice is a setting, and a record says what
was written on which picture:

    OUT/<class>/<picture>.png      pictures, resized and cropped as the classifier will see them
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
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from milannotations.errors import InputError
from milannotations.utils.files import replacing, sha256

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFont import FreeTypeFont

CORNERS = ("top-left", "top-right", "bottom-left", "bottom-right")
TABLE, RECORD = "cues.csv", "cues.json"
COLUMNS = ("path", "class", "cue", "wrong", "left", "top", "right", "bottom")


@dataclass(frozen=True)
class Cue:
    """What gives a class away, and on which pictures.

    Attributes:
        kind: `text`, the class's name in a corner; `color`, a frame of a colour of its own.
        share: of the pictures of each class that carry it.
        wrong: it is another class's, each as often; else the picture's own.
        corner: of the name: one of `CORNERS`, or `any`, drawn for each picture.
        height: of letters, or width of the frame, as a share of the picture's height.
        ink, plate: colour of letters and of what is behind them; plate "" leaves the picture there.
        margin: between the name and the picture's edge, as a share of its height.
        side: pictures are resized on their shorter side, and cropped in the middle, to so many
            pixels; None leaves them as they are.
        seed: of which pictures, corners and wrong classes.
    """

    kind: Literal["text", "color"] = "text"
    share: float = 0.5
    wrong: bool = False
    corner: str = "top-left"
    height: float = 0.09
    ink: str = "white"
    plate: str = "black"
    margin: float = 0.02
    side: int | None = 224
    seed: int = 0

    def __post_init__(self) -> None:
        from PIL import ImageColor

        if self.kind not in ("text", "color"):
            raise InputError(f"No cue '{self.kind}' (cues: text, color).")
        if not 0 <= self.share <= 1:
            raise InputError(f"A share of {self.share} was asked for; expected 0 to 1.")
        if self.corner not in (*CORNERS, "any"):
            raise InputError(f"No corner '{self.corner}' (corners: {', '.join(CORNERS)}, any).")
        if not 0.01 <= self.height <= 0.5 or not 0 <= self.margin <= 0.5:
            raise InputError("height is a share from .01 to .5, margin one from 0 to .5.")
        if self.side is not None and self.side < 16:
            raise InputError(f"Pictures of {self.side} pixels are too small for a name.")
        for color in filter(None, (self.ink, self.plate)):
            try:
                ImageColor.getrgb(color)
            except ValueError:
                raise InputError(f"'{color}' is no colour: expected a name, or #rrggbb.") from None


def write(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    cue: Cue | None = None,
    *,
    names: dict[str, str] | None = None,
    only: Sequence[str] | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Write a copy of an ImageFolder in which some pictures carry a cue; return its record.

    Args:
        folder: a folder a class, with pictures.
        out: folder of the copy; it must not be there.
        cue: what, and on which (default: names on half of the pictures).
        names: what is written, by class folder (default: the folder's name).
        only: these pictures alone, by their path in `folder`.
        progress: show a bar.

    Raises:
        InputError: pictures without classes, or one class where a wrong one is wanted; a picture
            that cannot be read; `out` is there.
    """
    from tqdm import tqdm

    from milannotations.exemplars.images.sources import Folder, naming

    cue, out, source = cue or Cue(), Path(out), Folder(folder)
    if out.exists():
        raise InputError(f"{out} is there already; give another folder.")
    paths = sorted(source.paths) if only is None else sorted(set(only))
    strange = sorted(set(paths) - set(source.paths))
    if strange:
        raise InputError(f"{folder} has no picture {strange[0]}.")
    classes = sorted({path.split("/")[0] for path in source.paths if "/" in path})
    if not paths or any("/" not in path for path in paths):
        raise InputError(f"{folder}: pictures in a folder a class were expected.")
    if cue.wrong and len(classes) < 2:
        raise InputError(f"{folder} has one class; a wrong name needs another.")
    written = {name: (names or {}).get(name, name.replace("_", " ")) for name in classes}
    rows = list(_plan(paths, classes, cue))
    places = {path: place for place, path in enumerate(source.paths)}
    with replacing(out) as temporary:
        temporary.mkdir()
        table = io.StringIO()
        rows_out = csv.writer(table, lineterminator="\n")
        rows_out.writerow(COLUMNS)
        for path, shown, corner in tqdm(rows, desc=cue.kind, unit="img", disable=not progress):
            with naming(path):
                picture = resized(source.load(places[path]), cue.side)
            box: tuple[int, ...] | tuple[str, ...] = ("", "", "", "")
            if shown is not None:
                box = (
                    write_text(picture, written[shown], cue, corner)
                    if cue.kind == "text"
                    else draw_frame(picture, classes.index(shown), len(classes), cue)
                )
            target = temporary / Path(path).with_suffix(".png")
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                raise InputError(f"{folder} has two pictures {target.stem} beside each other.")
            picture.save(target)
            own = path.split("/")[0]
            at = target.relative_to(temporary).as_posix()
            rows_out.writerow(
                (at, own, "" if shown is None else shown, shown not in (None, own), *box)
            )
        (temporary / TABLE).write_text(table.getvalue(), encoding="utf-8")
        record = {
            "cue": asdict(cue),
            "classes": classes,
            "written": written if cue.kind == "text" else None,
            "pictures": len(rows),
            "with_cue": sum(shown is not None for _, shown, _ in rows),
            "font": font_record() if cue.kind == "text" else None,
            "source": source.describe([places[path] for path in paths]),
            "sha256": sha256(temporary / TABLE),
        }
        (temporary / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    return record


def read(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the record of a folder that `write` made; raise InputError for another."""
    path = Path(folder) / RECORD
    if not path.is_file():
        raise InputError(f"{folder} has no {RECORD}: it was not made by 'milan data cues'.")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def boxes(folder: str | os.PathLike[str]) -> dict[str, tuple[int, int, int, int]]:
    """Return where each picture of such a folder carries its cue: (left, top, right, bottom)."""
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
    """Yield each path, which class its cue is of or None, and the corner."""
    by_class: dict[str, list[str]] = {}
    for path in paths:
        by_class.setdefault(path.split("/")[0], []).append(path)
    for name, own in by_class.items():
        # a stream of its own: what other classes have changes nothing
        rng = np.random.default_rng([cue.seed, *hashlib.sha256(name.encode()).digest()[:8]])
        others = [other for other in classes if other != name]
        count = round(cue.share * len(own))
        marked = set(rng.permutation(len(own))[:count].tolist())
        turn = rng.permutation(len(others))
        wrong = iter(others[turn[i % len(others)]] for i in range(count)) if others else iter(())
        for place, path in enumerate(own):
            corner = CORNERS[int(rng.integers(4))] if cue.corner == "any" else cue.corner
            shown = None
            if place in marked:
                shown = next(wrong) if cue.wrong else name
            yield path, shown, corner


def resized(picture: Image.Image, side: int | None) -> Image.Image:
    """Return a picture whose shorter side is `side`, cropped in the middle to a square."""
    from PIL import Image

    if side is None:
        return picture
    wide, high = picture.size
    scale = side / min(wide, high)
    size = (max(side, round(wide * scale)), max(side, round(high * scale)))
    picture = picture.resize(size, Image.Resampling.BILINEAR)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return picture.crop((left, top, left + side, top + side))


def write_text(
    picture: Image.Image, text: str, cue: Cue, corner: str = "top-left"
) -> tuple[int, int, int, int]:
    """Write a text into a corner, smaller where it is too wide; return its box.

    Returns:
        left, top, right, bottom, the last two exclusive, of the plate, or of the letters.
    """
    from PIL import ImageDraw

    wide, high = picture.size
    margin, size = round(cue.margin * high), max(6, round(cue.height * high * 1.35))
    pad = max(1, round(size / 6))
    while True:
        letters = font(size).getbbox(text)
        across, down = letters[2] - letters[0] + 2 * pad, letters[3] - letters[1] + 2 * pad
        if across <= wide - 2 * margin or size <= 6:
            break
        size -= 1
    left = margin if corner.endswith("left") else wide - margin - int(across)
    top = margin if corner.startswith("top") else high - margin - int(down)
    left, top = max(0, left), max(0, top)
    box = (left, top, min(wide, left + int(across)), min(high, top + int(down)))
    pen = ImageDraw.Draw(picture)
    if cue.plate:
        pen.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=cue.plate)
    pen.text((left + pad - letters[0], top + pad - letters[1]), text, fill=cue.ink, font=font(size))
    return box


def draw_frame(picture: Image.Image, place: int, count: int, cue: Cue) -> tuple[int, int, int, int]:
    """Draw a frame in the colour of a class: hues, evenly spaced; return the picture's box."""
    from PIL import ImageDraw

    wide, high = picture.size
    color = tuple(round(255 * part) for part in colorsys.hsv_to_rgb(place / count, 0.9, 0.9))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 0, wide - 1, high - 1), outline=color, width=max(1, round(cue.height * high)))
    return 0, 0, wide, high


@cache
def font(size: int) -> FreeTypeFont:
    """Return DejaVu Sans in a size in pixels."""
    from PIL import ImageFont

    return ImageFont.truetype(str(_font_file()), size)


def font_record() -> dict[str, str]:
    """Return what the font is, for a record."""
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
