"""Methods by name: files of this folder, entry points `milan.methods`, files by path.

A module is a method if it has a `SPEC` and a function `create(**options)` that returns
a `Method`. Nothing else registers it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import json
import pkgutil
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, get_args, get_type_hints

from baselines.framework.method import Kind, Method, MethodSpec
from milannotations.errors import InputError, did_you_mean

ENTRY_POINT_GROUP = "milan.methods"
"""Entry points of other packages; each names a module, or any object with SPEC and create."""


def specs() -> list[MethodSpec]:
    """Return the spec of every method that has a name: floors, methods, references.

    An entry point that cannot be imported is left out with a warning.
    """
    modules = {name: _folder_module(name) for name in _folder_names()}
    known = {name: module.SPEC for name, module in modules.items() if hasattr(module, "SPEC")}
    ours = set(known)
    for name, entry in _entry_points().items():
        if name in ours:
            warnings.warn(f"{entry.value}: there is a method '{name}' already.", stacklevel=2)
            continue
        try:
            known[name] = _checked(entry.load(), entry.value, name).SPEC
        except (
            Exception,
            SystemExit,
        ) as error:  # somebody else's package; ours are still to be listed
            warnings.warn(f"Method '{name}' ({entry.value}): {error!r}", stacklevel=2)
    kinds = get_args(Kind)
    return sorted(known.values(), key=lambda spec: (kinds.index(spec.kind), spec.name))


def get(name: str, /, **options: Any) -> Method:
    """Return a method, ready to describe.

    Args:
        name: such as `most-common`; or a path such as `path/to/file.py`.
        options: what the method's `create` takes.

    Raises:
        InputError: no such method, file or option; a file that is no method.

    Example:
        >>> get("constant", text="an object").spec.kind
        'floor'
    """
    module = _find(name)
    spec: MethodSpec = module.SPEC
    signature = inspect.signature(module.create)
    try:
        signature.bind(**options)
    except TypeError as error:
        raise InputError(f"'{spec.name}': {error}. {_takes(signature)}") from None
    method = module.create(**options)
    if not isinstance(method, Method) or method.spec.name != spec.name:
        raise InputError(
            f"'{spec.name}': create returned {type(method).__name__}; expected an object with "
            "'spec' (the module's SPEC) and 'describe(units, context)'."
        )
    return method


def parse_options(name: str, given: Sequence[str]) -> dict[str, Any]:
    """Return options written as `NAME=VALUE`, each of the type that `create` says it has.

    Args:
        name: of the method, as of `get`.
        given: such as `["lam=0.3", "show=crops", "pmi=true"]`. Where `create` says no type, a
            value is read as JSON, and as text if it is none.

    Raises:
        InputError: no such option; a value of another type.

    Example:
        >>> parse_options("captioner", ["lam=0.3", "show=crops", "pmi=true"])
        {'lam': 0.3, 'show': 'crops', 'pmi': True}
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    if not given:
        return {}
    create = _find(name).create
    signature, types = inspect.signature(create), _types(create)
    made: dict[str, Any] = {}
    for each in given:
        option, equals, text = each.partition("=")
        option = option.strip().replace("-", "_")
        if not equals or not option:
            raise InputError(f"--set {each}: NAME=VALUE was expected. {_takes(signature)}")
        if option not in signature.parameters:
            raise InputError(f"'{name}' has no option '{option}'. {_takes(signature)}")
        if option in made:
            raise InputError(f"--set {each}: '{option}' is set twice.")
        if option not in types:
            made[option] = _json_or_text(text)
            continue
        kind = TypeAdapter(types[option], config=ConfigDict(arbitrary_types_allowed=True))
        validate = kind.validate_json if text[:1] in ("{", "[") else kind.validate_strings
        try:
            made[option] = validate(text)
        except ValidationError as error:
            why = error.errors()[0]["msg"]
            raise InputError(f"--set {each}: {why}. {_takes(signature)}") from None
    return made


def _types(create: Any) -> dict[str, Any]:
    """Return the types of a function's arguments, none if they are written for readers alone."""
    try:
        return get_type_hints(create)
    except Exception:  # names that exist for type checkers alone, in anybody's file
        return {}


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _find(name: str) -> Any:
    """Return the module of a method."""
    if name.endswith(".py") or "/" in name:
        return _file_module(name)
    if name in _folder_names():
        module = _folder_module(name)
        if hasattr(module, "SPEC"):
            return module
    entries = _entry_points()
    if name in entries:
        return _checked(entries[name].load(), entries[name].value, name)
    known = [spec.name for spec in specs()]
    raise InputError(
        f"No method '{name}'.{did_you_mean(name, known)} See: milan list methods. "
        "A method of your own: path/to/file.py"
    )


def _folder_names() -> list[str]:
    """Return the names of this folder's modules as methods are called, with dashes."""
    import baselines

    modules = pkgutil.iter_modules(baselines.__path__)
    # packages (framework, shared) hold what methods are made of
    return [module.name.replace("_", "-") for module in modules if not module.ispkg]


def _folder_module(name: str) -> Any:
    stem = name.replace("-", "_")
    module = importlib.import_module(f"baselines.{stem}")
    return _checked(module, f"baselines/{stem}.py", name) if hasattr(module, "SPEC") else module


def _entry_points() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}


def _file_module(name: str) -> Any:
    path = Path(name)
    if not path.is_file():
        raise InputError(f"No file '{name}'. A method is a name or a path/to/file.py.")
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    found = importlib.util.spec_from_file_location(f"method_{path.stem}_{digest}", path)
    if found is None or found.loader is None:
        raise InputError(f"{name} is no Python file; a method's file ends in .py.")
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # dataclasses look their module up
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[found.name]
        raise
    return _checked(module, name)


def _checked(module: Any, where: str, name: str | None = None) -> Any:
    """Return a module with a SPEC and `create`, of that name.

    Raises:
        InputError: there is none.
    """
    spec = getattr(module, "SPEC", None)
    if not isinstance(spec, MethodSpec) or not callable(getattr(module, "create", None)):
        raise InputError(
            f"{where} is no method: it needs SPEC = baselines.MethodSpec(...) and "
            "create(**options), which returns an object with describe(units, context). "
            "See docs/write-a-method.md."
        )
    if name not in (None, spec.name):
        raise InputError(f"{where} is found as '{name}', but its SPEC is named '{spec.name}'.")
    return module


def _takes(signature: inspect.Signature) -> str:
    shown = [
        name if option.default is option.empty else f"{name}={option.default!r}"
        for name, option in signature.parameters.items()
    ]
    return f"It takes {', '.join(shown)}." if shown else "It takes no options."
