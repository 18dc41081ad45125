"""Command-line options, declared once: by the function or the dataclass that takes them.

A command names its sources instead of repeating their parameters:

    @with_options
    def describe(
        edition: Annotated[str, typer.Argument(help="...")],
        given: Annotated[dict[str, Any], OptionsOf(baselines.describe, only=("config", "seed"))],
        subject: Annotated[SubjectOptions, OptionsOf(SubjectOptions)],
    ) -> None: ...

Type and default of an option are those of the source's parameter or field, its help text is the
parameter's entry under "Args:" or "Attributes:" or the string below the field. Bounds are
`annotated_types.Ge` and `Interval` in the annotation. An option that two sources declare appears
once, and both receive its value.
"""

from __future__ import annotations

import functools
import inspect
import keyword
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import annotated_types
import typer
from docstring_parser import parse_from_object

_DEFAULT = re.compile(r"\s*\(default:.*\)\.?$", re.DOTALL)


@dataclass(frozen=True)
class OptionsOf:
    """A function or dataclass whose parameters become options.

    Attributes:
        source: what declares the parameters.
        only: names of the parameters to take (default: all that have a default).
        without: names of parameters to leave out.
        names: option names, by parameter name, where they differ: `{"layers": "--layer"}`.
        help: help texts, by parameter name, where a command narrows the meaning.
        optional: pass on only what is given, as keyword arguments: where several defaults exist,
            and something else chooses among them.
    """

    source: Callable[..., Any]
    only: Sequence[str] = ()
    without: Sequence[str] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    help: Mapping[str, str] = field(default_factory=dict)
    optional: bool = False

    def parameters(self) -> dict[str, inspect.Parameter]:
        """Return the options as parameters that typer reads, by the source's parameter name.

        Raises:
            TypeError: a parameter that is not there, that has no documentation, or whose type is
                not one that a command line can give.
        """
        declared = inspect.signature(self.source).parameters
        texts = parameter_docs(self.source)
        unknown = {*self.only, *self.without, *self.names, *self.help} - declared.keys()
        if unknown:
            raise TypeError(f"{self.source.__qualname__} has no parameter {sorted(unknown)}")
        selected = self.only or [
            name for name, parameter in declared.items() if parameter.default is not parameter.empty
        ]
        options = {}
        for name in selected:
            if name in self.without:
                continue
            text = self.help.get(name) or texts.get(name)
            if not text:
                raise TypeError(f"{self.source.__qualname__}: parameter {name} is undocumented")
            default = None if self.optional else _default(declared[name])
            hint = _annotation(self.source, name)
            options[name] = _option(name, hint, default, self.names.get(name), text)
        return options


def with_options(function: Callable[..., None]) -> Callable[..., None]:
    """Return the command with every parameter annotated by `OptionsOf` expanded into options.

    A parameter annotated as `Annotated[SomeClass, OptionsOf(SomeClass)]` receives an instance, one
    annotated as `Annotated[dict[str, Any], OptionsOf(...)]` the keyword arguments. An option that
    is None or an empty list is left to the source's default.
    """
    hints = get_type_hints(function, include_extras=True)
    sources: dict[str, OptionsOf] = {}
    parameters: dict[str, inspect.Parameter] = {}  # the command's own come first in its help
    for name, parameter in inspect.signature(function).parameters.items():
        source = next((each for each in get_args(hints[name]) if isinstance(each, OptionsOf)), None)
        if source is not None:
            sources[name] = source
        else:
            parameters[name] = parameter.replace(
                annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY
            )
    own = tuple(parameters)
    options = {name: source.parameters() for name, source in sources.items()}
    for declared in options.values():
        for option in declared.values():
            parameters.setdefault(option.name, option)

    @functools.wraps(function)
    def command(**values: Any) -> None:
        arguments: dict[str, Any] = {name: values[name] for name in own}
        for name, declared in options.items():
            keywords = {}
            for parameter, option in declared.items():
                value = values[option.name]
                if value is not None and value != []:  # else the source's own default
                    keywords[parameter] = tuple(value) if isinstance(value, list) else value
            wants_dict = get_origin(get_args(hints[name])[0]) is dict
            arguments[name] = keywords if wants_dict else sources[name].source(**keywords)
        function(**arguments)

    # typer reads these; without __wrapped__, or it would look through to `function`
    del command.__dict__["__wrapped__"]
    command.__dict__["__signature__"] = inspect.Signature(list(parameters.values()))
    command.__annotations__ = {name: option.annotation for name, option in parameters.items()}
    return command


def _option(
    name: str, annotation: Any, default: Any, spelling: str | None, text: str
) -> inspect.Parameter:
    """Return a parameter that typer reads as an option."""
    annotation, bounds = _bounds(annotation)
    kind, is_list = _plain(name, annotation)
    spelling = spelling or f"--{name.replace('_', '-')}"
    extras: dict[str, Any] = {"help": help_sentence(text), **bounds}
    declaration = spelling
    if kind is bool and default:  # a flag that can only be taken back
        declaration = f"{spelling}/--no-{spelling[2:]}"
    if default is None or is_list:
        shown: Any = None
        hint: Any = (list[kind] if is_list else kind) | None  # type: ignore[valid-type]
    else:
        shown, hint = default, kind
    if default is not None and not is_list:
        extras["help"] = _DEFAULT.sub("", extras["help"])  # typer adds "[default: ...]"
    own_name = spelling.partition("/")[0].lstrip("-").replace("-", "_")
    return inspect.Parameter(
        f"{own_name}_" if keyword.iskeyword(own_name) else own_name,
        inspect.Parameter.KEYWORD_ONLY,
        default=shown,
        annotation=Annotated[hint, typer.Option(declaration, **extras)],
    )


def _default(parameter: inspect.Parameter) -> Any:
    """Return a parameter's default; None for one that a dataclass's factory makes."""
    is_plain = isinstance(parameter.default, str | int | float | tuple)  # bool is an int
    return parameter.default if is_plain else None


def _bounds(annotation: Any) -> tuple[Any, dict[str, Any]]:
    """Return the annotation without its metadata, and typer's `min` and `max`."""
    bounds: dict[str, Any] = {}
    if get_origin(annotation) is Annotated:
        annotation, *metadata = get_args(annotation)
        for each in metadata:
            parts: Iterable[Any] = (
                each if isinstance(each, annotated_types.GroupedMetadata) else [each]
            )
            for part in parts:
                if isinstance(part, annotated_types.Ge):
                    bounds["min"] = part.ge
                elif isinstance(part, annotated_types.Le):
                    bounds["max"] = part.le
    elif get_origin(annotation) in (Union, types.UnionType):
        members = [_bounds(each) for each in get_args(annotation)]
        for _, each in members:
            bounds |= each
        annotation = functools.reduce(lambda a, b: a | b, [member for member, _ in members])
    return annotation, bounds


def _plain(name: str, annotation: Any) -> tuple[type, bool]:
    """Return (type of a value, whether several are taken) of a source's annotation."""
    annotation, _ = _bounds(annotation)
    members = [annotation]
    if get_origin(annotation) in (Union, types.UnionType):
        members = [each for each in get_args(annotation) if each is not types.NoneType]
    for member in members:  # a list first: `str | Sequence[str]` takes several
        origin = get_origin(member)
        if isinstance(origin, type) and issubclass(origin, Iterable):
            return _plain(name, get_args(member)[0])[0], True
    for member in members:
        if member in (str, int, float, bool):
            return member, False
        if get_origin(member) is typing.Literal:
            return type(get_args(member)[0]), False
        if isinstance(get_origin(member) or member, type) and hasattr(
            get_origin(member) or member, "__fspath__"
        ):
            return str, False
    raise TypeError(f"parameter {name}: {annotation} cannot be given on a command line")


@functools.cache
def parameter_docs(source: Callable[..., Any]) -> dict[str, str]:
    """Return the documentation of each parameter or field."""
    texts = {}
    # base classes first, so that a class may say more of a field than they do; `object` has none
    classes = source.__mro__[-2::-1] if isinstance(source, type) else [source]
    for declared in classes:
        for entry in parse_from_object(declared).params if declared.__doc__ else ():
            for name in entry.arg_name.split(","):
                if entry.description:
                    texts[name.strip()] = entry.description
    return texts


def _annotation(source: Callable[..., Any], name: str) -> Any:
    """Return the annotation of one parameter or field, evaluated where it was written.

    `get_type_hints` of a whole function fails where another annotation names something that is
    imported for type checkers alone.
    """
    annotation, owner = inspect.signature(source).parameters[name].annotation, source
    if isinstance(source, type):
        for owner_class in source.__mro__:
            declared = inspect.get_annotations(owner_class)
            if name in declared:
                annotation, owner = declared[name], owner_class
                break

    def holder() -> None: ...

    holder.__annotations__ = {name: annotation}
    namespace = vars(sys.modules[owner.__module__])
    return get_type_hints(holder, globalns=namespace, include_extras=True)[name]


def help_sentence(text: str) -> str:
    """Return documentation as a help text: one line, a capital, a full stop."""
    line = " ".join(text.replace("`", "").split())
    line = line[:1].upper() + line[1:]
    return line if line.endswith((".", ")", "]")) else f"{line}."
