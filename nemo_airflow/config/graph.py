"""Configs, containers and dataclass instances as one graph: what is below a value, and its copy with other values."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard

import fiddle as fdl

from nemo_airflow.exceptions import ConfigError
from nemo_airflow.runner.grammar import MAX_DEPTH, join

Key = str | int

__all__ = ["Key", "children", "is_dataclass_instance", "is_deferred", "is_shareable", "iter_nodes", "join", "rebuild"]


def is_deferred(value: Any) -> bool:
    """Returns whether a value is yet to come: a Jinja template, or the output of another task.

    Outputs of tasks are known by what they can do, so that Airflow need not be imported.
    """
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    kind = type(value)
    return hasattr(kind, "iter_references") and hasattr(kind, "resolve")


def is_dataclass_instance(value: Any) -> bool:
    """Returns whether a value is an instance of a dataclass, not such a class itself."""
    return dataclasses.is_dataclass(value) and not isinstance(value, (type, fdl.Buildable)) and not is_deferred(value)


def is_shareable(value: Any) -> bool:
    """Returns whether it matters that two places hold the very same value."""
    return isinstance(value, (fdl.Buildable, list, dict, set)) or is_dataclass_instance(value)


def children(value: Any) -> Sequence[tuple[Any, Any]] | None:
    """Returns the keys and values below a value in a stable order, or None for a leaf.

    The keys of a config are parameter names, and positions for arguments that have no name; those
    of a dict are its own keys; those of a set are positions in a stable order.
    """
    if isinstance(value, fdl.Buildable):
        return list(fdl.ordered_arguments(value).items())
    if isinstance(value, dict):
        return list(value.items())
    if is_named_tuple(value):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))
    if isinstance(value, (set, frozenset)):
        return list(enumerate(sorted(value, key=lambda item: (type(item).__name__, repr(item)))))
    if is_dataclass_instance(value):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value) if field.init]
    return None


def rebuild(value: Any, values: Sequence[Any]) -> Any:
    """Returns a copy of a value with other values below it, in the order of :func:`children`."""
    if isinstance(value, fdl.Buildable):
        _, metadata = value.__flatten__()
        return value.__unflatten__(values, metadata)
    if isinstance(value, dict):
        pairs = zip(value, values, strict=True)
        if type(value) is dict:
            return dict(pairs)
        other = copy.copy(value)
        other.update(pairs)
        return other
    if is_named_tuple(value):
        return type(value)(*values)
    if isinstance(value, (list, tuple, set, frozenset)):
        return type(value)(values)
    names = [field.name for field in dataclasses.fields(value) if field.init]
    return dataclasses.replace(value, **dict(zip(names, values, strict=True)))


def is_named_tuple(value: Any) -> TypeGuard[Any]:
    """Returns whether a value is an instance of a named tuple."""
    return isinstance(value, tuple) and hasattr(type(value), "_fields")


def iter_nodes(root: Any) -> Iterator[tuple[str, Any, Sequence[tuple[Any, Any]] | None]]:
    """Yields every value of a graph with its path and what is below it, depth first, shared ones once.

    Raises:
        ConfigError: It nests too deep, or a value holds itself.
    """
    seen: set[int] = set()
    above: set[int] = set()
    stack: list[tuple[str, Any, int]] = [("", root, 0)]
    while stack:
        path, value, depth = stack.pop()
        if depth < 0:  # the way back up
            above.discard(id(value))
            continue
        if id(value) in above:
            raise ConfigError("the value holds itself", path)
        below = children(value)
        shareable = is_shareable(value)
        if shareable and id(value) in seen:
            continue
        yield path, value, below
        if below is None:
            continue
        if depth >= MAX_DEPTH:
            raise ConfigError(f"nested deeper than {MAX_DEPTH} levels", path)
        if shareable:
            seen.add(id(value))
            above.add(id(value))
            stack.append((path, value, -1))
        stack.extend((join(path, key), child, depth + 1) for key, child in reversed(below))
