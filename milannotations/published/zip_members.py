"""Files of a zip or a folder, read without unpacking and without trusting their content.

No name in a zip is ever used as a path, npy headers are read without pickle, and the sizes that a
zip states are bounded before anything is read.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from milannotations.errors import InputError
from milannotations.utils.files import sha256

MAX_BYTES = 64 << 30
"""Most bytes of all members of a zip, unpacked; the largest published archive has 15 GB."""

MAX_RATIO = 1100
"""Most bytes per compressed byte; deflate cannot exceed 1,032, and masks come near it."""

MAX_MEMBERS, MAX_TEXT = 10_000, 64 << 20
"""Most members of a zip; most bytes of a CSV."""

AGAIN = "Is it an incomplete download? Fetch the archive again."
_DAMAGE = (EOFError, zlib.error, zipfile.BadZipFile, struct.error, NotImplementedError)


class NpyHeader(NamedTuple):
    """Header of a .npy file, and the byte at which its numbers begin."""

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]
    begin: int

    @property
    def file_size(self) -> int:
        """Size of the whole file in bytes."""
        return self.begin + math.prod(self.shape) * self.dtype.itemsize


class Members:
    """Files of a zip, or of a folder and its subfolders, by name (`conv1/ids.csv`).

    Args:
        path: the zip or the folder.

    Attributes:
        sizes: bytes by name; folders are in it as `name/`. Files that desktops leave behind
            (`.DS_Store`, `__MACOSX`) are left out.

    Raises:
        InputError: no such file; the zip is damaged, or has a member that points out of it, is a
            link, comes twice, needs a password or is too large.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._zip = None if self.path.is_dir() else _open_zip(self.path)
        try:
            self.sizes = _folder_sizes(self.path) if self._zip is None else _zip_sizes(self._zip)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._zip is not None:
            self._zip.close()

    def name(self, member: str) -> str:
        """Return the name of a member in messages."""
        return f"{self.path}: {member}"

    @contextmanager
    def open(self, member: str) -> Iterator[IO[bytes]]:
        """Open a member for reading; damage that shows while it is read raises InputError."""
        try:
            with self._stream(member) as stream:
                yield stream
        except _DAMAGE as error:
            cause = str(error) or type(error).__name__
            raise InputError(f"{self.name(member)} is damaged ({cause}). {AGAIN}") from None

    def _stream(self, member: str) -> IO[bytes]:
        if self._zip is None:
            return (self.path / member).open("rb")
        try:
            return self._zip.open(member)
        except OSError as error:  # the zip states an impossible offset
            raise zipfile.BadZipFile(str(error)) from None

    def text(self, member: str) -> bytes:
        """Return the bytes of a small file.

        Raises:
            InputError: the file has more than `MAX_TEXT` bytes.
        """
        if self.sizes[member] > MAX_TEXT:
            raise InputError(
                f"{self.name(member)}: expected at most {MAX_TEXT:,} bytes, "
                f"got {self.sizes[member]:,}."
            )
        with self.open(member) as stream:
            return stream.read(MAX_TEXT)

    def header(self, member: str) -> NpyHeader:
        """Return the header of a .npy file whose size is the one that the header states.

        Raises:
            InputError: it is not a .npy file, holds Python objects, or has another size.
        """
        with self.open(member) as stream:
            header = _header(stream, self.name(member))
        if header.dtype.hasobject:
            raise InputError(f"{self.name(member)} holds Python objects; numbers were expected.")
        if self.sizes[member] != header.file_size:
            raise InputError(
                f"{self.name(member)}: its header states {header.file_size:,} bytes, "
                f"got {self.sizes[member]:,}. {AGAIN}"
            )
        return header

    def rows(self, member: str) -> Iterator[NDArray[Any]]:
        """Yield the rows of a .npy file along its first axis, one at a time.

        Raises:
            InputError: see `header`; the file is damaged or ends early. The checksum in a zip is
                compared once a row after the last one is asked for.
        """
        header = self.header(member)
        size = math.prod(header.shape[1:]) * header.dtype.itemsize
        with self.open(member) as stream:
            stream.read(header.begin)
            for _ in range(header.shape[0]):
                content = stream.read(size)
                if len(content) != size:
                    raise InputError(f"{self.name(member)} ends before its last row. {AGAIN}")
                yield np.frombuffer(content, dtype=header.dtype).reshape(header.shape[1:])
            if stream.read(1):
                raise InputError(f"{self.name(member)} continues after its last row. {AGAIN}")

    def source(self) -> dict[str, Any]:
        """Return the provenance for records: name, bytes and, of a zip, its sha256."""
        if self._zip is None:
            total = sum(self.sizes.values())
            return {"name": self.path.resolve().name, "bytes": total, "sha256": None}
        size = self.path.stat().st_size
        return {"name": self.path.name, "bytes": size, "sha256": sha256(self.path)}

    def stamp(self) -> str:
        """Return a digest of names, sizes and times, which changes if the files do."""
        files = [self.path] if self._zip else [self.path / name for name in sorted(self.sizes)]
        states = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return hashlib.sha256(repr(states).encode()).hexdigest()


def _header(stream: IO[bytes], name: str) -> NpyHeader:
    try:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"npy version {version}; expected (1, 0)")
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    except (ValueError, SyntaxError, TypeError) as error:
        cause = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InputError(f"{name} is not a .npy file of numbers: {cause}") from None
    return NpyHeader(shape, is_fortran, dtype, stream.tell())


def _is_junk(name: str) -> bool:
    """Return True for a file that desktops leave behind, or in a hidden folder."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _folder_sizes(folder: Path) -> dict[str, int]:
    """Return bytes by file name, two levels deep; a folder has the name `name/` and 0 bytes."""
    sizes: dict[str, int] = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            sizes[f"{path.name}/"] = 0
            inside = [*path.iterdir(), *path.glob("*/masks.npy")]
            sizes.update(
                (file.relative_to(folder).as_posix(), file.stat().st_size)
                for file in inside
                if file.is_file()
            )
        else:
            sizes[path.name] = path.stat().st_size
    return {name: size for name, size in sizes.items() if not _is_junk(name)}


def _open_zip(path: Path) -> zipfile.ZipFile:
    if not path.exists():
        raise InputError(
            f"No such file: {path}. Expected a published zip, or the folder with its content."
        )
    try:
        return zipfile.ZipFile(path)
    except (*_DAMAGE, ValueError) as error:
        size = path.stat().st_size
        raise InputError(f"{path} ({size:,} bytes) is not a whole zip: {error}. {AGAIN}") from None


def _zip_sizes(archive: zipfile.ZipFile) -> dict[str, int]:
    """Return bytes by member name; raise InputError for what no published archive has."""
    members = archive.infolist()
    path = archive.filename

    def refusal(reason: str) -> InputError:
        return InputError(f"{path} {reason}. It is not as published; fetch it again, or unpack it.")

    if len(members) > MAX_MEMBERS:
        raise refusal(f"has {len(members):,} members, more than {MAX_MEMBERS:,}")
    twice = [name for name, count in Counter(m.filename for m in members).items() if count > 1]
    if twice:
        raise refusal(f"has the member {twice[0]!r} twice")
    for member in members:
        named = f"the member {member.filename[:100]!r}"
        name, mode = member.filename, member.external_attr >> 16
        if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
            raise refusal(f"has {named}, which points out of the archive")
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise refusal(f"has {named}, which is a link or a device")
        if member.flag_bits & 1:
            raise refusal(f"has {named}, which needs a password")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise refusal(f"has {named}, compressed in an unusual way ({member.compress_type})")
        if member.file_size > MAX_RATIO * max(member.compress_size, 1):
            raise refusal(
                f"has {named}, whose {member.compress_size:,} bytes would become "
                f"{member.file_size:,}: more than compression can do"
            )
    total = sum(member.file_size for member in members)
    if total > MAX_BYTES:
        raise refusal(f"would become {total:,} bytes, more than {MAX_BYTES:,}")
    # overlapping members share compressed bytes: a bomb whose parts are each within MAX_RATIO
    size = Path(path or "").stat().st_size
    if sum(member.compress_size for member in members) > size:
        raise refusal(f"has members that overlap: they need more than its {size:,} bytes")
    return {m.filename: m.file_size for m in members if not _is_junk(m.filename)}
