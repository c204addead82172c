"""What an annotation requires of a value and of the values below it, without qualifiers around it."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import functools
import inspect
import sys
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Union

import typing_extensions

from nemo_airflow.config.types.hints import class_hints, hints_of

UNIONS = (Union, types.UnionType)
"""The origins of ``Union[X, Y]`` and ``X | Y``."""

QUALIFIERS = (
    typing.Final,
    typing.ClassVar,
    typing.Required,
    typing.NotRequired,
    typing_extensions.Required,
    typing_extensions.NotRequired,
    typing_extensions.ReadOnly,
)
"""Qualifiers around the type of a field that do not constrain its values."""

UNPACK = (typing.Unpack, typing_extensions.Unpack)

ALIASES = tuple({typing_extensions.TypeAliasType, getattr(typing, "TypeAliasType", typing_extensions.TypeAliasType)})

_NEVER_REQUIRED = (typing.NotRequired, typing_extensions.NotRequired)
_REQUIRED = (typing.Required, typing_extensions.Required)


class Converting:
    """Marks the annotation of a parameter whose target converts what it is given, as pydantic's models do."""

    def __repr__(self) -> str:
        return "CONVERTING"


CONVERTING = Converting()


def noted(annotation: Any, *notes: Any) -> Any:
    """Returns an annotation with metadata, as ``Annotated`` writes it."""
    make: Any = Annotated
    return make[(annotation, *notes)] if notes else annotation


def strip_qualifiers(annotation: Any) -> Any:
    """Returns an annotation without qualifiers and metadata, with new types and aliases resolved."""
    while True:
        origin = typing.get_origin(annotation)
        if origin is Annotated or origin in QUALIFIERS:
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif isinstance(annotation, dataclasses.InitVar):
            annotation = annotation.type
        elif isinstance(annotation, ALIASES) or isinstance(origin, ALIASES):
            annotation = alias_value(annotation)
        else:
            return annotation


def strip_annotation(annotation: Any, value: Any) -> Any:
    """Returns an annotation without qualifiers; of a union, the one member that can hold the value."""
    while True:
        annotation = strip_qualifiers(annotation)
        if typing.get_origin(annotation) not in UNIONS:
            return annotation
        members = [arg for arg in typing.get_args(annotation) if arg is not type(None) or value is None]
        holders = [arg for arg in members if isinstance(value, class_of(arg))] if len(members) > 1 else members
        if len(holders) != 1:
            return annotation
        annotation = holders[0]


def class_of(annotation: Any) -> type:
    """Returns the class whose instances an annotation is for; ``object`` where that is not one class."""
    annotation = strip_qualifiers(annotation)
    origin = typing.get_origin(annotation) or annotation
    if typing_extensions.is_typeddict(origin):
        return dict
    return origin if isinstance(origin, type) else object


def find_element(annotation: Any, key: Any, container: Any) -> Any:
    """Returns the annotation of what a container holds under a key, ``Any`` where there is none."""
    found = _element(strip_annotation(annotation, container), key)
    return Annotated[found, CONVERTING] if is_converting(annotation) and found is not Any else found


def is_converting(annotation: Any) -> bool:
    """Returns whether a parameter with the annotation converts its values."""
    return typing.get_origin(annotation) is Annotated and CONVERTING in annotation.__metadata__


def _element(annotation: Any, key: Any) -> Any:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if typing_extensions.is_typeddict(origin or annotation):
        fields, extra = typed_dict_fields(annotation)
        return fields[key][0] if key in fields else (Any if extra is None else extra)
    if isinstance(origin or annotation, type) and hasattr(origin or annotation, "_fields"):
        return hints_of(origin or annotation).get(key, Any)
    if not isinstance(origin, type) or not args:
        return Any
    if issubclass(origin, tuple):
        items, variadic = tuple_items(annotation)
        if not isinstance(key, int) or (variadic is not None and key > variadic and len(items) > variadic + 1):
            return Any  # its distance from the end is not known here
        return items[min(key, variadic)] if variadic is not None else items[key] if key < len(items) else Any
    if issubclass(origin, collections.Counter):
        return int
    if issubclass(origin, collections.abc.Mapping):
        return args[1] if len(args) == 2 else Any
    return args[0] if issubclass(origin, collections.abc.Iterable | collections.abc.Container) else Any


def tuple_items(annotation: Any) -> tuple[list[Any], int | None]:
    """Returns the annotations of a tuple's items, and the position of the one that is for any number of them."""
    items: list[Any] = []
    variadic: int | None = None
    for arg in typing.get_args(annotation):
        inner = typing.get_args(arg)[0] if typing.get_origin(arg) in UNPACK else arg
        if arg is ...:
            variadic = 0
        elif (inner is not arg and typing.get_origin(inner) is tuple) or getattr(arg, "__unpacked__", False):
            unpacked, position = tuple_items(inner)
            variadic = len(items) + position if position is not None else variadic
            items += unpacked
        elif inner is not arg:  # a TypeVarTuple: any number of anything
            variadic = len(items)
            items.append(Any)
        else:
            items.append(arg)
    return items, variadic


def typed_dict_fields(annotation: Any) -> tuple[dict[str, tuple[Any, bool]], Any]:
    """Returns the fields of a TypedDict.

    Returns:
        Annotation and whether it is required, by name, and the annotation of all other keys, None
        where there may be no others.
    """
    kind = typing.get_origin(annotation) or annotation
    values = dict(zip(getattr(kind, "__parameters__", ()), typing.get_args(annotation), strict=False))
    fields: dict[str, tuple[Any, bool]] = {}
    hints = class_hints(kind)
    for name in kind.__annotations__:
        hint = hints.get(name, Any)
        # Where annotations are texts, the class itself knows only whether it is total.
        required = name in kind.__required_keys__
        while (origin := typing.get_origin(hint)) in QUALIFIERS:
            required = origin in _REQUIRED or (required and origin not in _NEVER_REQUIRED)
            hint = typing.get_args(hint)[0]
        fields[name] = (substitute_variables(hint, values), required)
    extra = getattr(kind, "__extra_items__", None)
    is_open = extra is not None and extra is not getattr(typing_extensions, "NoExtraItems", None)
    return fields, strip_qualifiers(extra) if is_open and extra is not typing.Never else None


def alias_value(alias: Any) -> Any:
    """Returns what a ``type`` alias stands for, with its parameters and the texts in it resolved."""
    kind = typing.get_origin(alias) or alias
    value = kind.__value__
    module = sys.modules.get(getattr(kind, "__module__", "") or "")
    holder = type("_Holder", (), {"__annotations__": {"value": value}})
    try:
        value = typing.get_type_hints(holder, vars(module) if module else {}, include_extras=True)["value"]
    except Exception:  # noqa: BLE001 - as of any annotation: evaluating it may raise anything
        value = Any if isinstance(value, str) else value
    return substitute_variables(value, dict(zip(kind.__type_params__, typing.get_args(alias), strict=False)))


def substitute_variables(annotation: Any, values: Mapping[Any, Any]) -> Any:
    """Returns an annotation with others in the place of type variables, or of ``Self``."""
    if not values:
        return annotation
    try:
        if annotation in values:
            return values[annotation]
    except TypeError:  # it cannot be hashed
        return annotation
    args = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if not args or origin is typing.Literal or origin is collections.abc.Callable:
        return annotation
    if origin is Annotated:
        return Annotated[(substitute_variables(args[0], values), *annotation.__metadata__)]
    changed = tuple(substitute_variables(arg, values) for arg in args)
    if all(new is old for new, old in zip(changed, args, strict=True)):
        return annotation
    if origin in UNIONS:
        return functools.reduce(lambda left, right: Union[left, right], changed)  # noqa: UP007 - they need no "|"
    generic: Any = origin
    return generic[changed[0] if len(changed) == 1 else changed]


def protocol_members(annotation: Any) -> frozenset[str] | None:
    """Returns the members that a protocol requires, or None for any other type."""
    kind = typing.get_origin(annotation) or annotation
    if not (isinstance(kind, type) and typing_extensions.is_protocol(kind)):
        return None
    return frozenset(typing_extensions.get_protocol_members(kind))


def has_members(value: Any, names: frozenset[str]) -> bool:
    """Returns whether a value has all these attributes; one that only a call could reveal counts as present."""
    missing = object()
    for name in names:
        if inspect.getattr_static(value, name, missing) is not missing:
            continue
        if inspect.getattr_static(type(value), "__getattr__", missing) is missing:
            return False
    return True
