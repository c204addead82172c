"""The values at the ends of a config: visiting them, and a copy of the config with others in their places."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import fiddle as fdl

from nemo_airflow.config import checks
from nemo_airflow.config.buildable import path_below
from nemo_airflow.config.graph import (
    children,
    is_dataclass_instance,
    is_deferred,
    is_named_tuple,
    is_shareable,
    iter_nodes,
    join,
    rebuild,
)
from nemo_airflow.config.hints import hints_of
from nemo_airflow.config.parameters import parameters_of
from nemo_airflow.exceptions import ConfigError, ParameterTypeError
from nemo_airflow.runner.grammar import MAX_DEPTH


def iter_leaves(config: Any) -> Iterator[tuple[str, Any]]:
    """Yields the dotted path and value of each leaf that is set, depth first.

    A leaf is what is neither a config nor a container nor a dataclass instance. What is in several
    places is visited at the first.

    Args:
        config: A config, a container, or a leaf itself (its path is empty).
    """
    for path, value, below in iter_nodes(config):
        if below is None:
            yield path, value


def map_leaves(config: Any, fn: Callable[[str, Any], Any]) -> Any:
    """Returns a copy with ``fn(path, value)`` in the place of each leaf; shared values stay shared.

    A value that changed is converted to the annotation of its place where needed, since templates
    give texts: ``"0.5"`` becomes a float where one is wanted. Values that did not change are left
    as they are.

    Args:
        config: A config, a container, or a leaf itself.
        fn: Takes a leaf's dotted path and value, and returns the new value.

    Raises:
        ParameterTypeError: A new value does not fit, with its path.
    """
    return _Mapping(fn).map(config, "", Any, 0)


def annotation_below(value: Any, key: Any, annotation: Any) -> Any:
    """Returns the annotation of what is under a key of a value that itself has that annotation."""
    if isinstance(value, fdl.Buildable):
        parameter = parameters_of(value.__fn_or_cls__).find(key)
        return Any if parameter is None else parameter.annotation
    if is_named_tuple(value) or is_dataclass_instance(value):
        return hints_of(type(value)).get(key, Any)
    return checks.element(annotation, key, value)


def fitted(annotation: Any, value: Any, path: str, read: Callable[[Any, Any], Any] = checks.read_value) -> Any:
    """Returns a value as the annotation wants it.

    Args:
        annotation: The annotation.
        value: The value.
        path: Where it goes, for the error.
        read: How to read it; one of the readers of :mod:`nemo_airflow.config.checks`.

    Raises:
        ParameterTypeError: It does not fit.
    """
    try:
        return read(annotation, value)
    except checks.MisfitError as error:
        raise ParameterTypeError(error.misfit.message, path_below(path, error.misfit.keys)) from None


class _Mapping:
    def __init__(self, fn: Callable[[str, Any], Any]) -> None:
        self._fn = fn
        self._copies: dict[int, Any] = {}
        self._above: set[int] = set()

    def map(self, value: Any, path: str, annotation: Any, depth: int) -> Any:
        below = children(value)
        if below is None:
            return self._leaf(value, path, annotation)
        if id(value) in self._copies:
            return self._copies[id(value)]
        if id(value) in self._above:
            raise ConfigError("the value holds itself", path)
        if depth >= MAX_DEPTH:
            raise ConfigError(f"nested deeper than {MAX_DEPTH} levels", path)
        self._above.add(id(value))
        copies = []
        for key, child in below:
            copies.append(self.map(child, join(path, key), annotation_below(value, key, annotation), depth + 1))
        self._above.discard(id(value))
        copy = rebuild(value, copies)
        if is_shareable(value):
            self._copies[id(value)] = copy
        return copy

    def _leaf(self, value: Any, path: str, annotation: Any) -> Any:
        new = self._fn(path, value)
        if new is value or (isinstance(new, str) and isinstance(value, str) and new == value) or is_deferred(new):
            return new
        return fitted(annotation, new, path)
