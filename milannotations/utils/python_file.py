"""Loading of objects from a user's Python file: `path/to/file.py:name`."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from milannotations.errors import InputError, did_you_mean, some
from milannotations.utils.files import check_is_file

_SPEC = re.compile(r"(?P<path>.+\.py)(?::(?P<name>[^:]*))?", re.DOTALL)

_neighbours: dict[str, Path] = {}
"""Folders of modules that users' files imported from beside them, by module name."""

_loaded: dict[str, Path] = {}
"""Paths of users' files by module name, in the order of loading."""


def parse_spec(spec: str) -> tuple[Path, str] | None:
    """Return path and name of `path/to/file.py:name`; None if `spec` has another form.

    Example:
        >>> parse_spec("nets/small.py:build"), parse_spec("torchvision:resnet18")
        ((PosixPath('nets/small.py'), 'build'), None)
    """
    match = _SPEC.fullmatch(spec)
    return (Path(match["path"]).expanduser(), match["name"] or "") if match else None


def load_object(spec: str, expected: str = "factory") -> Any:
    """Import a Python file and return one of its objects.

    The file runs once per content, as a module with a unique name, and may import modules beside
    it.

    Args:
        spec: `path/to/file.py:name`.
        expected: kind of object, for messages.

    Raises:
        InputError: no such file or name; the file fails when it is imported.
    """
    parsed = parse_spec(spec)
    if parsed is None:
        raise InputError(
            f"'{spec}' is not an object in a file; expected path/to/file.py:{expected}."
        )
    path, name = parsed
    check_is_file(path)
    if not name:
        names = _defined(path)
        hint = f" (it has {some(names)})" if names else ""
        raise InputError(f"Name the {expected} in {path}{hint}: {path}:{(names or [expected])[0]}")
    module = load_module(path)
    if not hasattr(module, name):
        names = _defined(path)
        raise InputError(
            f"{path} has no '{name}'.{did_you_mean(name, names, 0.5)} "
            f"It defines {some(names) if names else 'no function or class'}."
        )
    return getattr(module, name)


def load_module(path: str | os.PathLike[str]) -> ModuleType:
    """Import a Python file as a module; see `load_object`."""
    path = Path(os.path.abspath(path))
    content = path.read_bytes()
    digest = hashlib.sha256(os.fsencode(path) + b"\0" + content).hexdigest()
    name = f"_{re.sub(r'[^0-9A-Za-z]', '_', path.stem)}_{digest[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise InputError(f"{path} cannot be imported; expected a Python file.")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # dataclasses and pickle look up their module here
    try:
        with run_user_code(path):
            specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    _loaded[name] = path
    return module


def loaded_files() -> tuple[str, ...]:
    """Return the files imported so far; another process must import them before it unpickles."""
    return tuple(map(str, _loaded.values()))


@contextmanager
def run_user_code(path: str | os.PathLike[str]) -> Iterator[None]:
    """Run code of a user's file: it may import modules beside it, and errors name its line.

    Raises:
        InputError: the code raised any exception or called `sys.exit`.
    """
    path = Path(os.path.abspath(path))
    for name, folder in list(_neighbours.items()):
        # forget the `utils` beside another file, so that this file imports its own
        if folder != path.parent and _has(path.parent, name):
            for module in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
                del sys.modules[module]
            del _neighbours[name]
    before = set(sys.modules)
    sys.path.insert(0, str(path.parent))
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{path.name}{_where(error, path)}: {_message(error)}") from error
    finally:
        sys.path.remove(str(path.parent))
        new = {module.partition(".")[0] for module in set(sys.modules) - before}
        _neighbours.update((name, path.parent) for name in new if _has(path.parent, name))


def _has(folder: Path, name: str) -> bool:
    return (folder / f"{name}.py").is_file() or (folder / name).is_dir()


def _message(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return "the file ends the program (sys.exit); put that under if __name__ == '__main__'"
    return f"{type(error).__name__}: {getattr(error, 'msg', None) or error}".rstrip(": ")


def _where(error: BaseException, path: Path) -> str:
    """Return ", line 3 (`the = line`)": the last line of the file that led to the error."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f", line {error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename == str(path):
            return f", line {frame.lineno}" + (f" (`{frame.line}`)" if frame.line else "")
    return ""


def _defined(path: Path) -> list[str]:
    """Return the functions and classes at the top of a file, without running it."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return []
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [node.name for node in tree.body if isinstance(node, kinds) and node.name[0] != "_"]
