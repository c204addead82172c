"""Configs and annotations as text for people: readable, and the same in every process."""

from __future__ import annotations

import dataclasses
from typing import Any

import fiddle as fdl

from nemo_airflow.config.types.graph import is_dataclass_instance, is_named_tuple, recipe_overrides
from nemo_airflow.language.texts import annotation_text as annotation_text
from nemo_airflow.language.texts import dotted_name as dotted_name
from nemo_airflow.language.texts import leaf_text
from nemo_airflow.language.texts import value_text as value_text

_WIDTH = 100
_MAX_DEPTH = 60


def config_text(config: Any) -> str:
    """Returns a config as Python-like text, without memory addresses.

    A config in several places is written out at the first one.
    """
    return _text(config, 0, set(), 0)


def _text(value: Any, indent: int, seen: set[int], depth: int) -> str:
    if depth > _MAX_DEPTH:
        return "..."
    parts = _parts(value)
    if parts is None:
        return leaf_text(value)
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
        return "{", [(f"{leaf_text(key)}: ", item) for key, item in value.items()], "}"
    if is_named_tuple(value):
        return f"{type(value).__qualname__}(", [(f"{n}=", v) for n, v in zip(value._fields, value, strict=True)], ")"
    if isinstance(value, list):
        return "[", [("", item) for item in value], "]"
    if isinstance(value, tuple):
        return "(", [("", item) for item in value], ",)" if len(value) == 1 else ")"
    if isinstance(value, (set, frozenset)):
        members = [("", item) for item in sorted(value, key=lambda item: (type(item).__name__, leaf_text(item)))]
        return (
            ("frozenset({", members, "})") if isinstance(value, frozenset) else ("{", members, "}") if value else None
        )
    return None
