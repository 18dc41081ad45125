"""Pixels for networks whose published archives point into the ImageNet validation pictures.

An id counts the pictures of a torchvision `ImageFolder`: class folders sorted by name, files
sorted inside each (2022 format, `ids.csv`). Masks were made on pictures whose shorter side was
resized to 256 and whose centre was cropped to 224; the 2022 merge squashed the whole picture
instead, so that masks did not fit.

Listing, resizing and cropping are those of torchvision on PIL pictures, done with PIL alone:
importing torch costs more memory than the conversion of an archive may take. Tests hold
them to torchvision's, byte by byte.
"""

from __future__ import annotations

import os
import random
import re
import tempfile
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from milannotations.errors import InputError, some
from milannotations.utils.check_result import CheckResult

if TYPE_CHECKING:
    from PIL import Image

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""What `ImageFolder` takes for a picture, in any case."""

EXPECTED = (1000, 50)
"""Classes of the ImageNet validation set, and pictures in each."""

KEPT = 64 << 20
"""Bytes of cut pictures kept: 445 of 224 pixels, those of 29 units of 15 without a repeat."""

_SYNSET = re.compile(r"n\d{8}")
_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.[A-Za-z]+")

Picture = NDArray[np.uint8]


def list_images(folder: str | os.PathLike[str]) -> list[str]:
    """Return the pictures of an `ImageFolder`, relative to `folder`, in the order of their ids.

    Raises:
        InputError: no such folder, or no picture in a folder inside it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"No such folder of pictures: {folder}")
    found = []
    for name in sorted(entry.name for entry in os.scandir(root) if entry.is_dir()):
        for at, _, files in sorted(os.walk(root / name, followlinks=True)):
            inside = os.path.relpath(at, root)
            found += [
                os.path.join(inside, file)
                for file in sorted(files)
                if file.lower().endswith(EXTENSIONS)
            ]
    if not found:
        raise InputError(
            f"{folder} has no class folders with pictures in them. "
            f"What is wrong: milan doctor --images {folder}"
        )
    return found


def shorter_side(side: int) -> int:
    """Return the shorter side of the picture that a crop of `side` was cut from.

    Example:
        >>> shorter_side(224), shorter_side(32)
        (256, 37)
    """
    return round(side * 256 / 224)


def crop(picture: Image.Image, side: int, *, legacy_squash: bool = False) -> Picture:
    """Return the part of an RGB picture that masks of `side` pixels were made on.

    Torchvision's `Resize(shorter_side(side))` (bilinear, antialiased) and `CenterCrop(side)`;
    with `legacy_squash` its `Resize((side, side))`, as in the merge of 2022.

    Returns:
        (side, side, 3), uint8, read-only.
    """
    from PIL import Image

    high, wide, left, top = side, side, 0, 0
    if not legacy_squash:
        short = shorter_side(side)
        least = min(picture.size)
        wide, high = (
            short if length == least else int(short * length / least) for length in picture.size
        )
        left, top = round((wide - side) / 2), round((high - side) / 2)
    if picture.size != (wide, high):
        picture = picture.resize((wide, high), Image.Resampling.BILINEAR)
    pixels = np.array(picture, dtype=np.uint8)[top : top + side, left : left + side].copy()
    pixels.flags.writeable = False
    return pixels


class ImageNetImages:
    """The pictures that ids of an `ImageFolder` point at, cut as their masks were.

    Pictures are decoded in threads (Pillow lets go of the interpreter while it decodes and
    resizes; processes were no faster). Each is decoded once a call: what memory cannot keep and
    a later id of the call asks for waits in a temporary file (on a full disk it is decoded again).
    What is kept serves later calls too.
    Memory: `KEPT`, a few cut pictures a worker, and one whole picture a worker, whatever the
    number of ids. Disk: at most one cut picture (150 kB at 224 pixels) for each that recurs.

    Args:
        folder: the validation pictures in class folders.
        workers: threads; None takes one a core.
        legacy_squash: see `crop`.

    Raises:
        InputError: see `list_images`.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        workers: int | None = None,
        legacy_squash: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.paths = list_images(folder)
        self.workers = workers or os.cpu_count() or 1
        self.legacy_squash = legacy_squash
        self.decoded = 0
        self._kept: OrderedDict[tuple[int, int], Picture] = OrderedDict()
        self._n_kept = 0

    def __len__(self) -> int:
        return len(self.paths)

    def pictures(self, ids: Sequence[int], side: int) -> Iterator[Picture]:
        """Yield the picture of every id, in order.

        The more ids in a call, the better workers are used: give a layer's.

        Args:
            ids: positions in the folder, from 0; repeats are cheap.
            side: of the masks, in pixels.

        Yields:
            (side, side, 3), uint8, read-only.

        Raises:
            InputError: an id is not in the folder (before anything is decoded); a picture is
                missing or damaged (when it is reached).
        """
        wanted = [int(i) for i in ids]
        beyond = [i for i in wanted if not 0 <= i < len(self)]
        if beyond:
            raise InputError(
                f"{self.folder} has the pictures 0 to {len(self) - 1:,}; ids point at "
                f"{some(sorted(set(beyond)))}. What is wrong: milan doctor --images {self.folder}"
            )
        return self._stream(wanted, side)

    def _stream(self, ids: list[int], side: int) -> Iterator[Picture]:
        left = Counter(ids)
        pending: dict[int, Future[Picture]] = {}
        ahead: deque[tuple[int, Future[Picture] | Picture]] = deque()
        coming = iter(ids)
        pool, spilt = ThreadPoolExecutor(self.workers), _Spill(side)
        try:
            while True:
                while len(ahead) < 4 * self.workers and (index := next(coming, None)) is not None:
                    left[index] -= 1
                    made: Future[Picture] | Picture | None = self._kept.get((index, side))
                    if made is not None:
                        self._kept.move_to_end((index, side))
                    elif (made := spilt.get(index, last=not left[index])) is None:
                        if index not in pending:
                            pending[index] = pool.submit(self._picture, index, side)
                            self.decoded += 1
                        made = pending[index]
                    ahead.append((index, made))
                if not ahead:
                    return
                index, made = ahead.popleft()
                if isinstance(made, Future):
                    made = made.result()
                    if pending.pop(index, None) is not None:
                        self._keep((index, side), made, left, spilt)
                yield made
        finally:
            pool.shutdown(cancel_futures=True)
            spilt.close()

    def _keep(
        self, key: tuple[int, int], picture: Picture, left: Counter[int], spilt: _Spill
    ) -> None:
        self._kept[key] = picture
        self._n_kept += picture.nbytes
        while self._n_kept > KEPT:
            (index, side), oldest = self._kept.popitem(last=False)
            self._n_kept -= oldest.nbytes
            if side == key[1] and left[index]:
                spilt.put(index, oldest)

    def _picture(self, index: int, side: int) -> Picture:
        path = self.folder / self.paths[index]
        try:
            return crop(_opened(path), side, legacy_squash=self.legacy_squash)
        except FileNotFoundError:
            raise InputError(f"{path} (id {index}) is gone since the folder was read.") from None
        except _UNREADABLE as error:
            raise InputError(
                f"{path} (id {index}) cannot be read: {error}. Put a good copy in its place."
            ) from None


class _Spill:
    """Cut pictures of one side that memory has no room for, in a file without a name."""

    def __init__(self, side: int) -> None:
        self.shape = (side, side, 3)
        self.slots: dict[int, int] = {}
        self.free: list[int] = []
        self.file: IO[bytes] | None = None

    def put(self, index: int, picture: Picture) -> None:
        slot = self.free[-1] if self.free else len(self.slots)
        try:
            if self.file is None:
                self.file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
            self.file.seek(slot * picture.nbytes)
            if self.file.write(picture.tobytes()) != picture.nbytes:
                return
        except OSError:
            return  # no room: it is decoded again
        self.slots[index] = slot
        if self.free:
            self.free.pop()

    def get(self, index: int, *, last: bool) -> Picture | None:
        """Return a picture that was put here, and forget it if this is its last use."""
        slot = self.slots.get(index)
        if slot is None or self.file is None:
            return None
        if last:
            del self.slots[index]
            self.free.append(slot)
        size = int(np.prod(self.shape))
        self.file.seek(slot * size)
        return np.frombuffer(self.file.read(size), dtype=np.uint8).reshape(self.shape)

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


def _opened(path: Path) -> Image.Image:
    """Return a picture in RGB, as ImageFolder's loader does: grey, CMYK and palette too."""
    from PIL import Image

    try:
        with open(path, "rb") as stream:
            return Image.open(stream).convert("RGB")
    except Image.DecompressionBombError as error:
        raise ValueError(error) from None


_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError)
"""What Pillow raises for damaged pictures."""


# --- what can be wrong with a folder


def check_folder(
    folder: str | os.PathLike[str],
    expected: tuple[int, int] = EXPECTED,
    *,
    sample: int = 64,
    seed: int = 0,
) -> list[CheckResult]:
    """Say whether a folder holds the validation pictures in the order that ids count in.

    Args:
        folder: the validation pictures in class folders.
        expected: classes, and pictures in each.
        sample: pictures to decode, drawn with `seed`.

    Returns:
        One result per question; none raises. The first that is wrong may be the only one.
    """
    root = Path(folder)
    try:
        layout = _layout(root)
        if not layout.passed:
            return [layout]
        paths = list_images(root)
        return [
            layout,
            _classes(root, expected[0]),
            _counts(root, paths, expected),
            _names(paths, expected),
            _strays(root, paths),
            _readable(root, paths, sample, seed),
        ]
    except (InputError, OSError) as error:
        return [CheckResult.of("layout", False, str(error))]


def _layout(root: Path) -> CheckResult:
    if root.is_file():
        says = f"{root} is a file; unpack it and name the folder"
    elif not root.is_dir():
        says = f"no such folder: {root}"
    elif any(_SYNSET.fullmatch(name) for name in _folders(root)):
        return CheckResult.of("layout", True, f"class folders in {root}")
    elif (inner := _nested(root)) is not None:
        says = f"the class folders are further in: --images {inner}"
    elif flat := [name for name in os.listdir(root) if name.lower().endswith(EXTENSIONS)]:
        says = (
            f"{len(flat):,} pictures lie side by side in {root}. Sort them into class folders "
            "(n01440764, n01443537, ...), as the well-known script valprep.sh does"
        )
    else:
        says = f"{root} has no class folders (n01440764, n01443537, ...)"
    return CheckResult.of("layout", False, says)


def _folders(root: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(root) if entry.is_dir())


def _nested(root: Path) -> Path | None:
    """Return a folder up to three levels in that has class folders; `val` before others."""
    level = [root]
    for _ in range(3):
        level = [at / name for at in level[:50] for name in _folders(at)]
        level.sort(key=lambda path: "val" not in path.name)
        for path in level[:50]:
            if any(_SYNSET.fullmatch(name) for name in _folders(path)):
                return path
    return None


def _classes(root: Path, expected: int) -> CheckResult:
    names = _folders(root)
    others = [name for name in names if not _SYNSET.fullmatch(name)]
    found = len(names) - len(others)
    says = f"{found:,} class folders"
    if found != expected:
        says += f"; {expected:,} were expected: is the folder complete?"
    if others:
        says += (
            f"; {some(others)} would count as classes and shift the ids behind them: move them out"
        )
    return CheckResult.of("classes", found == expected and not others, says)


def _counts(root: Path, paths: list[str], expected: tuple[int, int]) -> CheckResult:
    classes, each = expected
    counts = Counter(dict.fromkeys(_folders(root), 0))
    counts.update(Path(path).parts[0] for path in paths)
    odd = [f"{name} ({count})" for name, count in sorted(counts.items()) if count != each]
    says = f"{len(paths):,} pictures"
    if len(paths) != classes * each:
        says += f"; {classes * each:,} were expected"
    if odd:
        says += f"; not {each} in {some(odd)}"
    if len(paths) > 4 * classes * each:
        says += ". These look like the training pictures; the ids count validation pictures"
    elif odd:
        says += ". Every id behind the first odd class points at another picture"
    return CheckResult.of("counts", not odd and len(paths) == classes * each, says)


def _names(paths: list[str], expected: tuple[int, int]) -> CheckResult:
    matches = [_NAME.fullmatch(os.path.relpath(path, Path(path).parts[0])) for path in paths]
    strange = [path for path, match in zip(paths, matches, strict=True) if match is None]
    numbers = Counter(int(match[1]) for match in matches if match)
    twice = [f"{number:08d}" for number, count in sorted(numbers.items()) if count > 1]
    beyond = [f"{n:08d}" for n in sorted(numbers) if expected == EXPECTED and not 0 < n <= 50_000]
    wrong = []
    if strange:
        wrong.append(
            f"not named ILSVRC2012_val_00000001.JPEG and so on: {some(strange, 3)}. Files are "
            "counted in order of their names; remove what does not belong, give the rest their "
            "own names again"
        )
    if twice:
        wrong.append(f"there twice: {some(twice)}; remove the copies")
    if beyond:
        wrong.append(f"no number of the validation set: {some(beyond)}")
    says = "; ".join(wrong) or "as published, so that sorting gives the order of the ids"
    return CheckResult.of("names", not wrong, says)


def _strays(root: Path, paths: list[str]) -> CheckResult:
    counted = set(paths)
    strays = sorted(
        inside
        for at, _, files in os.walk(root, followlinks=True)
        for file in files
        if (inside := os.path.relpath(os.path.join(at, file), root)) not in counted
    )
    pictures = [path for path in strays if path.lower().endswith(EXTENSIONS)]
    if pictures:
        return CheckResult.of(
            "strays",
            False,
            f"pictures outside the class folders are not counted: {some(pictures, 3)}. Move each "
            "into its class folder",
        )
    if strays:
        return CheckResult.of("strays", True, f"not pictures, and passed over: {some(strays, 3)}")
    return CheckResult.of("strays", True, "none")


def _readable(root: Path, paths: list[str], sample: int, seed: int) -> CheckResult:
    drawn = sorted(random.Random(seed).sample(paths, min(sample, len(paths))))  # noqa: S311
    wrong, sizes = [], []
    for path in drawn:
        try:
            sizes.append(_opened(root / path).size)
        except _UNREADABLE as error:
            wrong.append(f"{path} ({error})")
    if wrong:
        says = f"{some(wrong, 3)} of {len(drawn)} drawn cannot be read; put good copies there"
        return CheckResult.of("readable", False, says)
    if len(drawn) > 9 and len({min(size) for size in sizes}) == 1:
        return CheckResult.of(
            "readable",
            False,
            f"all of {len(drawn)} drawn have a shorter side of {min(sizes[0])} pixels: somebody "
            "has resized them. Pixels will differ from those the network saw"
            + (", and masks will not fit" if len(set(sizes)) == 1 else "")
            + "; use the original pictures",
        )
    return CheckResult.of("readable", True, f"{len(drawn)} pictures drawn and decoded")
