"""Converts the values of overrides to the annotations of their places, in the job, with the standard library only.

As strict as pydantic on Airflow's side: a bool is not an int, and a text is not a number unless it was
written as one. An annotation that is not known here (an array, a protocol) accepts any value.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import inspect
import typing
from collections.abc import Mapping
from typing import Any, Dict, List, Tuple, Union

from nemo_airflow.language.configs import Config, short_name
from nemo_airflow.language.hints import MAPPINGS, bare, is_union

_CONTAINERS: Mapping[Any, Any] = {
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    collections.abc.Sequence: list,
    collections.abc.MutableSequence: list,
    collections.abc.Iterable: list,
    collections.abc.Collection: list,
    collections.abc.Set: set,
    collections.abc.MutableSet: set,
}


class Misfit(ValueError):
    """A value that does not fit its annotation."""


def read(annotation: Any, value: Any, text: str) -> Any:
    """Returns a value converted to its annotation.

    Args:
        annotation: The annotation.
        value: The text read as a literal.
        text: The text itself, for a place that takes a ``str``.

    Raises:
        Misfit: It does not fit; the message says what was expected.
    """
    annotation = bare(annotation)
    if annotation in (Any, object, inspect.Parameter.empty) or isinstance(annotation, (str, typing.TypeVar)):
        return value
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Union or is_union(origin):
        return _of_union(annotation, args, value, text)
    if origin is typing.Literal:
        return _of_literal(args, value, text)
    if isinstance(value, Config):
        return value  # only its target knows its result
    if annotation is None or annotation is type(None):
        if value is None:
            return None
        raise _misfit(annotation, text)
    if origin in _CONTAINERS or annotation in _CONTAINERS:
        return _of_items(origin or annotation, args, value, text)
    if origin in MAPPINGS or annotation in MAPPINGS:
        return _of_mapping(args, value, text)
    if not isinstance(annotation, type):
        return value
    return _of_class(annotation, value, text)


def _of_class(kind: Any, value: Any, text: str) -> Any:
    if issubclass(kind, enum.Enum):
        return _of_enum(kind, value, text)
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind is str:
        return value if isinstance(value, str) else text
    if kind in (bool, int, float):
        raise _misfit(kind, text)
    if isinstance(value, kind):
        return value
    if isinstance(value, (str, int, float)) and kind.__module__ in ("pathlib", "pathlib._local", "datetime", "decimal"):
        return _of_library(kind, value, text)
    if dataclasses.is_dataclass(kind) or isinstance(value, (bool, int, float, str, list, dict, type(None))):
        raise _misfit(kind, text)
    return value


def _of_library(kind: Any, value: Any, text: str) -> Any:
    import datetime

    try:
        if kind is datetime.timedelta:
            return datetime.timedelta(seconds=float(value))
        return kind.fromisoformat(text) if kind.__module__ == "datetime" else kind(str(value))
    except (ValueError, TypeError, ArithmeticError):
        raise _misfit(kind, text) from None


def _of_enum(kind: Any, value: Any, text: str) -> Any:
    if text in kind.__members__:
        return kind.__members__[text]
    for candidate in (value, text):
        try:
            return kind(candidate)
        except ValueError:
            continue
    raise Misfit(f"expected one of {', '.join(kind.__members__)}, got {text!r}")


def _of_union(annotation: Any, args: Tuple[Any, ...], value: Any, text: str) -> Any:
    if value is None and type(None) in args:
        return None
    # The text itself last: "3" for int | str is a number.
    members = sorted((arg for arg in args if arg is not type(None)), key=lambda arg: bare(arg) is str)
    for member in members:
        try:
            return read(member, value, text)
        except Misfit:
            continue
    raise _misfit(annotation, text)


def _of_literal(args: Tuple[Any, ...], value: Any, text: str) -> Any:
    for candidate in (value, text):
        for allowed in args:
            if type(candidate) is type(allowed) and candidate == allowed:
                return allowed
    raise Misfit(f"expected one of {', '.join(map(repr, args))}, got {text!r}")


def _of_items(kind: Any, args: Tuple[Any, ...], value: Any, text: str) -> Any:
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise Misfit(f"expected {getattr(kind, '__name__', kind)}, got {text!r}")
    make = _CONTAINERS[kind]
    items: List[Any] = list(value)
    if kind is tuple and args and not (len(args) == 2 and args[1] is ...):
        if len(args) != len(items) and args != ((),):
            raise Misfit(f"expected {len(args)} items, got {text!r}")
        return tuple(read(arg, item, _text(item)) for arg, item in zip(args, items))
    inner = args[0] if args else Any
    try:
        return make(read(inner, item, _text(item)) for item in items)
    except TypeError as error:  # unhashable
        raise Misfit(str(error)) from None


def _of_mapping(args: Tuple[Any, ...], value: Any, text: str) -> Dict[Any, Any]:
    if not isinstance(value, dict):
        raise Misfit(f"expected dict, got {text!r}")
    key_kind, item_kind = args if len(args) == 2 else (Any, Any)
    return {read(key_kind, key, _text(key)): read(item_kind, item, _text(item)) for key, item in value.items()}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _misfit(annotation: Any, text: str) -> Misfit:
    shown = "None" if annotation in (None, type(None)) else str(annotation)
    if isinstance(annotation, type) and not typing.get_args(annotation):
        shown = short_name(annotation)
    return Misfit(f"expected {shown.replace('typing.', '')}, got {text!r}")
