"""Visits the leaves of a config, and copies the config with other leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import fiddle as fdl

from nemo_airflow.config.objects.buildable import path_below
from nemo_airflow.config.types import checks
from nemo_airflow.config.types.graph import (
    children,
    is_dataclass_instance,
    is_deferred,
    is_named_tuple,
    is_shareable,
    iter_nodes,
    rebuild,
)
from nemo_airflow.config.types.hints import hints_of
from nemo_airflow.config.types.parameters import parameters_of
from nemo_airflow.exceptions import ConfigError, ParameterTypeError
from nemo_airflow.language.plan.grammar import Path, below, path_text


def iter_leaves(config: Any) -> Iterator[tuple[str, Any]]:
    """Yields the dotted path and value of each leaf that is set, depth first.

    A leaf is any value other than a config, a container or a dataclass instance. A value in several
    places is visited at the first one.

    Args:
        config: A config, a container, or a leaf itself (its path is empty).
    """
    for path, value, pairs in iter_nodes(config):
        if pairs is None:
            yield path_text(path), value


def map_leaves(config: Any, fn: Callable[[str, Any], Any]) -> Any:
    """Returns a copy in which ``fn(path, value)`` replaces each leaf; shared values stay shared.

    A value that changed is converted to the annotation of its place where needed, since templates
    give texts: ``"0.5"`` becomes a float where one is wanted. Values that did not change are left
    as they are.

    Args:
        config: A config, a container, or a leaf itself.
        fn: Takes a leaf's dotted path and value, and returns the new value.

    Raises:
        ParameterTypeError: A new value does not fit, with its path.
    """

    def convert(path: str, leaf: Any, annotation: Any) -> Any:
        new = fn(path, leaf)
        if _is_same(new, leaf) or is_deferred(new):
            return new
        return fit_value(annotation, new, path)

    return convert_leaves(config, convert)


def convert_leaves(config: Any, fn: Callable[[str, Any, Any], Any]) -> Any:
    """Returns a copy in which ``fn(path, value, annotation)`` replaces each leaf; shared values stay shared.

    Args:
        config: A config, a container, or a leaf itself.
        fn: Takes a leaf's dotted path, its value and the annotation of its place, and returns the new value.
    """
    return _Mapping(fn).map(config)


def copy_config(config: Any) -> Any:
    """Returns a copy of a config with the same leaves; shared values stay shared."""
    return _Mapping(None).map(config)


def annotation_below(value: Any, key: Any, annotation: Any) -> Any:
    """Returns the annotation of the value under a key, from the annotation of its parent."""
    if isinstance(value, fdl.Buildable):
        parameter = parameters_of(value.__fn_or_cls__).find(key)
        return Any if parameter is None else parameter.annotation
    if is_named_tuple(value) or is_dataclass_instance(value):
        return hints_of(type(value)).get(key, Any)
    return checks.find_element(annotation, key, value)


def fit_value(annotation: Any, value: Any, path: str, read: Callable[[Any, Any], Any] = checks.read_value) -> Any:
    """Returns a value converted to the annotation.

    Args:
        annotation: The annotation.
        value: The value.
        path: Where it goes, for the error.
        read: How to read it; one of the readers of :mod:`nemo_airflow.config.types.checks`.

    Raises:
        ParameterTypeError: It does not fit.
    """
    try:
        return read(annotation, value)
    except checks.MisfitError as error:
        raise ParameterTypeError(error.misfit.message, path_below(path, error.misfit.keys)) from None


@dataclasses.dataclass(frozen=True, slots=True)
class _Made:
    """The copy of a value.

    Attributes:
        value: The copy.
        changed: Whether a leaf in it changed.
    """

    value: Any
    changed: bool


class _Mapping:
    def __init__(self, fn: Callable[[str, Any, Any], Any] | None) -> None:
        self._fn = fn
        # By the id of the original, which is kept alive since ids are used again. A tuple also by its annotation:
        # its items are converted for each place.
        self._copies: dict[tuple[int, int], tuple[_Made, Any, Any]] = {}
        self._above: set[int] = set()

    def map(self, root: Any) -> Any:
        """Returns the copy."""
        return self._copy(root, (), Any).value

    def _copy(self, value: Any, path: Path, annotation: Any) -> _Made:
        pairs = children(value)
        if pairs is None:
            new = value if self._fn is None else self._fn(path_text(path), value, annotation)
            return _Made(new, not _is_same(new, value))
        key = (id(value), 0 if is_shareable(value) else id(annotation))
        if key in self._copies:
            return self._copies[key][0]
        if id(value) in self._above:
            raise ConfigError("the value contains itself", path_text(path))
        self._above.add(id(value))
        made = []
        for name, child in pairs:
            made.append(self._copy(child, below(path, name), annotation_below(value, name, annotation)))
        self._above.discard(id(value))
        changed = any(part.changed for part in made)
        copy = _Made(rebuild(value, [part.value for part in made], same=not changed), changed)
        self._copies[key] = (copy, value, annotation)
        return copy


def _is_same(new: Any, old: Any) -> bool:
    return new is old or (isinstance(new, str) and isinstance(old, str) and new == old)
