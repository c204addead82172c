"""Writes a config as the nodes of a plan. See :mod:`nemo_airflow.language.plan.grammar` for their forms."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import json
import math
import types
from collections.abc import Iterable, Sequence
from typing import Any

import fiddle as fdl

from nemo_airflow.config.buildable import known_default
from nemo_airflow.config.graph import (
    children,
    is_dataclass_instance,
    is_deferred,
    is_named_tuple,
    literal_of,
    recipe_overrides,
)
from nemo_airflow.config.parameters import NO_DEFAULT, Parameter, parameters_of
from nemo_airflow.config.targets import short_name, target_name
from nemo_airflow.exceptions import ConfigError, PlanError, TargetNotImportableError
from nemo_airflow.language.plan.grammar import Path, is_reserved, path_text
from nemo_airflow.language.plan.scalars import tag_value
from nemo_airflow.language.record import Record

_FUNCTIONS = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType)

_LARGEST = 10**4000
"""Python's own reader of JSON refuses integers of more than 4,300 digits."""

_EXACT = (dict, list, set, frozenset, tuple)
"""Containers that a job gets as they are."""

_MOST_REPEATS = 200_000
"""Most nested tuples that are written repeatedly: tuples have no identity in a plan."""


def encode(config: Any, *, defaults: bool) -> Any:
    """Returns a config, or any value with configs in it, as a node. It may nest as deep as it likes.

    Args:
        config: The config.
        defaults: Whether to write the defaults of parameters that are not set.

    Raises:
        PlanError: A plan cannot hold a value, with its path.
        TargetNotImportableError: A job could not import a function or class, with its path.
    """
    return _Encoding({}, defaults=defaults).root(config)


@dataclasses.dataclass(slots=True)
class _First:
    """Where a value was first written; it may be shared with other places."""

    value: Any
    inside: Any
    key: Any
    is_inline: bool
    others: list[dict[str, str]] = dataclasses.field(default_factory=list)


class _Encoding:
    """Writes each value into the place that its parent keeps for it, parents first.

    Args:
        layouts: Layouts of targets already seen, by their ``id``.
        defaults: Whether to write the defaults of parameters that are not set.
    """

    def __init__(self, layouts: dict[int, _Layout], *, defaults: bool) -> None:
        self._layouts = layouts
        self._defaults = defaults
        self._stack: list[tuple[Any, Any, Any, Path]] = []
        self._first: dict[int, _First] = {}
        self._open: set[int] = set()
        self._tuples: dict[int, Any] = {}
        self._repeats = 0
        self._sets: list[tuple[list[Any], Path]] = []

    def root(self, root: Any) -> Any:
        holder: list[Any] = [None]
        stack = self._stack
        stack.append((root, holder, 0, ()))
        while stack:
            value, inside, key, path = stack.pop()
            if inside is None:  # the way back up
                self._open.discard(key)
                continue
            scalar = _scalar(value, path)
            inside[key] = self._composite(value, inside, key, path) if scalar is _NONE else scalar
        self._name_shared()
        for nodes, path in reversed(self._sets):  # those in others first
            try:
                nodes.sort(key=lambda node: json.dumps(node, sort_keys=True, separators=(",", ":")))
            except RecursionError:
                raise PlanError(
                    "a member of this set is nested too deep to be sorted: use a list", path_text(path)
                ) from None
        return holder[0]

    def _composite(self, value: Any, inside: Any, key: Any, path: Path) -> Any:
        if (held := literal_of(value)) is not value:
            self._stack.append((held, inside, key, path))
            return None
        is_config = isinstance(value, fdl.Buildable)
        is_inline = is_config or is_dataclass_instance(value)
        if is_inline or isinstance(value, (list, dict, set)):
            if (first := self._first.get(id(value))) is not None:
                if id(value) in self._open:
                    raise PlanError("the value contains itself", path_text(path))
                first.others.append({"_same_": ""})
                return first.others[-1]
            self._first[id(value)] = _First(value, inside, key, is_inline)
            self._open.add(id(value))
            self._stack.append((None, None, id(value), ()))
        elif isinstance(value, tuple):
            self._count(value, path)
        if is_config:
            return self._target(value, path)
        if is_inline or is_named_tuple(value):
            return self._instance(value, path)
        if isinstance(value, _EXACT) and type(value) not in _EXACT:
            plain = next(kind.__name__ for kind in _EXACT if isinstance(value, kind))
            name = type(value).__name__
            message = f"a plan holds no {name}, and the job would get a {plain}"
            raise PlanError(f"{message}: write {plain}(...), or Config({name}, ...)", path_text(path))
        return self._dict(value, path) if isinstance(value, dict) else self._items(value, path)

    def _later(self, pairs: Iterable[tuple[Any, Any]], inside: Any, path: Path) -> None:
        """Schedules values to be written into a parent, under their keys, in that order."""
        self._stack.extend([(value, inside, key, (path, key)) for key, value in pairs][::-1])

    def _count(self, value: tuple[Any, ...], path: Path) -> None:
        if id(value) not in self._tuples:
            self._tuples[id(value)] = value
        elif any(isinstance(item, tuple) for item in value):
            self._repeats += 1
        if self._repeats > _MOST_REPEATS:
            raise PlanError(
                "too many shared tuples: a plan writes a tuple again at each place; use lists, which it shares",
                path_text(path),
            )

    def _name_shared(self) -> None:
        """Numbers shared values, in the order of the parameters."""
        number = 0
        for first in self._first.values():
            if not first.others:
                continue
            number += 1
            name = str(number)
            node = first.inside[first.key]
            if first.is_inline:
                node["_id_"] = name
            else:
                first.inside[first.key] = {"_id_": name, "_value_": node}
            for other in first.others:
                other["_same_"] = name

    def _target(self, config: Any, path: Path) -> dict[str, Any]:
        layout = self._layout(config.__fn_or_cls__, path)
        node: dict[str, Any] = {"_target_": layout.name}
        overrides = recipe_overrides(config)
        if overrides is not None:
            node["_recipe_"] = {"overrides": [_text(text, path) for text in overrides]}
        elif isinstance(config, fdl.ArgFactory):
            node["_arg_factory_"] = True
        elif isinstance(config, fdl.Partial):
            node["_partial_"] = True
        given = config.__arguments__
        # A factory knows its own defaults, and a resolved recipe is recorded with all of them.
        # The record class of a job has none.
        written = (
            self._written_defaults(layout, given) if (self._defaults and overrides is None) or layout.is_record else {}
        )
        keys = [key for key in layout.keys if key in given or key in written]
        keys += [key for key in given if key not in layout.keys]
        positional = layout.positional(given, keys, path)
        places: dict[Any, tuple[Any, Any]] = {}
        if positional:
            node["_args_"] = [None] * len(positional)
            places = {key: (node["_args_"], number) for number, key in enumerate(positional)}
        for key in keys:
            if key in places:
                continue
            if is_reserved(key):
                message = (
                    f"a parameter of {short_name(config.__fn_or_cls__)} has a name that is reserved in plans: rename it"
                )
                raise PlanError(message, path_text((path, key)))
            node[str(key)] = None
            places[key] = (node, str(key))
        for key, default in written.items():
            holder, place = places[key]
            holder[place] = default
        self._stack.extend([(given[key], *places[key], (path, key)) for key in reversed(keys) if key in given])
        return node

    def _written_defaults(self, layout: _Layout, given: Any) -> dict[Any, Any]:
        """Returns the nodes of defaults for arguments that are not given, where a plan should and can hold them."""
        nodes: dict[Any, Any] = {}
        for key, parameter in layout.keys.items():
            if key in given:
                continue
            node = layout.constants.get(key, _NONE)
            if node is _NONE and key not in layout.constants:
                node = self._default(known_default(parameter))
                if not isinstance(node, (dict, list)):
                    layout.constants[key] = node
            if node is not _NONE:
                nodes[key] = node
        return nodes

    def _default(self, default: Any) -> Any:
        """Returns the node of a parameter's default, or ``_NONE``."""
        if default is NO_DEFAULT or isinstance(default, _FUNCTIONS):
            return _NONE  # a job may have another version of a library, with its default elsewhere
        try:
            # Encoded separately: two parameters with the same default object do not share it.
            return _Encoding(self._layouts, defaults=True).root(default)
        except ConfigError:
            return _NONE

    def _layout(self, target: Any, path: Path) -> _Layout:
        found = self._layouts.get(id(target))
        if found is None:
            found = self._layouts[id(target)] = _Layout(target, _name(target, path))
        return found

    def _instance(self, value: Any, path: Path) -> dict[str, Any]:
        kind = type(value)
        node: dict[str, Any] = {"_target_": _name(kind, path)}
        pairs = children(value) or ()
        unknown = set(getattr(kind, "__dataclass_fields__", ())).intersection(parameters_of(kind).names)
        if lost := sorted(unknown.difference(name for name, _ in pairs)):
            message = f"an instance of {short_name(kind)} does not keep {lost[0]!r}, which its constructor takes"
            raise PlanError(f"{message}: write Config({short_name(kind)}, ...)", path_text(path))
        for name, _ in pairs:
            if is_reserved(name):
                message = f"a field of {short_name(kind)} has a name that is reserved in plans: rename it"
                raise PlanError(message, path_text((path, name)))
            node[name] = None
        self._later(pairs, node, path)
        return node

    def _dict(self, value: dict[Any, Any], path: Path) -> dict[str, Any]:
        if all(isinstance(key, str) and not isinstance(key, enum.Enum) and not is_reserved(key) for key in value):
            node: dict[str, Any] = {str(key): None for key in value}
            self._later(((str(key), child) for key, child in value.items()), node, path)
            return node
        pairs: list[list[Any]] = [[None, None] for _ in value]
        places = [
            (child, pair, place, (path, key))
            for (key, item), pair in zip(value.items(), pairs, strict=True)
            for place, child in enumerate((key, item))
        ]
        self._stack.extend(reversed(places))
        return {"_dict_": pairs}

    def _items(self, value: Any, path: Path) -> Any:
        items = children(value)
        if items is None:
            raise PlanError(_refusal(value), path_text(path))
        nodes: list[Any] = [None] * len(items)
        self._later(items, nodes, path)
        if isinstance(value, list):
            return nodes
        if isinstance(value, tuple):
            return {"_tuple_": nodes}
        self._sets.append((nodes, path))
        return {"_frozenset_" if isinstance(value, frozenset) else "_set_": nodes}


class _Layout:
    """How the arguments of a target are written.

    Args:
        target: The target.
        name: Its name in a plan.
    """

    def __init__(self, target: Any, name: str) -> None:
        self._target = target  # alive, so that no other has its id
        self.name = name
        self.is_record = isinstance(target, type) and issubclass(target, Record)
        parameters = list(parameters_of(target).by_name.values())
        kinds = [parameter.kind for parameter in parameters]
        self._star = kinds.index(_STAR) if _STAR in kinds else len(kinds)
        self._by_position = parameters[: self._star]
        self.keys: dict[Any, Parameter] = {
            position if parameter.kind is _ONLY_BY_POSITION else parameter.name: parameter
            for position, parameter in enumerate(parameters)
            if not parameter.is_variadic
        }
        self._has_positions = _ONLY_BY_POSITION in kinds
        self.constants: dict[Any, Any] = {}
        """Cached nodes of defaults, reused between plans; ``_NONE`` for a default that a plan cannot hold."""

    def positional(self, given: Any, written: Sequence[Any], path: Path) -> list[Any]:
        """Returns the keys of the arguments that have to be positional, in order."""
        extra = sorted(key for key in given if isinstance(key, int) and key >= self._star)
        if not extra and not self._has_positions:
            return []
        keys: list[Any] = []
        for position, parameter in enumerate(self._by_position):
            if parameter.kind is _ONLY_BY_POSITION:
                keys.append(position)
            elif extra and parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
                keys.append(parameter.name)
        keys += extra
        while keys and keys[-1] not in written:
            keys.pop()
        for key in keys:
            if key not in written:
                message = "it is not set, but a later positional argument is: set it too"
                raise PlanError(message, path_text((path, key)))
        return keys


_STAR = inspect.Parameter.VAR_POSITIONAL
_ONLY_BY_POSITION = inspect.Parameter.POSITIONAL_ONLY


class _Nothing:
    pass


_NONE = _Nothing()


def _scalar(value: Any, path: Path) -> Any:
    """Returns the node of a value without values below it, or ``_NONE``."""
    if value is None or value is True or value is False:
        return value
    if type(value) is int and -_LARGEST < value < _LARGEST:
        return value
    if isinstance(value, (list, dict, tuple, set, frozenset, fdl.Buildable)) and not isinstance(value, enum.Enum):
        return _NONE
    if isinstance(value, enum.Enum):
        return {"_enum_": f"{_name(type(value), path)}.{_member(value, path)}"}
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, int):
        if not -_LARGEST < value < _LARGEST:
            raise PlanError(
                "an integer of more than 4,000 digits, which JSON readers refuse: pass it as a text", path_text(path)
            )
        return int(value)
    if isinstance(value, float):
        return (
            float(value)
            if math.isfinite(value)
            else {"_float_": "nan" if math.isnan(value) else f"{value:+}".lstrip("+")}
        )
    if (node := tag_value(value)) is not None:
        return node
    if isinstance(value, _FUNCTIONS):
        return {"_ref_": _name(value, path)}
    return _NONE


def _text(value: str, path: Path) -> str:
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PlanError("the text is not valid Unicode: pass it as bytes", path_text(path)) from error
    return text


def _name(target: Any, path: Path) -> str:
    try:
        return target_name(target)
    except TargetNotImportableError as error:
        raise TargetNotImportableError(error.message, path_text(path)) from None


def _member(value: enum.Enum, path: Path) -> str:
    if value.name not in type(value).__members__:
        raise PlanError(
            "a combination of flags has no name that a plan can hold: pass its members in a list", path_text(path)
        )
    return str(value.name)


def _refusal(value: Any) -> str:
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if is_deferred(value):
        return f"this {name} was not rendered into a value: give the config to an operator"
    return f"a plan cannot hold a value of type {name}: use Config({kind.__name__}, ...), or plain values"
