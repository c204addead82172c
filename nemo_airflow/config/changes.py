"""One change of a config: a value at a path, typed by the annotation of what it replaces."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import fiddle as fdl

from nemo_airflow.config import checks
from nemo_airflow.config.buildable import unchecked
from nemo_airflow.config.graph import children, is_dataclass_instance, iter_nodes, join, rebuild, recipe_overrides
from nemo_airflow.config.leaves import annotation_below, copy_config, fit_value
from nemo_airflow.config.origins import ChangeLocation, remove_argument, set_argument
from nemo_airflow.config.parameters import NO_DEFAULT, parameters_of
from nemo_airflow.config.representation import value_text
from nemo_airflow.config.targets import short_name
from nemo_airflow.config.values import Values, as_call, as_whole, holds_code
from nemo_airflow.exceptions import OverrideError, ParameterTypeError
from nemo_airflow.language.nearest import nearest
from nemo_airflow.language.overrides.errors import OverrideSyntaxError, excerpt
from nemo_airflow.language.overrides.nodes import Items, Pairs, value_of
from nemo_airflow.language.overrides.operators import combine
from nemo_airflow.language.overrides.syntax import Override
from nemo_airflow.language.overrides.writing import format_override

REMOVED: Any = object()
"""The value of an override that removes the value at its path."""


@contextlib.contextmanager
def syntax_errors(path: str) -> Iterator[None]:
    """Converts errors of the grammar to ``OverrideError``, with a caret below the place."""
    try:
        yield
    except OverrideSyntaxError as error:
        text = f"{error.message}\n{excerpt(error.text, error.column)}" if error.text else error.message
        raise OverrideError(text, path) from None


@contextlib.contextmanager
def not_too_deep(path: str) -> Iterator[None]:
    """Converts Python's recursion error for a value to ``OverrideError``; configs themselves may nest that deep."""
    try:
        yield
    except RecursionError:
        raise OverrideError("the value is nested too deep to be read", path) from None


class Change:
    """One value to set in a config that may be changed.

    Args:
        path: The whole path, for errors.
        keys: Its keys.
        operator: What to do with the value that is there; see :mod:`nemo_airflow.language.overrides.operators`.
        given: What to set: a value, or a node of the grammar of overrides.
        values: Makes the value for its place.
        location: Who sets it, for the config's history.
        override: The override that was read, for errors.
    """

    def __init__(
        self,
        path: str,
        keys: Sequence[str | int],
        operator: str,
        given: Any,
        values: Values,
        location: ChangeLocation,
        override: Override | None = None,
    ) -> None:
        self._path, self._keys, self._operator, self._given = path, keys, operator, given
        self._values, self._location, self._override = values, location, override
        self._root: Any = None

    def apply(self, root: Any) -> Any:
        """Returns the root: the same one changed, or another where it could not be.

        Raises:
            ConfigError: The path leads nowhere, or the value does not fit there.
        """
        return self.apply_at(root, "", Any, None, root)

    def apply_at(self, node: Any, path: str, annotation: Any, holder: Any, root: Any) -> Any:
        """Like :meth:`apply`, for the keys below a node of the root.

        Args:
            node: The node.
            path: Its path.
            annotation: Its annotation.
            holder: The config that holds it, or None.
            root: The root.
        """
        self._root = root
        with not_too_deep(self._path):
            return self._set(node, 0, path, annotation, holder)

    def _set(self, node: Any, number: int, path: str, annotation: Any, holder: Any) -> Any:
        """Returns the replacement of a node after the value was set in it."""
        if number == len(self._keys):
            return self.new(node, annotation, path, holder)
        if is_dataclass_instance(node):
            node = self._as_config(node)
        if recipe_overrides(node) is not None and self._is_resolved_later(node, number):
            return node
        key = self._key(node, number, path, annotation)
        below = join(path, key)
        is_last = number == len(self._keys) - 1
        if is_last and self._given is REMOVED:
            return self._without(node, key, below)
        inner = annotation_below(node, key, annotation)
        child = self._child(node, key, number, below, inner)
        new = self._set(child, number + 1, below, inner, node if isinstance(node, fdl.Buildable) else holder)
        if isinstance(node, fdl.Buildable):
            # A nested config records the change in its own history.
            if new is not node.__arguments__.get(key, REMOVED) or not isinstance(new, fdl.Buildable):
                set_argument(node, key, new, self._location)
            return node
        if isinstance(node, (list, dict)):
            node[key] = new
            return node
        pairs = children(node) or ()
        return rebuild(node, [new if name == key else value for name, value in pairs])

    def _is_resolved_later(self, recipe: Any, number: int) -> bool:
        """Passes an override of the result of a recipe's factory to the recipe; returns whether it was one."""
        from nemo_airflow.config.job_values import JobValues
        from nemo_airflow.config.recipe import add_override, takes

        if takes(recipe, self._keys[number]):
            return False
        values = JobValues(self._values, recipe.__fn_or_cls__)
        value = None if self._given is REMOVED else values.of(self._given, self._path)
        with syntax_errors(self._path):
            text = format_override(self._keys[number:], self._operator, value)
        add_override(recipe, text, self._location)
        return True

    def _without(self, node: Any, key: Any, path: str) -> Any:
        if isinstance(node, fdl.Buildable):
            if key not in node.__arguments__:
                raise OverrideError(f"{path} is not set, so ~= cannot remove it", self._path)
            remove_argument(node, key, self._location)
            return node
        if isinstance(node, (list, dict)):
            del node[key]
            return node
        if type(node) is tuple:
            return tuple(item for index, item in enumerate(node) if index != key)
        raise OverrideError(
            f"~= cannot remove an item of a {type(node).__name__}: set the whole value with =", self._path
        )

    def _key(self, node: Any, number: int, path: str, annotation: Any) -> Any:
        """Returns the key of a node for one part of the path."""
        key = self._keys[number]
        if isinstance(node, fdl.Buildable):
            parameters = parameters_of(node.__fn_or_cls__)
            position = _index(key)
            if position is not None and position in node.__arguments__:
                return position
            if isinstance(key, str) and parameters.find(key) is not None:
                return parameters.name_of(key)
            raise self._unknown(f"{short_name(node.__fn_or_cls__)} has no parameter", number, parameters.names, path)
        pairs = None if isinstance(node, (set, frozenset)) else children(node)
        if pairs is None:
            what = "None" if node is None else f"of type {type(node).__name__}"
            hint = self._as_whole(annotation, path, number) if node is None else ""
            raise OverrideError(f"{path or 'the root'} is {what} and has nothing below it{hint}", self._path)
        names = [name for name, _ in pairs]
        if isinstance(node, (list, tuple)) and (position := _index(key)) is not None:
            if -len(names) <= position < len(names):
                return position % len(names)
        else:
            for name in names:
                if name == key or str(name) == str(key):
                    return name
        hint = f"; {path}|={{{key}: ...}} adds one" if isinstance(node, dict) and path else ""
        raise self._unknown(f"this {type(node).__name__} has no item", number, map(str, names), path, hint)

    def new(self, old: Any, annotation: Any, path: str, holder: Any) -> Any:
        """Returns the new value for the end of the path.

        Args:
            old: That value, or the parameter's default; None where there is none.
            annotation: The annotation of the place.
            path: The place.
            holder: The config that holds it, or None.
        """
        if self._operator == "=":
            new = self._read(annotation, path, find_neighbours(old, holder))
        else:
            given = self._values.make(self._given, path, find_neighbours(old, holder))
            with syntax_errors(self._path):
                new = combine(self._operator, old, given)
            new = fit_value(annotation, new, path)
        return match_type(old, new, annotation)

    def _read(self, annotation: Any, path: str, homes: Sequence[Any]) -> Any:
        plain = isinstance(self._given, (Items, Pairs)) and not holds_code(self._given)
        if self._override is None or not plain:
            return self._values.read(annotation, self._given, path, homes)
        # A typed value: as the grammar reads it, otherwise as a text that the annotation converts.
        value = value_of(self._given)
        if checks.check(annotation, value) is None:
            return value
        try:
            return fit_value(annotation, self._override.raw, path, checks.read_text)
        except ParameterTypeError as error:
            with contextlib.suppress(ParameterTypeError):
                return fit_value(annotation, value, path)
            hint = as_call(annotation, value) if error.path == path else ""
            raise ParameterTypeError(f"{error.message}{hint}", error.path) from None

    def _child(self, node: Any, key: Any, number: int, path: str, annotation: Any) -> Any:
        if not isinstance(node, fdl.Buildable):
            return dict(children(node) or ())[key]
        if key in node.__arguments__:
            return node.__arguments__[key]
        parameter = parameters_of(node.__fn_or_cls__).find(key)
        default = NO_DEFAULT if parameter is None or parameter.is_variadic else parameter.known_default()
        if default is not NO_DEFAULT:
            return copy_config(default)  # a copy: it is the target's own default
        if number == len(self._keys) - 1:
            return None
        hint = self._as_whole(annotation, path, number + 1)
        raise OverrideError(f"{path} is not set, so nothing below it can be changed{hint}", self._path)

    def _as_whole(self, annotation: Any, path: str, number: int) -> str:
        """Returns a hint for an error: the value at a path written as a whole, with the given value in it."""
        if self._operator != "=" or self._given is REMOVED or not path:
            return ""
        text = self._override.raw if self._override is not None else value_text(self._given)
        return as_whole(annotation, path, self._keys[number:], text)

    def _as_config(self, instance: Any) -> Any:
        """Returns a dataclass's instance as a config, in all places that hold it."""
        names = [field.name for field in dataclasses.fields(instance) if field.init]
        config = unchecked(type(instance), {name: getattr(instance, name) for name in names})
        for _, value, below in iter_nodes(self._root):
            if isinstance(value, (fdl.Buildable, list, dict)):
                for key, child in below or ():
                    if child is instance:
                        arguments = value.__arguments__ if isinstance(value, fdl.Buildable) else value
                        arguments[key] = config
        if self._root is instance:
            self._root = config
        return config

    def _unknown(self, what: str, number: int, names: Iterable[str], path: str, hint: str = "") -> OverrideError:
        key = self._keys[number]
        message = f"{what} {key!r}{f' at {path}' if path else ''}{nearest(str(key), names)}{hint}"
        if self._override is not None and number < len(self._override.columns):
            message += f"\n{excerpt(self._override.text, self._override.columns[number])}"
        return OverrideError(message, self._path)


def match_type(old: Any, new: Any, annotation: Any) -> Any:
    """Returns a list as the type that it replaces, a tuple or set, where that fits: JSON has only lists."""
    if isinstance(new, list) and type(old) in (tuple, set, frozenset):
        with contextlib.suppress(TypeError):
            converted = type(old)(new)
            return converted if checks.check(annotation, converted) is None else new
    return new


def find_neighbours(old: Any, holder: Any) -> list[Any]:
    """Returns the functions and classes whose modules may define a factory for this value."""
    targets = []
    if isinstance(old, fdl.Buildable):
        targets.append(old.__fn_or_cls__)
    elif is_dataclass_instance(old):
        targets.append(type(old))
    return targets if holder is None else [*targets, holder.__fn_or_cls__]


def _index(key: str | int) -> int | None:
    if isinstance(key, int):
        return key
    return int(key) if re.fullmatch(r"-?\d{1,9}", key) else None
