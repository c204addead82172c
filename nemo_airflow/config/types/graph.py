"""Configs, containers and dataclass instances as one graph: lists a value's children and copies it with others."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import inspect
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any, TypeGuard

import fiddle as fdl

from nemo_airflow.exceptions import ConfigError
from nemo_airflow.language.artifact import Artifact
from nemo_airflow.language.plan.grammar import MAX_DEPTH, Path, below, join, path_text, too_deep

Key = str | int

__all__ = [
    "Key",
    "children",
    "is_dataclass_instance",
    "is_deferred",
    "is_shareable",
    "is_template",
    "iter_nodes",
    "join",
    "literal_of",
    "rebuild",
    "recipe_overrides",
    "templates_rendered",
]

_RENDERED: ContextVar[bool] = ContextVar("nemo_airflow_templates_rendered", default=False)


def is_template(value: Any) -> bool:
    """Returns whether a value is a Jinja template: a text that contains ``{{`` or ``{%``."""
    return isinstance(value, str) and ("{{" in value or "{%" in value)


def is_deferred(value: Any) -> bool:
    """Returns whether a value is deferred: a template that was not rendered, or the output of another task.

    Outputs of tasks are recognized by their attributes, so that Airflow need not be imported.
    """
    if isinstance(value, str):
        return is_template(value) and not _RENDERED.get()
    kind: Any = type(value)
    return _is_reference(kind)


@contextlib.contextmanager
def templates_rendered() -> Iterator[None]:
    """Treats every text as a value: templates were rendered, and a rendered text may look like a template."""
    token = _RENDERED.set(True)
    try:
        yield
    finally:
        _RENDERED.reset(token)


def literal_of(value: Any) -> Any:
    """Returns the content of Airflow's ``literal(...)``, and any other value unchanged."""
    kind: Any = type(value)
    return value.value if kind.__name__ == "LiteralValue" and _is_reference(kind) else value


@functools.lru_cache(maxsize=1024)
def _is_reference(kind: Any) -> bool:
    return hasattr(kind, "iter_references") and hasattr(kind, "resolve")


def recipe_overrides(value: Any) -> Sequence[str] | None:
    """Returns the overrides for the result of a recipe's factory, or None for any other value.

    Looked up on the class: a missing attribute of a config makes Fiddle format the whole config for its error.
    """
    return value.__recipe_overrides__ if getattr(type(value), "__recipe_overrides__", None) is not None else None


def is_dataclass_instance(value: Any) -> bool:
    """Returns whether a value is an instance of a dataclass, not a dataclass itself; an artifact is one value."""
    is_instance = dataclasses.is_dataclass(value) and not isinstance(value, (type, fdl.Buildable, Artifact))
    return is_instance and not is_deferred(value)


def is_shareable(value: Any) -> bool:
    """Returns whether a value has an identity, so that two places can share it."""
    return isinstance(value, (fdl.Buildable, list, dict, set)) or is_dataclass_instance(value)


def children(value: Any) -> Sequence[tuple[Any, Any]] | None:
    """Returns the keys and values below a value in a stable order, or None for a leaf.

    The keys of a config are parameter names, and positions for arguments that have no name; those
    of a dict are its own keys; those of a set are positions in a stable order.
    """
    if type(value) in _LEAVES:
        return None
    if isinstance(value, fdl.Buildable):
        return _arguments(value)
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


_LEAVES = frozenset((str, int, float, bool, type(None)))


def _arguments(config: Any) -> list[tuple[Any, Any]]:
    """Returns the arguments of a config in the order of its signature, as Fiddle's ``ordered_arguments`` does."""
    given = list(config.__arguments__.items())
    if len(given) < 2:
        return given
    ranks, star = _ranks(config.__signature_info__.signature)
    last = len(ranks) + 1
    return sorted(
        given, key=lambda pair: ranks.get(pair[0]) or ((star, pair[0]) if type(pair[0]) is int else (last, 0))
    )


def _read_ranks(signature: inspect.Signature) -> tuple[dict[Any, tuple[int, int]], int]:
    ranks: dict[Any, tuple[int, int]] = {}
    star = len(signature.parameters)
    for index, (name, parameter) in enumerate(signature.parameters.items()):
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            star = index
        elif parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            ranks[index if parameter.kind is inspect.Parameter.POSITIONAL_ONLY else name] = (index, 0)
    return ranks, star


_known_ranks: dict[int, tuple[inspect.Signature, tuple[dict[Any, tuple[int, int]], int]]] = {}


def _ranks(signature: inspect.Signature) -> tuple[dict[Any, tuple[int, int]], int]:
    found = _known_ranks.get(id(signature))  # a signature's own hash is that of all of its parameters
    if found is None:
        if len(_known_ranks) > 4096:
            _known_ranks.clear()
        found = _known_ranks[id(signature)] = (signature, _read_ranks(signature))
    return found[1]


def rebuild(value: Any, values: Sequence[Any], *, same: bool = False) -> Any:
    """Returns a copy of a value with other values below it, in the order of :func:`children`.

    Args:
        value: A config, a container, or a dataclass's instance.
        values: The new values.
        same: Whether these are only copies of the old ones. A dataclass's instance is then copied as it is;
            else its class is called with the new values, ``__post_init__`` with it.
    """
    if isinstance(value, fdl.Buildable):
        _, metadata = value.__flatten__()
        return value.__unflatten__(values, metadata)
    if type(value) in _PLAIN_CONTAINERS:
        return dict(zip(value, values, strict=True)) if isinstance(value, dict) else type(value)(values)
    if is_named_tuple(value):
        return type(value)(*values)
    if isinstance(value, (tuple, frozenset)):
        return type(value)(values)
    if isinstance(value, (dict, list, set)):
        return _refilled(copy.copy(value), values)
    named = {name: new for (name, _), new in zip(children(value) or (), values, strict=True)}
    if not same:
        return dataclasses.replace(value, **named)
    other = copy.copy(value)
    for name, new in named.items():
        object.__setattr__(other, name, new)  # it may be frozen
    return other


_PLAIN_CONTAINERS = frozenset((dict, list, set, tuple, frozenset))


def _refilled(container: Any, values: Sequence[Any]) -> Any:
    """Returns a container with new values; its class may have its own constructor and attributes."""
    if isinstance(container, dict):
        for key, new in zip(list(container), values, strict=True):
            container[key] = new
    elif isinstance(container, list):
        container[:] = values
    else:
        container.clear()
        container.update(values)
    return container


def is_named_tuple(value: Any) -> TypeGuard[Any]:
    """Returns whether a value is an instance of a named tuple."""
    return isinstance(value, tuple) and hasattr(type(value), "_fields")


def iter_nodes(root: Any) -> Iterator[tuple[Path, Any, Sequence[tuple[Any, Any]] | None]]:
    """Iterates over every value of a graph with its path and children, depth first; shared values once.

    Raises:
        ConfigError: A value contains itself, or is nested too deep.
    """
    found: list[tuple[Path, Any, Sequence[tuple[Any, Any]] | None]] = []
    above: set[int] = set()
    levels: dict[int, int] = {}
    """How many levels there are below each visited value that may be shared."""
    kept: list[Any] = []  # alive, since ids are reused

    def visit(path: Path, value: Any) -> int:
        pairs = children(value)
        if pairs is None:
            found.append((path, value, None))
            return 0
        if id(value) in above:
            raise ConfigError("the value contains itself", path_text(path))
        # A plan writes a tuple at each place, but visiting each place could take exponential time.
        is_once = is_shareable(value) or any(isinstance(child, tuple) for _, child in pairs)
        if is_once and id(value) in levels:
            if len(path) + levels[id(value)] > MAX_DEPTH:
                raise too_deep(path)
            return levels[id(value)]
        found.append((path, value, pairs))
        above.add(id(value))
        deepest = 0
        for key, child in pairs:
            deepest = max(deepest, 1 + visit(below(path, key), child))
        above.discard(id(value))
        if is_once:
            levels[id(value)] = deepest
            kept.append(value)
        return deepest

    visit((), root)
    return iter(found)
