"""Registry of methods: files of `baselines/`, entry points `milan.methods`, files by path.

A module is a method if it has a `SPEC` and a function `create(**options)` that returns a
`Method`. Nothing else registers it.
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
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, get_args, get_type_hints

from baselines.framework.method import Kind, Method, MethodSpec
from milannotations.errors import InputError, did_you_mean
from milannotations.utils.options import help_sentence, parameter_docs

ENTRY_POINT_GROUP = "milan.methods"
"""Group of the entry points of other packages: modules, or objects with SPEC and create."""


def specs() -> list[MethodSpec]:
    """Return the specs of all methods with a name: floors, methods, references.

    An entry point that cannot be imported is left out with a warning.
    """
    modules = {name: _folder_module(name) for name in _folder_names()}
    known = {name: module.SPEC for name, module in modules.items() if hasattr(module, "SPEC")}
    own = set(known)
    for name, entry in _entry_points().items():
        if name in own:
            warnings.warn(f"{entry.value}: there is a method '{name}' already.", stacklevel=2)
            continue
        try:
            known[name] = _check_module(entry.load(), entry.value, name).SPEC
        except (Exception, SystemExit) as error:
            # a third-party package may raise anything; the other methods must still be listed
            warnings.warn(f"Method '{name}' ({entry.value}): {error!r}", stacklevel=2)
    kinds = get_args(Kind)
    return sorted(known.values(), key=lambda spec: (kinds.index(spec.kind), spec.name))


def get(name: str, /, **options: Any) -> Method:
    """Create a method.

    Args:
        name: such as `most-common`; or a path such as `path/to/file.py`.
        options: arguments of the method's `create`.

    Raises:
        InputError: unknown method, file or option, or a file that is no method.

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
        raise InputError(f"'{spec.name}': {error}. {_describe_options(signature)}") from None
    method = module.create(**options)
    if not isinstance(method, Method) or method.spec.name != spec.name:
        raise InputError(
            f"'{spec.name}': create returned {type(method).__name__}; expected an object with "
            "'spec' (the module's SPEC) and 'describe(units, context)'."
        )
    return method


@dataclass(frozen=True)
class MethodOption:
    """An option of a method: a parameter of its `create`.

    Attributes:
        name: name for `--set NAME=VALUE`.
        default: value if it is not given.
        help: meaning, from the documentation of `create`.
    """

    name: str
    default: Any
    help: str


def options(name: str) -> list[MethodOption]:
    """Return the options of a method, in the order of its `create`.

    Args:
        name: name or path of the method; see `get`.

    Raises:
        InputError: see `get`.

    Example:
        >>> [option.name for option in options("netdissect")]
        ['detectors_only', 'quantile', 'threshold']
    """
    create = _find(name).create
    texts = parameter_docs(create)
    return [
        MethodOption(option, parameter.default, help_sentence(texts.get(option, "")))
        for option, parameter in inspect.signature(create).parameters.items()
    ]


def parse_options(name: str, given: Sequence[str]) -> dict[str, Any]:
    """Parse options written as `NAME=VALUE`, by the type annotations of the method's `create`.

    Args:
        name: name or path of the method; see `get`.
        given: such as `["lam=0.3", "show=crops", "pmi=true"]`. Where `create` declares no type,
            a value is parsed as JSON, or else taken as text.

    Raises:
        InputError: unknown option, or a value of another type.

    Example:
        >>> parse_options("captioner", ["lam=0.3", "show=crops", "pmi=true"])
        {'lam': 0.3, 'show': 'crops', 'pmi': True}
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    if not given:
        return {}
    create = _find(name).create
    signature, types = inspect.signature(create), _types(create)
    options: dict[str, Any] = {}
    for argument in given:
        option, equals, text = argument.partition("=")
        option = option.strip().replace("-", "_")
        if not equals or not option:
            raise InputError(
                f"--set {argument}: NAME=VALUE was expected. {_describe_options(signature)}"
            )
        if option not in signature.parameters:
            raise InputError(f"'{name}' has no option '{option}'. {_describe_options(signature)}")
        if option in options:
            raise InputError(f"--set {argument}: '{option}' is set twice.")
        if option not in types:
            options[option] = _json_or_text(text)
            continue
        adapter = TypeAdapter(types[option], config=ConfigDict(arbitrary_types_allowed=True))
        validate = adapter.validate_json if text[:1] in ("{", "[") else adapter.validate_strings
        try:
            options[option] = validate(text)
        except ValidationError as error:
            cause = error.errors()[0]["msg"]
            raise InputError(f"--set {argument}: {cause}. {_describe_options(signature)}") from None
    return options


def _types(create: Any) -> dict[str, Any]:
    """Return the type annotations of a function's arguments; none if they cannot be resolved."""
    try:
        return get_type_hints(create)
    except Exception:  # names that a third-party file imports for type checkers only
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
        return _check_module(entries[name].load(), entries[name].value, name)
    known = [spec.name for spec in specs()]
    raise InputError(
        f"No method '{name}'.{did_you_mean(name, known)} See: milan list methods. "
        "A method of your own: path/to/file.py"
    )


def _folder_names() -> list[str]:
    """Return the names of the modules in `baselines/`, with dashes."""
    import baselines

    modules = pkgutil.iter_modules(baselines.__path__)
    # packages (framework, shared) are no methods
    return [module.name.replace("_", "-") for module in modules if not module.ispkg]


def _folder_module(name: str) -> Any:
    stem = name.replace("-", "_")
    module = importlib.import_module(f"baselines.{stem}")
    return (
        _check_module(module, f"baselines/{stem}.py", name) if hasattr(module, "SPEC") else module
    )


def _entry_points() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}


def _file_module(name: str) -> Any:
    path = Path(name)
    if not path.is_file():
        raise InputError(f"No file '{name}'. A method is a name or a path/to/file.py.")
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    import_spec = importlib.util.spec_from_file_location(f"method_{path.stem}_{digest}", path)
    if import_spec is None or import_spec.loader is None:
        raise InputError(f"{name} is no Python file; a method's file ends in .py.")
    module = importlib.util.module_from_spec(import_spec)
    sys.modules[import_spec.name] = module  # dataclasses look up their module there
    try:
        import_spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[import_spec.name]
        raise
    return _check_module(module, name)


def _check_module(module: Any, where: str, name: str | None = None) -> Any:
    """Return a module if it is a method of that name.

    Raises:
        InputError: it has no SPEC or `create`, or another name.
    """
    spec = getattr(module, "SPEC", None)
    if not isinstance(spec, MethodSpec) or not callable(getattr(module, "create", None)):
        raise InputError(
            f"{where} is no method: it needs SPEC = baselines.MethodSpec(...) and "
            "create(**options), which returns an object with describe(units, context). "
            "See docs/write-a-method.md."
        )
    if name not in (None, spec.name):
        raise InputError(f"{where} is registered as '{name}', but its SPEC is named '{spec.name}'.")
    return module


def _describe_options(signature: inspect.Signature) -> str:
    options = [
        name if option.default is option.empty else f"{name}={option.default!r}"
        for name, option in signature.parameters.items()
    ]
    return f"It takes {', '.join(options)}." if options else "It takes no options."
