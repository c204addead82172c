"""Other values for a config by dotted path, typed by the annotations of what they replace."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import fiddle as fdl

from nemo_airflow.config import checks
from nemo_airflow.config.buildable import unchecked
from nemo_airflow.config.graph import children, is_dataclass_instance, iter_nodes, join, rebuild
from nemo_airflow.config.leaves import annotation_below, fitted, map_leaves
from nemo_airflow.config.parameters import NO_DEFAULT, nearest, parameters_of
from nemo_airflow.config.targets import short_name
from nemo_airflow.exceptions import OverrideError

_WORD = re.compile(r"[^.\[\]]+")
_BRACKET = re.compile(r"\[\s*('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|-?\d+)\s*\]")


def apply_overrides(config: Any, overrides: Mapping[str, Any] | Sequence[str]) -> Any:
    """Returns a copy of a config with other values in some places; shared values stay shared.

    A path leads through parameters, also those left at their default, through list indices and
    through dict keys: ``model.layers.0``, ``names["a.b"]``.

    Args:
        config: The config; it is not changed.
        overrides: Values by path, or texts such as ``"model.hidden=64"``. A text is read as the
            annotation at its path wants it: ``3e-4`` for a float, ``[1, 2]`` for a list, a member's
            name or value for an Enum, ``null`` where None is allowed.

    Raises:
        OverrideError: A path leads nowhere (the nearest names are in the message), or a text is
            not of the form ``path=value``.
        ParameterTypeError: A value does not fit the annotation at its path.
    """
    changed = map_leaves(config, lambda _, value: value)
    for path, value, read in _pairs(overrides):
        keys = parse_path(path)
        changed = _Setting(changed, path, keys, value, read).apply()
    return changed


def parse_path(path: str) -> list[str | int]:
    """Returns the keys of a dotted path; those in brackets are literal texts or numbers.

    Raises:
        OverrideError: It is no such path.
    """
    keys: list[str | int] = []
    position = 0
    while position < len(path):
        if path[position] == "[" and (match := _BRACKET.match(path, position)):
            keys.append(ast.literal_eval(match[1]))
        else:
            start = position + 1 if keys and path[position] == "." else position
            match = _WORD.match(path, start) if (start > position) == bool(keys) else None
            if match is None:
                raise OverrideError(f"{path!r} is no path: write names with dots between them, such as model.layers.0")
            keys.append(match[0].strip())
        position = match.end()
    if not keys:
        raise OverrideError("an override without a path: write path=value")
    return keys


def _pairs(overrides: Mapping[str, Any] | Sequence[str]) -> Iterable[tuple[str, Any, Any]]:
    if isinstance(overrides, Mapping):
        for path, value in overrides.items():
            if not isinstance(path, str):
                raise OverrideError(f"the path {path!r} is not a text")
            yield path, value, checks.read_value
        return
    for text in [overrides] if isinstance(overrides, str) else overrides:
        path, equals, value = text.partition("=") if isinstance(text, str) else ("", "", "")
        if not equals or not path.strip():
            raise OverrideError(f"the override {text!r} is not of the form path=value")
        yield path.strip(), value.strip(), checks.read_text


class _Setting:
    """One value to set in a config that may be changed.

    Args:
        root: The config.
        path: The whole path, for errors.
        keys: Its keys.
        value: What to set.
        read: How to read the value for an annotation.
    """

    def __init__(self, root: Any, path: str, keys: Sequence[str | int], value: Any, read: Any) -> None:
        self._root, self._path, self._keys, self._value, self._read = root, path, keys, value, read

    def apply(self) -> Any:
        """Returns the root: the same one changed, or another where it could not be."""
        return self._set(self._root, 0, "", Any)

    def _set(self, node: Any, number: int, path: str, annotation: Any) -> Any:
        """Returns what takes the place of a node once the value is set in it."""
        if number == len(self._keys):
            return self._new(node, annotation, path)
        if is_dataclass_instance(node):
            node = self._as_config(node)
        key = self._key(node, self._keys[number], path)
        below = join(path, key)
        is_last = number == len(self._keys) - 1
        child = self._child(node, key, below, needed=not is_last)
        new = self._set(child, number + 1, below, annotation_below(node, key, annotation))
        if isinstance(node, fdl.Buildable):
            # Checked above, with the whole path: Fiddle's own way would check again.
            fdl.Buildable._arguments_set_value(node, key, new)
            return node
        if isinstance(node, (list, dict)):
            node[key] = new
            return node
        pairs = children(node) or ()
        return rebuild(node, [new if name == key else value for name, value in pairs])

    def _key(self, node: Any, key: str | int, path: str) -> Any:
        """Returns the key of a node that a part of the path means."""
        if isinstance(node, fdl.Buildable):
            parameters = parameters_of(node.__fn_or_cls__)
            position = _index(key)
            if position is not None and position in node.__arguments__:
                return position
            if isinstance(key, str) and parameters.find(key) is not None:
                return key
            raise self._unknown(f"{short_name(node.__fn_or_cls__)} has no parameter", key, parameters.names, path)
        pairs = None if isinstance(node, (set, frozenset)) else children(node)
        if pairs is None:
            what = "None" if node is None else f"of type {type(node).__name__}"
            raise OverrideError(f"{path or 'the root'} is {what}, so there is nothing below it", self._path)
        names = [name for name, _ in pairs]
        if isinstance(node, (list, tuple)) and (position := _index(key)) is not None:
            if -len(names) <= position < len(names):
                return position % len(names)
        else:
            for name in names:
                if name == key or str(name) == str(key):
                    return name
        raise self._unknown(f"this {type(node).__name__} has no item", key, map(str, names), path)

    def _new(self, old: Any, annotation: Any, path: str) -> Any:
        new = fitted(annotation, self._value, path, self._read)
        if isinstance(new, list) and type(old) in (tuple, set, frozenset):
            # JSON has lists only: what replaces a tuple is one too, where that fits.
            with contextlib.suppress(TypeError):
                alike = type(old)(new)
                return alike if checks.check(annotation, alike) is None else new
        return new

    def _child(self, node: Any, key: Any, path: str, *, needed: bool) -> Any:
        if not isinstance(node, fdl.Buildable):
            return dict(children(node) or ())[key]
        if key in node.__arguments__:
            return node.__arguments__[key]
        parameter = parameters_of(node.__fn_or_cls__).find(key)
        default = NO_DEFAULT if parameter is None or parameter.is_variadic else parameter.known_default()
        if default is NO_DEFAULT and not needed:
            return None
        if default is NO_DEFAULT:
            raise OverrideError(f"{path} has no value yet, so there is nothing below it", self._path)
        return map_leaves(default, lambda _, value: value)  # a copy: it is the target's own default

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

    def _unknown(self, what: str, key: str | int, names: Iterable[str], path: str) -> OverrideError:
        return OverrideError(f"{what} {key!r}{f' at {path}' if path else ''}{nearest(str(key), names)}", self._path)


def _index(key: str | int) -> int | None:
    if isinstance(key, int):
        return key
    return int(key) if re.fullmatch(r"-?\d{1,9}", key) else None
