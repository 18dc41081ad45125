"""Restricted reader of the checkpoints of 2022, which runs nothing that is in them.

A checkpoint of 2022 is a zip of a pickle and the bytes of its tensors. A pickle is a program: it
may name any function of any module and have it called. `torch.load(weights_only=True)` refuses
these files, because their configs are of a class of spaCy's. So the pickle is interpreted here,
opcode by opcode, by a reader that cannot reach any module: it knows the few opcodes that
`torch.save` writes, builds dicts, lists, tuples, strings, numbers and tensors, and refuses every
other opcode and name.

Why not `torch.load(pickle_module=...)` with an Unpickler whose `find_class` is an allow-list: it
keeps the names out, but leaves the opcodes to C code. Measured with Python 3.11 and torch 2.x: 9
bytes that store to memo index 2^28 allocate 4 GB; 300 kB of tuples in one another, used as a key,
overflow the C stack and end the process; the number of opcodes has no bound; and storages of one
key in two types are accepted.

Every size that a file states is compared with the file before it is used.
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

MAX_OPCODES = 1_000_000
"""Most opcodes of a pickle; a checkpoint of ResNet-152 has thirty thousand."""

MAX_AXES = 8
"""Most axes of a tensor."""

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
"""Names of one class since 2021: a subclass of dict, read as a dict."""

DICT, BYTES = "collections.OrderedDict", "_codecs.encode"
TENSOR, PARAMETER = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"
KNOWN_NAMES = {*CONFIGS, DICT, BYTES, TENSOR, PARAMETER, *(f"torch.{name}" for name in DTYPES)}

# Opcodes as `pickletools` names them: constants, values that follow the opcode, containers.
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
    """Known name that a file mentions; nothing is ever imported by it."""

    name: str


def read(path: str | Path) -> Any:
    """Return the content of a checkpoint: tensors, numbers, strings and containers of them.

    Bytes (spaCy's own state) are left out.

    Args:
        path: zip that `torch.save` wrote, which it does since torch 1.6.

    Raises:
        InputError: the file is something else, is damaged, or states wrong sizes; it holds
            objects that the checkpoints of 2022 do not hold. None of them is made.
    """
    path = check_is_file(path)
    _check_kind(path)
    with _as_input_error(path), zipfile.ZipFile(path) as archive:
        folder = _folder(path, archive)
        return _PickleInterpreter(path, archive, folder).run()


def _check_kind(path: Path) -> None:
    """Raise InputError unless a file begins like a zip; say which other kind it is."""
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
        raise InputError(f"{path} is not a checkpoint: it begins with {head!r}. {expected}.")


@contextmanager
def _as_input_error(path: Path) -> Iterator[None]:
    """Turn the exceptions of a damaged zip or pickle into InputError."""
    try:
        yield
    except InputError:
        raise
    except _BROKEN_ZIP as error:
        cause = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path} is damaged ({_shown(cause)}); is the copy complete? Its size is "
            f"{path.stat().st_size:,} bytes."
        ) from None


def _folder(path: Path, archive: zipfile.ZipFile) -> str:
    """Return the name of the folder in a zip that torch.save wrote.

    Raises:
        InputError: the zip is not one of torch.save, or its sizes cannot be true.
    """
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
        raise InputError(f"{path} holds several files of one name, which torch.save never writes.")
    # torch.save neither compresses nor encrypts: what is read is never larger than the file
    packed = [m for m in members if m.compress_type != zipfile.ZIP_STORED or m.flag_bits & 1]
    if packed:
        raise InputError(
            f"{path} is compressed or encrypted ({_shown(packed[0].filename)}: "
            f"{packed[0].file_size:,} bytes in {packed[0].compress_size:,}); torch.save writes "
            "neither."
        )
    stated, size = sum(member.file_size for member in members), path.stat().st_size
    if stated > size or any(member.file_size != member.compress_size for member in members):
        raise InputError(
            f"{path} has {size:,} bytes, and states {stated:,} for the files in it. It is damaged, "
            "or made to fill the memory."
        )
    order = f"{roots[0]}/byteorder"
    if sys.byteorder != "little" or (order in names and archive.read(order) != b"little"):
        raise InputError(f"{path} and this machine must both be little-endian.")
    return roots[0]


class _PickleInterpreter:
    """Stack machine that interprets the pickle of a checkpoint.

    Attributes:
        stack: operands of the next opcodes.
        below: stacks under the current one. MARK puts the stack aside and begins a new one; the
            opcode that closes it takes all of the new one, and returns to the old one.
        memo: objects by the index under which the pickle stored them.
        storages: numbers of the members `data/KEY` by key.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile, folder: str) -> None:
        self.path, self.archive, self.folder = path, archive, folder
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Tensor] = {}

    def run(self) -> Any:
        """Return the object that the pickle builds."""
        program = self.archive.read(f"{self.folder}/data.pkl")
        for count, (opcode, argument, _) in enumerate(pickletools.genops(program)):
            if opcode.name == "STOP":
                return self._pop()
            if count >= MAX_OPCODES:
                raise self._wrong(f"more than {MAX_OPCODES:,} opcodes")
            self._execute(opcode.name, argument)
        raise self._wrong("no end")

    def _wrong(self, what: str) -> InputError:
        return InputError(
            f"{self.path} is damaged, or not a checkpoint of 2022: its pickle has {what}. Nothing "
            "in it was run."
        )

    def _refused(self, name: str) -> InputError:
        return InputError(
            f"{self.path}: refused {_shown(name)}, which may run code: a checkpoint of 2022 holds "
            "only tensors, numbers, strings and configs. Nothing in the file was run. Get it from "
            "the authors."
        )

    def _execute(self, opcode: str, argument: Any) -> None:
        """Execute an opcode; those that name, call or fill objects are in `_build`."""
        if opcode in _VALUES:
            self.stack.append(argument)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode])
        elif opcode in _EMPTY:
            self.stack.append(_EMPTY[opcode]())
        elif opcode in _TUPLES:
            parts = [self._pop() for _ in range(_TUPLES[opcode])]
            self.stack.append(tuple(reversed(parts)))
        elif opcode in ("PROTO", "FRAME"):
            pass
        elif opcode == "MARK":
            self.below.append(self.stack)
            self.stack = []
        elif opcode == "TUPLE":
            parts = self._above_mark()
            self.stack.append(tuple(parts))
        elif opcode in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if opcode == "MEMOIZE" else argument] = self._top()
        elif opcode in ("BINGET", "LONG_BINGET"):
            if argument not in self.memo:
                raise self._wrong("a memo reference that was never stored")
            self.stack.append(self.memo[argument])
        else:
            self._build(opcode, argument)

    def _build(self, opcode: str, argument: Any) -> None:
        """Execute the opcodes that name things, call them, or fill containers."""
        if opcode in ("GLOBAL", "INST"):
            self._push_name(".".join(argument.split(" ", 1)), opcode)
        elif opcode == "STACK_GLOBAL":
            name, module = self._pop(), self._pop()
            if not (isinstance(name, str) and isinstance(module, str)):
                raise self._wrong("a name that is not a string")
            self._push_name(f"{module}.{name}", opcode)
        elif opcode in ("REDUCE", "NEWOBJ"):
            arguments, called = self._pop(), self._pop()
            if not isinstance(called, _Name):
                raise self._refused(f"a call of a {type(called).__name__}")
            if not isinstance(arguments, tuple):
                raise self._wrong("a call without arguments")
            self.stack.append(self._call(called.name, arguments))
        elif opcode == "BUILD":
            # attributes of a config or of a state dict, which nothing needs
            self._pop()
            if not isinstance(self._top(), dict):
                raise self._refused(f"attributes of a {type(self._top()).__name__}")
        elif opcode == "BINPERSID":
            self.stack.append(self._storage(self._pop()))
        elif opcode in ("SETITEM", "SETITEMS", "APPEND", "APPENDS"):
            parts = self._above_mark() if opcode.endswith("S") else [self._pop()]
            if opcode == "SETITEM":
                parts.insert(0, self._pop())
            self._fill(opcode, parts)
        else:
            raise self._refused(f"the opcode {opcode}")

    def _fill(self, opcode: str, parts: list[Any]) -> None:
        """Append parts to the list on top, or put keys and values into the dict there."""
        target = self._top()
        if opcode.startswith("APPEND"):
            if type(target) is not list:
                raise self._wrong(f"a {type(target).__name__} that is appended to")
            target.extend(parts)
            return
        keys = parts[::2]
        if type(target) is not dict or len(parts) % 2:
            raise self._wrong(f"a {type(target).__name__} with keys")
        # strings only: hashing a tuple of tuples of tuples would overflow the C stack
        if not all(type(key) is str for key in keys):
            raise self._wrong("keys that are not strings")
        target.update(zip(keys, parts[1::2], strict=True))

    def _push_name(self, name: str, opcode: str) -> None:
        if name not in KNOWN_NAMES or opcode == "INST":
            raise self._refused(name)
        self.stack.append(_Name(name))

    def _call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """Return what a call of a known name makes, by code of ours: nothing is looked up."""
        if name in CONFIGS or name == DICT:
            if arguments:
                raise self._wrong(f"a {name} with arguments")
            return {}
        if name == BYTES:
            if len(arguments) != 2 or arguments[1] != "latin1" or type(arguments[0]) is not str:
                raise self._refused(f"{BYTES} of anything but a text in latin1")
            # spaCy's state, which nothing needs. Encoding it would copy a text as often as the
            # file says, and fill the memory.
            return b""
        if name == TENSOR and len(arguments) in (6, 7):
            return self._tensor(*arguments[:4])
        if name == PARAMETER and len(arguments) == 3 and isinstance(arguments[0], Tensor):
            return arguments[0]
        raise self._refused(f"a call of {name}")

    def _storage(self, what: Any) -> Tensor:
        """Return the numbers of a member `data/KEY`.

        Args:
            what: ("storage", type, key, device, number of elements), as torch.save writes it.

        Raises:
            InputError: `what` is something else; the member is missing or has another size.
        """
        if not (
            isinstance(what, tuple)
            and len(what) == 5
            and type(what[0]) is str
            and what[0] == "storage"
            and isinstance(what[1], _Name)
            and what[1].name.removeprefix("torch.") in DTYPES
            and type(what[2]) is str
            and type(what[4]) is int
        ):
            raise self._wrong("a storage id that torch does not write")
        _, kind, key, _, count = what
        dtype = DTYPES[kind.name.removeprefix("torch.")]
        member = f"{self.folder}/data/{key}"
        numbers = self.storages.get(key)
        if numbers is None:
            try:
                info = self.archive.getinfo(member)
            except KeyError:
                raise self._wrong(f"a storage without its file {_shown(member)}") from None
            content = bytearray(self.archive.read(info))
            if len(content) != count * dtype.itemsize:
                raise self._wrong(
                    f"a storage of {count:,} numbers ({dtype}) in a file of {len(content):,} bytes"
                )
            numbers = (
                torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
            )
            self.storages[key] = numbers
        if numbers.dtype != dtype or len(numbers) != count:
            raise self._wrong("a storage of two types or sizes")
        return numbers

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any) -> Tensor:
        """Return a view of a storage, once its last element is known to lie inside.

        Raises:
            InputError: the sizes are invalid, or reach beyond the storage.
        """
        valid = all(
            isinstance(numbers, tuple)
            and len(numbers) <= MAX_AXES
            and all(type(n) is int and 0 <= n < 1 << 40 for n in numbers)
            for numbers in (size, stride, (offset,))
        )
        if not valid or not isinstance(storage, Tensor) or len(size) != len(stride):
            raise self._wrong("invalid sizes of a tensor")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if 0 not in size and last >= storage.numel():
            raise self._wrong(
                f"a tensor of {' x '.join(map(str, size))} beyond its {storage.numel():,} numbers"
            )
        if 0 in size:
            return torch.empty(size, dtype=storage.dtype)
        try:
            return storage.as_strided(size, stride, offset)
        except RuntimeError:  # more elements in all than 64 bits count
            raise self._wrong("a tensor larger than any memory") from None

    def _pop(self) -> Any:
        if not self.stack:
            raise self._wrong("an opcode with too few operands")
        return self.stack.pop()

    def _top(self) -> Any:
        if not self.stack:
            raise self._wrong("an opcode with too few operands")
        return self.stack[-1]

    def _above_mark(self) -> list[Any]:
        """Return the operands since the last MARK, and return to the stack under it."""
        if not self.below:
            raise self._wrong("no MARK to return to")
        parts, self.stack = self.stack, self.below.pop()
        return parts


def _shown(text: str) -> str:
    """Return a text from a file for a message: shortened, without terminal control codes."""
    return ascii(text[:100])[1:-1]
