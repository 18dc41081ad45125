"""Images of archives that refer to the ImageNet validation set by id, and checks of its folder.

An id is an index into a torchvision `ImageFolder`: class folders sorted by name, files sorted
within each (2022 format, `ids.csv`). Masks were computed on images whose shorter side was resized
to 256 and whose centre was cropped to 224. The 2022 merge resized the whole image instead, so
that masks did not fit.

Listing, resizing and cropping are those of torchvision on PIL images, written with PIL alone:
importing torch takes more memory than the whole conversion may. Tests compare them with
torchvision byte by byte.
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
"""File name extensions of `ImageFolder`, in lower case."""

EXPECTED = (1000, 50)
"""Number of classes of the ImageNet validation set, and of images per class."""

CACHE_BYTES = 64 << 20
"""Bytes of crops kept in memory: 445 of 224 pixels, the exemplars of 29 units without a repeat."""

_SYNSET = re.compile(r"n\d{8}")
_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.[A-Za-z]+")

Crop = NDArray[np.uint8]


def list_images(folder: str | os.PathLike[str]) -> list[str]:
    """Return the images of an `ImageFolder`, relative to `folder`, in the order of their ids.

    Raises:
        InputError: no such folder, or no image in a folder inside it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"No such folder of images: {folder}")
    paths = []
    for name in sorted(entry.name for entry in os.scandir(root) if entry.is_dir()):
        for parent, _, files in sorted(os.walk(root / name, followlinks=True)):
            inside = os.path.relpath(parent, root)
            paths += [
                os.path.join(inside, file)
                for file in sorted(files)
                if file.lower().endswith(EXTENSIONS)
            ]
    if not paths:
        raise InputError(
            f"{folder} has no class folders with images in them. "
            f"To find out more: milan doctor --images {folder}"
        )
    return paths


def shorter_side(side: int) -> int:
    """Return the shorter side of the resized image that a crop of `side` pixels is taken from.

    Example:
        >>> shorter_side(224), shorter_side(32)
        (256, 37)
    """
    return round(side * 256 / 224)


def crop(image: Image.Image, side: int, *, legacy_squash: bool = False) -> Crop:
    """Crop an RGB image to the part that masks of `side` pixels were computed on.

    Torchvision's `Resize(shorter_side(side))` (bilinear, antialiased) and `CenterCrop(side)`; with
    `legacy_squash` its `Resize((side, side))`, as in the merge of 2022.

    Returns:
        (side, side, 3), uint8, read-only.
    """
    from PIL import Image

    height, width, left, top = side, side, 0, 0
    if not legacy_squash:
        # the rounding of torchvision: int() for the longer side, round() for the offsets
        short, shortest = shorter_side(side), min(image.size)
        width, height = (
            short if length == shortest else int(short * length / shortest) for length in image.size
        )
        left, top = round((width - side) / 2), round((height - side) / 2)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.array(image, dtype=np.uint8)[top : top + side, left : left + side].copy()
    pixels.flags.writeable = False
    return pixels


class ImageNetImages:
    """Images of an `ImageFolder` by id, cropped like their masks.

    Images are decoded in threads (Pillow releases the interpreter lock while it decodes and
    resizes; processes were no faster). Each image is decoded once per call. Crops that memory
    cannot hold and that a later id of the call needs wait in a temporary file; on a full disk they
    are decoded again. Crops in memory also serve later calls.

    Memory: `CACHE_BYTES`, a few crops per worker, and one whole image per worker, whatever the
    number of ids. Disk: at most one crop (150 kB at 224 pixels) per image that recurs.

    Args:
        folder: the validation images in class folders.
        workers: number of threads; None takes one per core.
        legacy_squash: resize whole images to a square, as the merge of 2022 did, instead of
            cropping them like their masks.

    Attributes:
        decoded: number of images decoded so far.

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
        self._cache: OrderedDict[tuple[int, int], Crop] = OrderedDict()
        self._cache_bytes = 0

    def __len__(self) -> int:
        return len(self.paths)

    def crops(self, ids: Sequence[int], side: int) -> Iterator[Crop]:
        """Yield the crop of every id, in order.

        Workers are used better with many ids per call: pass those of a whole layer.

        Args:
            ids: indices into the folder, from 0; repeats are cheap.
            side: of the masks, in pixels.

        Yields:
            (side, side, 3), uint8, read-only.

        Raises:
            InputError: an id is not in the folder (before anything is decoded); an image is
                missing or damaged (when it is reached).
        """
        indices = [int(i) for i in ids]
        beyond = [i for i in indices if not 0 <= i < len(self)]
        if beyond:
            raise InputError(
                f"{self.folder} has the images 0 to {len(self) - 1:,}, but there are ids such as "
                f"{some(sorted(set(beyond)))}. To find out more: milan doctor --images "
                f"{self.folder}"
            )
        return self._stream(indices, side)

    def _stream(self, indices: list[int], side: int) -> Iterator[Crop]:
        uses = Counter(indices)  # how often each index is still to be looked up
        pending: dict[int, Future[Crop]] = {}  # being decoded, by index
        queue: deque[tuple[int, Future[Crop] | Crop]] = deque()  # looked up, not yet yielded
        upcoming = iter(indices)
        pool, spill = ThreadPoolExecutor(self.workers), _Spill(side)
        try:
            while True:
                # Look up a few indices ahead, so that workers always have images to decode: in
                # memory, then on disk, then among those being decoded; else start decoding.
                while len(queue) < 4 * self.workers and (index := next(upcoming, None)) is not None:
                    uses[index] -= 1
                    result: Future[Crop] | Crop | None = self._cache.get((index, side))
                    if result is not None:
                        self._cache.move_to_end((index, side))
                    elif (result := spill.get(index, last=not uses[index])) is None:
                        if index not in pending:
                            pending[index] = pool.submit(self._decode, index, side)
                            self.decoded += 1
                        result = pending[index]
                    queue.append((index, result))
                if not queue:
                    return
                index, result = queue.popleft()
                if isinstance(result, Future):
                    result = result.result()
                    # several entries of the queue may share a future; the first one caches it
                    if pending.pop(index, None) is not None:
                        self._remember((index, side), result, uses, spill)
                yield result
        finally:
            pool.shutdown(cancel_futures=True)
            spill.close()

    def _remember(
        self, key: tuple[int, int], image: Crop, uses: Counter[int], spill: _Spill
    ) -> None:
        """Cache a crop; move the least recently used ones to disk if they are needed again."""
        self._cache[key] = image
        self._cache_bytes += image.nbytes
        while self._cache_bytes > CACHE_BYTES:
            (index, side), oldest = self._cache.popitem(last=False)
            self._cache_bytes -= oldest.nbytes
            if side == key[1] and uses[index]:
                spill.put(index, oldest)

    def _decode(self, index: int, side: int) -> Crop:
        path = self.folder / self.paths[index]
        try:
            return crop(_open_image(path), side, legacy_squash=self.legacy_squash)
        except FileNotFoundError:
            raise InputError(
                f"{path} (id {index}) was removed after the folder was read."
            ) from None
        except _UNREADABLE as error:
            raise InputError(
                f"{path} (id {index}) cannot be read: {error}. Replace it by a good copy."
            ) from None


class _Spill:
    """Temporary file of crops of one side that do not fit into memory.

    The file is a sequence of slots of equal size. A slot is reused after the last use of its crop.
    """

    def __init__(self, side: int) -> None:
        self.shape = (side, side, 3)
        self.slots: dict[int, int] = {}  # index of an image to its slot
        self.free: list[int] = []
        self.file: IO[bytes] | None = None

    def put(self, index: int, image: Crop) -> None:
        """Write a crop, unless the disk is full."""
        slot = self.free[-1] if self.free else len(self.slots)
        try:
            if self.file is None:
                self.file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
            self.file.seek(slot * image.nbytes)
            if self.file.write(image.tobytes()) != image.nbytes:
                return
        except OSError:
            return  # the disk is full: the image will be decoded again
        self.slots[index] = slot
        if self.free:
            self.free.pop()

    def get(self, index: int, *, last: bool) -> Crop | None:
        """Return a crop, None if it is not in the file; free its slot on the last use."""
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


def _open_image(path: Path) -> Image.Image:
    """Read an image of any mode (grey, CMYK, palette) as RGB, like the loader of ImageFolder."""
    from PIL import Image

    try:
        with open(path, "rb") as stream:
            return Image.open(stream).convert("RGB")
    except Image.DecompressionBombError as error:
        raise ValueError(error) from None


_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError)
"""Exceptions of Pillow for damaged images."""


# ---- checks of a folder


def check_folder(
    folder: str | os.PathLike[str],
    expected: tuple[int, int] = EXPECTED,
    *,
    sample: int = 64,
    seed: int = 0,
) -> list[CheckResult]:
    """Check that a folder holds the validation images in the order that ids refer to.

    Args:
        folder: the validation images in class folders.
        expected: number of classes, and of images per class.
        sample: number of images to decode, drawn with `seed`.
        seed: random seed of the draw.

    Returns:
        One result per check; errors are results, not exceptions. After a wrong layout there are no
        further results.
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
        message = f"{root} is a file; unpack it and give the folder"
    elif not root.is_dir():
        message = f"no such folder: {root}"
    elif any(_SYNSET.fullmatch(name) for name in _folders(root)):
        return CheckResult.of("layout", True, f"class folders in {root}")
    elif (inner := _find_classes(root)) is not None:
        message = f"the class folders are further inside: --images {inner}"
    elif flat := [name for name in os.listdir(root) if name.lower().endswith(EXTENSIONS)]:
        message = (
            f"{len(flat):,} images are directly in {root}. Sort them into class folders "
            "(n01440764, n01443537, ...), as the well-known script valprep.sh does"
        )
    else:
        message = f"{root} has no class folders (n01440764, n01443537, ...)"
    return CheckResult.of("layout", False, message)


def _folders(root: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(root) if entry.is_dir())


def _find_classes(root: Path) -> Path | None:
    """Return a folder up to three levels inside that has class folders; `val` before others."""
    level = [root]
    for _ in range(3):
        level = [folder / name for folder in level[:50] for name in _folders(folder)]
        level.sort(key=lambda path: "val" not in path.name)
        for path in level[:50]:
            if any(_SYNSET.fullmatch(name) for name in _folders(path)):
                return path
    return None


def _classes(root: Path, expected: int) -> CheckResult:
    names = _folders(root)
    others = [name for name in names if not _SYNSET.fullmatch(name)]
    n_classes = len(names) - len(others)
    message = f"{n_classes:,} class folders"
    if n_classes != expected:
        message += f"; expected {expected:,}. Is the folder complete?"
    if others:
        message += (
            f"; {some(others)} would count as classes and shift the ids after them: move them out"
        )
    return CheckResult.of("classes", n_classes == expected and not others, message)


def _counts(root: Path, paths: list[str], expected: tuple[int, int]) -> CheckResult:
    n_classes, per_class = expected
    counts = Counter(dict.fromkeys(_folders(root), 0))
    counts.update(Path(path).parts[0] for path in paths)
    odd = [f"{name} ({count})" for name, count in sorted(counts.items()) if count != per_class]
    message = f"{len(paths):,} images"
    if len(paths) != n_classes * per_class:
        message += f"; expected {n_classes * per_class:,}"
    if odd:
        message += f"; not {per_class} in {some(odd)}"
    if len(paths) > 4 * n_classes * per_class:
        message += ". These look like the training images; the ids refer to validation images"
    elif odd:
        message += ". Every id after the first such class refers to another image"
    return CheckResult.of("counts", not odd and len(paths) == n_classes * per_class, message)


def _names(paths: list[str], expected: tuple[int, int]) -> CheckResult:
    matches = [_NAME.fullmatch(os.path.relpath(path, Path(path).parts[0])) for path in paths]
    unusual = [path for path, match in zip(paths, matches, strict=True) if match is None]
    numbers = Counter(int(match[1]) for match in matches if match)
    repeated = [f"{number:08d}" for number, count in sorted(numbers.items()) if count > 1]
    beyond = [f"{n:08d}" for n in sorted(numbers) if expected == EXPECTED and not 0 < n <= 50_000]
    problems = []
    if unusual:
        problems.append(
            f"not named like ILSVRC2012_val_00000001.JPEG: {some(unusual, 3)}. Files are counted "
            "in the order of their names; remove files that do not belong here, and give the "
            "others their original names"
        )
    if repeated:
        problems.append(f"repeated: {some(repeated)}; remove the copies")
    if beyond:
        problems.append(f"not a number of the validation set: {some(beyond)}")
    message = "; ".join(problems) or "as published, so that sorting gives the order of the ids"
    return CheckResult.of("names", not problems, message)


def _strays(root: Path, paths: list[str]) -> CheckResult:
    counted = set(paths)
    strays = sorted(
        inside
        for parent, _, files in os.walk(root, followlinks=True)
        for file in files
        if (inside := os.path.relpath(os.path.join(parent, file), root)) not in counted
    )
    images = [path for path in strays if path.lower().endswith(EXTENSIONS)]
    if images:
        return CheckResult.of(
            "strays",
            False,
            f"images outside the class folders are not counted: {some(images, 3)}. Move each "
            "into its class folder",
        )
    if strays:
        return CheckResult.of("strays", True, f"not images, ignored: {some(strays, 3)}")
    return CheckResult.of("strays", True, "none")


def _readable(root: Path, paths: list[str], sample: int, seed: int) -> CheckResult:
    drawn = sorted(random.Random(seed).sample(paths, min(sample, len(paths))))  # noqa: S311
    unreadable, sizes = [], []
    for path in drawn:
        try:
            sizes.append(_open_image(root / path).size)
        except _UNREADABLE as error:
            unreadable.append(f"{path} ({error})")
    if unreadable:
        message = f"{some(unreadable, 3)} of {len(drawn)} drawn cannot be read; replace them"
        return CheckResult.of("readable", False, message)
    # originals have many sizes: one shorter side in all of them means that they were resized
    if len(drawn) > 9 and len({min(size) for size in sizes}) == 1:
        return CheckResult.of(
            "readable",
            False,
            f"all of {len(drawn)} drawn have a shorter side of {min(sizes[0])} pixels: they were "
            "resized. Pixels will differ from those the network saw"
            + (", and masks will not fit" if len(set(sizes)) == 1 else "")
            + "; use the original images",
        )
    return CheckResult.of("readable", True, f"{len(drawn)} images drawn and decoded")
