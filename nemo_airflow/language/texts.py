"""Values and annotations as short texts, for messages: the same in every process."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import itertools
import re
import types
import typing
from typing import Any, Dict, List, Tuple

from nemo_airflow.language.hints import is_union

SHORT = 80
"""Most characters of a value in a message."""

ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
"""The part of a ``repr`` that differs between processes."""

_SPELT = ("datetime", "decimal", "fractions", "pathlib", "uuid", "ipaddress")
"""Modules of values that are shown as people write them."""

_BRACKETS: Dict[type, Tuple[str, str]] = {list: ("[", "]"), tuple: ("(", ")"), dict: ("{", "}"), set: ("{", "}")}


def value_text(value: Any) -> str:
    """Returns a value as one short line."""
    if hasattr(type(value), "__build__") or hasattr(value, "__arguments__"):  # a config, Fiddle's or the job's
        return f"{type(value).__name__}({dotted_name(value.__fn_or_cls__)})"
    if type(value).__module__ in _SPELT and hasattr(type(value), "__str__"):
        return str(value)
    text = " ".join(_beginning(value).split()) if _is_plain(value) else f"a value of type {type(value).__name__}"
    return text if len(text) <= SHORT else f"{text[: SHORT - 4]} ..."


def leaf_text(value: Any) -> str:
    """Returns a value other than a container as text."""
    if isinstance(value, enum.Enum):
        return f"{type(value).__qualname__}.{value.name}"
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType)):
        return dotted_name(value)
    return ADDRESS.sub("", repr(value))


def annotation_text(annotation: Any) -> str:
    """Returns an annotation as it is read: ``int``, ``list[int]``, ``one of 'adam', 'sgd'``."""
    if annotation is None or annotation is type(None):
        return "None"
    if hasattr(annotation, "__metadata__"):
        return annotation_text(annotation.__origin__)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if is_union(origin):
        return " | ".join(dict.fromkeys(map(annotation_text, args)))
    if origin is typing.Literal:
        return f"one of {', '.join(map(repr, args))}"
    if collections.abc.Callable in (annotation, origin):
        return "a callable"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return f"{annotation.__name__} ({', '.join(annotation.__members__)})"
    if origin is not None and args:
        name = getattr(origin, "__name__", str(origin))
        return f"{name}[{', '.join('...' if arg is ... else annotation_text(arg) for arg in args)}]"
    if isinstance(annotation, type):
        return annotation.__qualname__
    name = getattr(annotation, "__name__", None) or getattr(annotation, "_name", None) or str(annotation)
    return str(name).replace("typing.", "", 1) if str(name).startswith("typing.") else str(name)


def dotted_name(target: Any) -> str:
    """Returns ``module.name`` of a function or class."""
    module = getattr(target, "__module__", None)
    return short_name(target) if module in (None, "builtins") else f"{module}.{short_name(target)}"


def short_name(target: Any) -> str:
    """Returns the plain name of a function or class."""
    name = str(getattr(target, "__qualname__", None) or type(target).__name__)
    return name[: -len(".__record__")] if name.endswith(".__record__") else name


def _beginning(root: Any) -> str:
    """Returns the beginning of a value's ``repr``, up to the shown length: the whole may be huge."""
    text = ""
    stack: List[Tuple[bool, Any]] = [(False, root)]
    while stack and len(text) <= 2 * SHORT:
        is_text, value = stack.pop()
        if is_text:
            text += value
        elif not value or type(value) not in _BRACKETS:
            text += leaf_text(value)
        else:
            opening, closing = _BRACKETS[type(value)]
            pieces: List[Tuple[bool, Any]] = [(True, opening)]
            for number, item in enumerate(itertools.islice(value, SHORT)):
                pieces += [(True, ", ")] if number else []
                pieces += (
                    [(False, item), (True, ": "), (False, value[item])] if type(value) is dict else [(False, item)]
                )
            pieces.append((True, f",{closing}" if type(value) is tuple and len(value) == 1 else closing))
            stack.extend(reversed(pieces))
    return text


def _is_plain(value: Any) -> bool:
    kinds = (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, type(None), enum.Enum, type)
    return isinstance(value, (*kinds, types.FunctionType)) or dataclasses.is_dataclass(value)
