"""Changes one value of a config: the same here, where configs are Fiddle's, and in the job, which has its own.

What differs between the two is behind a :class:`View`.
"""

from __future__ import annotations

import abc
import contextlib
import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Any, List, Optional, Union

from nemo_airflow.language.errors import OverrideError, ParameterTypeError, excerpt
from nemo_airflow.language.hints import class_of, element_of
from nemo_airflow.language.nearest import nearest
from nemo_airflow.language.overrides.advice import as_call, as_whole
from nemo_airflow.language.overrides.fits import MisfitError
from nemo_airflow.language.overrides.nodes import Items, Node, Pairs, value_of
from nemo_airflow.language.overrides.operators import combine
from nemo_airflow.language.overrides.syntax import Override
from nemo_airflow.language.overrides.values import Reader
from nemo_airflow.language.plan.grammar import join
from nemo_airflow.language.texts import short_name, value_text
from nemo_airflow.language.view import View

Key = Union[str, int]

REMOVED: Any = type("_Removed", (), {"__repr__": lambda self: "~="})()
"""The value of an override that removes the value at its path."""

MISSING: Any = type("_Missing", (), {"__repr__": lambda self: "no value"})()
"""Stands for a value that is not set."""


class ChangeView(View):
    """How a change sees configs."""

    @abc.abstractmethod
    def find_key(self, config: Any, key: Key) -> Any:
        """Returns the key of an argument that a config takes under a name or position, or None."""

    @abc.abstractmethod
    def names(self, config: Any) -> Iterable[str]:
        """Returns the names of the arguments that a config takes."""

    @abc.abstractmethod
    def annotation(self, config: Any, key: Key) -> Any:
        """Returns the annotation of an argument, ``Any`` where there is none."""

    @abc.abstractmethod
    def set(self, config: Any, key: Key, value: Any) -> None:
        """Sets an argument, which was checked."""

    @abc.abstractmethod
    def remove(self, config: Any, key: Key) -> None:
        """Removes an argument that is set."""

    @abc.abstractmethod
    def copy_default(self, default: Any) -> Any:
        """Returns a copy of a target's default, which is then changed."""

    @abc.abstractmethod
    def open_instance(self, value: Any, root: Any) -> Any:
        """Returns a dataclass's instance as a config, also wherever else the root has it; any other value unchanged."""

    def hand_on(self, config: Any, change: Change, number: int) -> bool:
        """Returns whether the rest of a change's path, from a key on, is for others, and gives it to them if so."""
        return False

    @abc.abstractmethod
    def reader(self, annotation: Any, path: str, old: Any, holder: Any) -> Reader:
        """Returns the reader of the values for a place.

        Args:
            annotation: The place's annotation.
            path: The place.
            old: What is there, or None.
            holder: The config that has the place, or None.
        """

    def check(self, annotation: Any, value: Any, path: str) -> None:
        """Checks what was read; raises :class:`ParameterTypeError` where it does not fit."""


class Change:
    """One value to set in a config that may be changed.

    Args:
        view: How configs are seen.
        path: The whole path, for errors.
        keys: Its keys.
        operator: What to do with the value that is there; see :mod:`nemo_airflow.language.overrides.operators`.
        given: What to set: a node of an override, or a value; or :data:`REMOVED`.
        override: The override that was read, for errors and for places that take its text.
    """

    def __init__(
        self,
        view: ChangeView,
        path: str,
        keys: Sequence[Key],
        operator: str,
        given: Any,
        override: Optional[Override] = None,
    ) -> None:
        self.view, self.path, self.keys, self.operator, self.given = view, path, keys, operator, given
        self.override = override
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
        try:
            return self._set(node, 0, path, annotation, holder)
        except RecursionError:
            raise OverrideError("the value is nested too deep to be read", self.path) from None
        except OverrideError as error:  # those below do not know the whole path
            if error.path:
                raise
            raise OverrideError(error.message, self.path) from None

    def _set(self, node: Any, number: int, path: str, annotation: Any, holder: Any) -> Any:
        """Returns the replacement of a node after the value was set in it."""
        if number == len(self.keys):
            return self.new(node, annotation, path, holder)
        node = self._opened(node)
        if self.view.is_config(node) and self.view.hand_on(node, self, number):
            return node
        key = self._key(node, number, path, annotation)
        below = join(path, key)
        if number == len(self.keys) - 1 and self.given is REMOVED:
            return self._without(node, key, below)
        inner = (
            self.view.annotation(node, key)
            if self.view.is_config(node)
            else element_of(_choose_annotation(node, annotation), key)
        )
        child = self._child(node, key, number, below, inner)
        new = self._set(child, number + 1, below, inner, node if self.view.is_config(node) else holder)
        if self.view.is_config(node):
            # A nested config records the change in its own history.
            if new is not self.view.arguments(node).get(key, MISSING) or not self.view.is_config(new):
                self.view.set(node, key, new)
            return node
        if isinstance(node, (list, dict)):
            node[key] = new
            return node
        pairs = self.view.children(node) or ()
        return self.view.rebuild(node, [new if name == key else value for name, value in pairs])

    def _opened(self, node: Any) -> Any:
        opened = self.view.open_instance(node, self._root)
        if self._root is node:
            self._root = opened
        return opened

    def _without(self, node: Any, key: Any, path: str) -> Any:
        if self.view.is_config(node):
            if key not in self.view.arguments(node):
                raise OverrideError(f"{path} is not set, so ~= cannot remove it")
            self.view.remove(node, key)
            return node
        if isinstance(node, (list, dict)):
            del node[key]
            return node
        if type(node) is tuple:
            return tuple(item for index, item in enumerate(node) if index != key)
        raise OverrideError(f"~= cannot remove an item of a {type(node).__name__}: set the whole value with =")

    def _key(self, node: Any, number: int, path: str, annotation: Any) -> Any:
        """Returns the key of a node for one part of the path."""
        key = self.keys[number]
        if self.view.is_config(node):
            position = index_of(key)
            if position is not None and position in self.view.arguments(node):
                return position
            found = self.view.find_key(node, key)
            if found is None:
                what = f"{short_name(self.view.target(node))} has no parameter"
                raise self._unknown(what, number, self.view.names(node), path)
            return found
        pairs = None if isinstance(node, (set, frozenset)) else self.view.children(node)
        if pairs is None:
            what = "None" if node is None else f"of type {type(node).__name__}"
            hint = self._whole(annotation, path, number) if node is None else ""
            raise OverrideError(f"{path or 'the root'} is {what} and has nothing below it{hint}")
        names = [name for name, _ in pairs]
        found = find_name(names, key, is_sequence=isinstance(node, (list, tuple)))
        if found is not MISSING:
            return found
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
        reader = self.view.reader(annotation, path, old, holder)
        try:
            if self.operator == "=":
                new = reader.read(annotation, self.given, None if self.override is None else self.override.raw)
            else:
                new = reader.read(annotation, self._combined(reader, annotation, old))
        except MisfitError as error:
            hint = "" if error.misfit.keys or self.operator != "=" else as_call(annotation, _plain(self.given))
            raise ParameterTypeError(f"{error.misfit.message}{hint}", path_below(path, error.misfit.keys)) from None
        new = match_type(reader, old, new, annotation)
        try:
            self.view.check(annotation, new, path)
        except ParameterTypeError as error:
            hint = as_call(annotation, _plain(self.given)) if error.path == path and self.operator == "=" else ""
            raise ParameterTypeError(f"{error.message}{hint}", error.path) from None
        return new

    def _combined(self, reader: Reader, annotation: Any, old: Any) -> Any:
        return combine(self.operator, old, _operand(reader, self.operator, annotation, old, self.given))

    def _child(self, node: Any, key: Any, number: int, path: str, annotation: Any) -> Any:
        if not self.view.is_config(node):
            return dict(self.view.children(node) or ())[key]
        if key in self.view.arguments(node):
            return self.view.arguments(node)[key]
        default = self.view.default(self.view.target(node), key)
        if default is not inspect.Parameter.empty:
            return self.view.copy_default(default)
        if number == len(self.keys) - 1:
            return None
        hint = self._whole(annotation, path, number + 1)
        raise OverrideError(f"{path} is not set, so nothing below it can be changed{hint}")

    def _whole(self, annotation: Any, path: str, number: int) -> str:
        """Returns a hint for an error: the value at a path written as a whole, with the given value in it."""
        if self.operator != "=" or self.given is REMOVED or not path:
            return ""
        text = self.override.raw if self.override is not None else value_text(self.given)
        return as_whole(annotation, path, self.keys[number:], text)

    def _unknown(self, what: str, number: int, names: Iterable[str], path: str, hint: str = "") -> OverrideError:
        key = self.keys[number]
        message = f"{what} {key!r}{f' at {path}' if path else ''}{nearest(str(key), names)}{hint}"
        if self.override is not None and number < len(self.override.columns):
            message += f"\n{excerpt(self.override.text, self.override.columns[number])}"
        return OverrideError(message)


def match_type(reader: Reader, old: Any, new: Any, annotation: Any) -> Any:
    """Returns a list as the type that it replaces, a tuple or set, where that fits: JSON has only lists."""
    if isinstance(new, list) and type(old) in (tuple, set, frozenset):
        with contextlib.suppress(TypeError):
            converted = type(old)(new)
            return converted if reader.fits(annotation, converted) else new
    return new


def find_name(names: Sequence[Any], key: Key, *, is_sequence: bool) -> Any:
    """Returns the name that a part of a path means: the same one before one of the same text; or :data:`MISSING`."""
    position = index_of(key)
    if is_sequence and position is not None:
        return names[position] if -len(names) <= position < len(names) else MISSING
    for name in names:
        if type(name) is type(key) and name == key:
            return name
    return next((name for name in names if str(name) == str(key)), MISSING)


def index_of(key: Key) -> Optional[int]:
    """Returns the index that a part of a path means, or None."""
    if isinstance(key, int):
        return key
    return int(key) if re.fullmatch(r"-?\d{1,9}", key) else None


def _operand(reader: Reader, operator: str, annotation: Any, old: Any, given: Any) -> Any:
    """Returns the value that an operator gets: an item as the items are read, a text for a text."""
    wanted: Any = Any
    items: List[Node] = list(given.items) if isinstance(given, Items) else []
    if isinstance(old, str):
        wanted = str if operator == "+=" else Any
    elif isinstance(old, (list, tuple, set, frozenset)):
        item = element_of(annotation, 0)
        if items:
            kind: Any = {"list": list, "tuple": tuple, "set": set}[given.kind]
            return _make_container(kind, [_read_or_plain(reader, item, each) for each in items])
        wanted = item
    elif isinstance(old, dict) and operator == "|=":
        wanted = annotation
    return _read_or_plain(reader, wanted, given)


def _read_or_plain(reader: Reader, annotation: Any, given: Any) -> Any:
    try:
        return reader.read(annotation, given)
    except MisfitError:
        return reader.read(Any, given)


def _make_container(kind: Any, items: Sequence[Any]) -> Any:
    try:
        return kind(items)
    except TypeError:  # a set of what cannot be hashed
        return list(items)


def _plain(given: Any) -> Any:
    try:
        return value_of(given) if isinstance(given, (Items, Pairs)) else given
    except TypeError:
        return given


def _choose_annotation(node: Any, annotation: Any) -> Any:
    """Returns by which annotation a container is read: a named tuple by its own class, which annotates its fields."""
    return type(node) if hasattr(type(node), "_fields") and class_of(annotation) is not type(node) else annotation


def path_below(path: str, keys: Iterable[Any]) -> str:
    """Returns the path of what is under the keys."""
    for key in keys:
        path = join(path, key)
    return path
