"""The files of 2022, read without running anything in them.

A checkpoint of 2022 is a zip of a pickle and the bytes of its tensors. A pickle is a program: it
may name any function of any module and have it called, and `torch.load(weights_only=True)` does
not read these files, whose configs are of a class of spaCy's. So here the pickle is followed
step by step by a reader that has no way to reach a module: it knows the few steps that
`torch.save` writes, makes dicts, lists, tuples, strings, numbers and tensors of them, and refuses
every other step and name, saying which. (A subclass of `pickle.Unpickler` with a list of
permitted names would leave the steps themselves to C code: places in its memo, attributes that
are set, keys that are hashed to any depth. All three can be made to exhaust or crash a process.)

Every size that a file states is compared with the file before it is believed.
"""

import pickletools
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from milannotations.errors import InputError, some
from milannotations.utils.files import check_is_file

STEPS = 1_000_000
"""Steps of a pickle that are followed; a checkpoint of ResNet-152 has thirty thousand."""

AXES = 8
DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
}
CONFIGS = ("thinc.config.Config", "confection.Config", "confection._config.Config")
"""One class, by its names from 2021 on: a dict, and read as one."""

DICT, BYTES = "collections.OrderedDict", "_codecs.encode"
TENSOR, PARAMETER = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"
KNOWN = {*CONFIGS, DICT, BYTES, TENSOR, PARAMETER, *(f"torch.{name}" for name in DTYPES)}

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_EMPTY: dict[str, type] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_BROKEN_ZIP = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError),
    *(RuntimeError, ValueError, IndexError, KeyError, OverflowError),  # NotImplementedError too
)


class _Name(NamedTuple):
    """A known name that a file mentions; nothing is looked up by it."""

    of: str


def read(path: str | Path) -> Any:
    """Return what a file of 2022 holds: tensors, numbers, strings and containers of them.

    Bytes (spaCy's own state) are left out.

    Args:
        path: what `torch.save` wrote, as a zip: since torch 1.6.

    Raises:
        InputError: it is something else, damaged, or states sizes that it has not; it holds
            objects beside those that the files of 2022 hold. None of them is made.
    """
    path = check_is_file(path)
    _check_kind(path)
    with _as_input_error(path), zipfile.ZipFile(path) as archive:
        folder = _folder(path, archive)
        return _Pickle(path, archive, folder).value()


def _check_kind(path: Path) -> None:
    with open(path, "rb") as stream:
        head = stream.read(24)
    expected = "Expected a checkpoint of 2022, a zip that torch.save wrote"
    if not head:
        raise InputError(f"{path} is empty. {expected}; is the copy complete?")
    if head.startswith(b"version https://git-lfs"):
        raise InputError(f"{path} is a pointer of Git LFS, not the file itself: git lfs pull")
    if head.startswith(b"\x80"):
        raise InputError(
            f"{path} is a bare pickle, as torch before 1.6 wrote them. {expected}. Where you "
            "trust it, load it with that torch's torch.load and save it again."
        )
    if not head.startswith(b"PK\x03\x04"):
        raise InputError(f"{path} is no checkpoint: it begins with {head!r}. {expected}.")


@contextmanager
def _as_input_error(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except _BROKEN_ZIP as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path} is damaged ({_shown(why)}); is the copy complete? Its size is "
            f"{path.stat().st_size:,} bytes."
        ) from None


def _folder(path: Path, archive: zipfile.ZipFile) -> str:
    """Return the folder in a zip that torch.save wrote, once what the zip states is credible."""
    members = archive.infolist()
    names = {member.filename for member in members}
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        raise InputError(
            f"{path} is a TorchScript program (torch.jit.save). Expected a checkpoint of 2022."
        )
    roots = [name.removesuffix("/data.pkl") for name in names if name.endswith("/data.pkl")]
    if len(roots) != 1 or "/" in roots[0]:
        raise InputError(
            f"{path} is a zip of {_shown(some(sorted(names), 3))}. Expected a checkpoint of 2022, "
            "which torch.save wrote: a folder of data.pkl and data/."
        )
    if len(names) != len(members):
        raise InputError(f"{path} holds several files of one name; torch.save writes none such.")
    packed = [m for m in members if m.compress_type != zipfile.ZIP_STORED or m.flag_bits & 1]
    if packed:
        raise InputError(
            f"{path} is packed or encrypted ({_shown(packed[0].filename)}: {packed[0].file_size:,} "
            f"bytes in {packed[0].compress_size:,}); torch.save writes neither."
        )
    stated, size = sum(member.file_size for member in members), path.stat().st_size
    if stated > size or any(member.file_size != member.compress_size for member in members):
        raise InputError(
            f"{path} has {size:,} bytes and states {stated:,} in its files: it is damaged, or made "
            "to fill the memory."
        )
    order = f"{roots[0]}/byteorder"
    if sys.byteorder != "little" or (order in names and archive.read(order) != b"little"):
        raise InputError(f"{path} and this machine must both be little-endian.")
    return roots[0]


class _Pickle:
    """Follows the steps of a pickle."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, folder: str) -> None:
        self.path, self.archive, self.folder = path, archive, folder
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        """Stacks that wait for the one above to be made a tuple or put into a dict."""
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Tensor] = {}

    def value(self) -> Any:
        """Return what the pickle makes."""
        program = self.archive.read(f"{self.folder}/data.pkl")
        for count, (opcode, argument, _) in enumerate(pickletools.genops(program)):
            if opcode.name == "STOP":
                return self._pop()
            if count >= STEPS:
                raise self._wrong(f"more than {STEPS:,} steps")
            self._follow(opcode.name, argument)
        raise self._wrong("no end")

    def _wrong(self, what: str) -> InputError:
        return InputError(
            f"{self.path} is damaged or no checkpoint of 2022: its pickle has {what}. Nothing in "
            "it was run."
        )

    def _refused(self, name: str) -> InputError:
        return InputError(
            f"{self.path}: refused {_shown(name)}: a checkpoint of 2022 holds tensors, numbers, "
            "strings and configs alone, and this may run code. Nothing in the file was run; get "
            "it from the authors."
        )

    def _follow(self, step: str, argument: Any) -> None:
        if step in _VALUES:
            self.stack.append(argument)
        elif step in _CONSTANTS:
            self.stack.append(_CONSTANTS[step])
        elif step in _EMPTY:
            self.stack.append(_EMPTY[step]())
        elif step in _TUPLES:
            parts = [self._pop() for _ in range(_TUPLES[step])]
            self.stack.append(tuple(reversed(parts)))
        elif step in ("PROTO", "FRAME"):
            pass
        elif step == "MARK":
            self.below.append(self.stack)
            self.stack = []
        elif step == "TUPLE":
            parts = self._above_mark()
            self.stack.append(tuple(parts))
        elif step in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if step == "MEMOIZE" else argument] = self._top()
        elif step in ("BINGET", "LONG_BINGET"):
            if argument not in self.memo:
                raise self._wrong("a reference to nothing")
            self.stack.append(self.memo[argument])
        else:
            self._make(step, argument)

    def _make(self, step: str, argument: Any) -> None:
        """Follow the steps that name things, and those that make or fill them."""
        if step in ("GLOBAL", "INST"):
            self._name(".".join(argument.split(" ", 1)), step)
        elif step == "STACK_GLOBAL":
            name, module = self._pop(), self._pop()
            if not (isinstance(name, str) and isinstance(module, str)):
                raise self._wrong("a name that is no text")
            self._name(f"{module}.{name}", step)
        elif step in ("REDUCE", "NEWOBJ"):
            arguments, called = self._pop(), self._pop()
            if not isinstance(called, _Name):
                raise self._refused(f"a call of a {type(called).__name__}")
            if not isinstance(arguments, tuple):
                raise self._wrong("a call without arguments")
            self.stack.append(self._called(called.of, arguments))
        elif step == "BUILD":
            self._pop()  # attributes of a config or of a state: nothing needs them
            if not isinstance(self._top(), dict):
                raise self._refused(f"attributes of a {type(self._top()).__name__}")
        elif step == "BINPERSID":
            self.stack.append(self._storage(self._pop()))
        elif step in ("SETITEM", "SETITEMS", "APPEND", "APPENDS"):
            parts = self._above_mark() if step.endswith("S") else [self._pop()]
            if step == "SETITEM":
                parts.insert(0, self._pop())
            self._fill(step, parts)
        else:
            raise self._refused(f"the step {step}")

    def _fill(self, step: str, parts: list[Any]) -> None:
        target = self._top()
        if step.startswith("APPEND"):
            if type(target) is not list:
                raise self._wrong(f"a {type(target).__name__} that is appended to")
            target.extend(parts)
            return
        keys = parts[::2]
        if type(target) is not dict or len(parts) % 2:
            raise self._wrong(f"a {type(target).__name__} with keys")
        if not all(type(key) is str for key in keys):
            raise self._wrong("keys that are no texts")
        target.update(zip(keys, parts[1::2], strict=True))

    def _name(self, name: str, step: str) -> None:
        if name not in KNOWN or step == "INST":
            raise self._refused(name)
        self.stack.append(_Name(name))

    def _called(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """Return what a known name makes: each by its own few lines, none by the name."""
        if name in CONFIGS or name == DICT:
            if arguments:
                raise self._wrong(f"a {name} with arguments")
            return {}
        if name == BYTES:
            if len(arguments) != 2 or arguments[1] != "latin1" or type(arguments[0]) is not str:
                raise self._refused(f"{BYTES} of anything but a text in latin1")
            return b""  # spaCy's state: a copy a call would be as many as a file likes
        if name == TENSOR and len(arguments) in (6, 7):
            return self._tensor(*arguments[:4])
        if name == PARAMETER and len(arguments) == 3 and isinstance(arguments[0], Tensor):
            return arguments[0]
        raise self._refused(f"a call of {name}")

    def _storage(self, what: Any) -> Tensor:
        """Return the numbers of a member `data/KEY`, once its size is the stated one."""
        if not (
            isinstance(what, tuple)
            and len(what) == 5
            and type(what[0]) is str
            and what[0] == "storage"
            and isinstance(what[1], _Name)
            and what[1].of.removeprefix("torch.") in DTYPES
            and type(what[2]) is str
            and type(what[4]) is int
        ):
            raise self._wrong("a storage that is none of torch's")
        _, kind, key, _, count = what
        dtype = DTYPES[kind.of.removeprefix("torch.")]
        member = f"{self.folder}/data/{key}"
        held = self.storages.get(key)
        if held is None:
            try:
                info = self.archive.getinfo(member)
            except KeyError:
                raise self._wrong(f"a storage without its file {_shown(member)}") from None
            content = bytearray(self.archive.read(info))
            if len(content) != count * dtype.itemsize:
                raise self._wrong(
                    f"a storage of {count:,} numbers ({dtype}) in a file of {len(content):,} bytes"
                )
            held = (
                torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
            )
            self.storages[key] = held
        if held.dtype != dtype or len(held) != count:
            raise self._wrong("a storage of two kinds or sizes")
        return held

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any) -> Tensor:
        """Return a view of a storage, once all of it lies inside."""
        whole = all(
            isinstance(numbers, tuple)
            and len(numbers) <= AXES
            and all(type(n) is int and 0 <= n < 1 << 40 for n in numbers)
            for numbers in (size, stride, (offset,))
        )
        if not whole or not isinstance(storage, Tensor) or len(size) != len(stride):
            raise self._wrong("a tensor that is none")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if 0 not in size and last >= storage.numel():
            raise self._wrong(
                f"a tensor of {' x '.join(map(str, size))} beyond its {storage.numel():,} numbers"
            )
        if 0 in size:
            return torch.empty(size, dtype=storage.dtype)
        try:
            return storage.as_strided(size, stride, offset)
        except RuntimeError:  # more numbers in all than 64 bits count
            raise self._wrong("a tensor that no memory holds") from None

    def _pop(self) -> Any:
        if not self.stack:
            raise self._wrong("a step that lacks something")
        return self.stack.pop()

    def _top(self) -> Any:
        if not self.stack:
            raise self._wrong("a step that lacks something")
        return self.stack[-1]

    def _above_mark(self) -> list[Any]:
        if not self.below:
            raise self._wrong("an end without a beginning")
        parts, self.stack = self.stack, self.below.pop()
        return parts


def _shown(text: str) -> str:
    """Return a text of a file for a message: short, and nothing that a terminal obeys."""
    return ascii(text[:100])[1:-1]
