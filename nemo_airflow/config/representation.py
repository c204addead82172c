"""Configs and annotations as text for people: readable, and the same in every process."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import itertools
import re
import types
import typing
from typing import Any

import fiddle as fdl

from nemo_airflow.config.graph import is_dataclass_instance, is_named_tuple, recipe_overrides
from nemo_airflow.config.targets import short_name

_WIDTH = 100
_SHORT = 80
_MAX_DEPTH = 60
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def config_text(config: Any) -> str:
    """Returns a config as Python-like text, without memory addresses.

    A config in several places is written out at the first one.
    """
    return _text(config, 0, set(), 0)


def value_text(value: Any) -> str:
    """Returns a value as one short line, for an error message."""
    if isinstance(value, fdl.Buildable):
        return f"{type(value).__name__}({dotted_name(value.__fn_or_cls__)})"
    text = " ".join(_beginning(value).split()) if _is_plain(value) else f"a value of type {type(value).__name__}"
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 4]} ..."


_BRACKETS: dict[type, tuple[str, str]] = {list: ("[", "]"), tuple: ("(", ")"), dict: ("{", "}"), set: ("{", "}")}


def _beginning(root: Any) -> str:
    """Returns the beginning of a value's ``repr``, up to the shown length: the whole may be huge."""
    text = ""
    stack: list[tuple[bool, Any]] = [(False, root)]
    while stack and len(text) <= 2 * _SHORT:
        is_text, value = stack.pop()
        if is_text:
            text += value
        elif not value or type(value) not in _BRACKETS:
            text += _leaf(value)
        else:
            opening, closing = _BRACKETS[type(value)]
            pieces: list[tuple[bool, Any]] = [(True, opening)]
            for number, item in enumerate(itertools.islice(value, _SHORT)):
                pieces += [(True, ", ")] if number else []
                pieces += (
                    [(False, item), (True, ": "), (False, value[item])] if type(value) is dict else [(False, item)]
                )
            pieces.append((True, f",{closing}" if type(value) is tuple and len(value) == 1 else closing))
            stack.extend(reversed(pieces))
    return text


def annotation_text(annotation: Any) -> str:
    """Returns an annotation as it is read: ``int``, ``list[int]``, ``one of 'adam', 'sgd'``."""
    if annotation is None or annotation is type(None):
        return "None"
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return annotation_text(args[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(dict.fromkeys(map(annotation_text, args)))
    if origin is typing.Literal:
        return f"one of {', '.join(map(repr, args))}"
    if annotation is typing.Callable or origin is collections.abc.Callable or annotation is collections.abc.Callable:
        return "a callable"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return f"{annotation.__name__} ({', '.join(annotation.__members__)})"
    if origin is not None and args:
        name = getattr(origin, "__name__", str(origin))
        return f"{name}[{', '.join('...' if arg is ... else annotation_text(arg) for arg in args)}]"
    if isinstance(annotation, type):
        return annotation.__qualname__
    return str(getattr(annotation, "__name__", None) or annotation).removeprefix("typing.")


def dotted_name(target: Any) -> str:
    """Returns ``module.name`` of a function or class."""
    module = getattr(target, "__module__", None)
    return short_name(target) if module in (None, "builtins") else f"{module}.{short_name(target)}"


def _text(value: Any, indent: int, seen: set[int], depth: int) -> str:
    if depth > _MAX_DEPTH:
        return "..."
    parts = _parts(value)
    if parts is None:
        return _leaf(value)
    opening, items, closing = parts
    if isinstance(value, (fdl.Buildable, list, dict)) or is_dataclass_instance(value):
        if id(value) in seen and items:
            return f"{opening}...{closing}"
        seen.add(id(value))
    texts = [label + _text(item, indent + 2, seen, depth + 1) for label, item in items]
    line = f"{opening}{', '.join(texts)}{closing}"
    if len(line) + indent <= _WIDTH and "\n" not in line:
        return line
    inner = " " * (indent + 2)
    return f"{opening.rstrip()}\n{''.join(f'{inner}{text},{chr(10)}' for text in texts)}{' ' * indent}{closing}"


def _parts(value: Any) -> tuple[str, list[tuple[str, Any]], str] | None:
    if isinstance(value, fdl.Buildable):
        named = fdl.ordered_arguments(value).items()
        last = max((number for number, (key, _) in enumerate(named) if isinstance(key, int)), default=-1)
        items = [("" if number <= last else f"{key}=", item) for number, (key, item) in enumerate(named)]
        if overrides := recipe_overrides(value):
            items.append(("overrides=", overrides))
        target = dotted_name(value.__fn_or_cls__)
        if getattr(type(value), "__record__", None) is value.__fn_or_cls__:
            return f"{type(value).__name__}(", items, ")"
        lead = f"{type(value).__name__}({target}"
        return (f"{lead}, ", items, ")") if items else (lead, [], ")")
    if is_dataclass_instance(value):
        fields = [(f"{f.name}=", getattr(value, f.name)) for f in dataclasses.fields(value) if f.repr]
        return f"{type(value).__qualname__}(", fields, ")"
    if isinstance(value, dict):
        return "{", [(f"{_leaf(key)}: ", item) for key, item in value.items()], "}"
    if is_named_tuple(value):
        return f"{type(value).__qualname__}(", [(f"{n}=", v) for n, v in zip(value._fields, value, strict=True)], ")"
    if isinstance(value, list):
        return "[", [("", item) for item in value], "]"
    if isinstance(value, tuple):
        return "(", [("", item) for item in value], ",)" if len(value) == 1 else ")"
    if isinstance(value, (set, frozenset)):
        members = [("", item) for item in sorted(value, key=lambda item: (type(item).__name__, _leaf(item)))]
        return (
            ("frozenset({", members, "})") if isinstance(value, frozenset) else ("{", members, "}") if value else None
        )
    return None


def _leaf(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return f"{type(value).__qualname__}.{value.name}"
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType)):
        return dotted_name(value)
    return _ADDRESS.sub("", repr(value))


def _is_plain(value: Any) -> bool:
    kinds = (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, type(None), enum.Enum, type)
    return isinstance(value, (*kinds, types.FunctionType)) or is_dataclass_instance(value)
