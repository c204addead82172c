"""Writes a config as the nodes of a plan. See :mod:`nemo_airflow.runner.grammar` for their forms."""

from __future__ import annotations

import base64
import datetime
import decimal
import enum
import inspect
import json
import math
import pathlib
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import fiddle as fdl

from nemo_airflow.config.graph import (
    children,
    is_dataclass_instance,
    is_deferred,
    is_named_tuple,
    is_shareable,
    join,
)
from nemo_airflow.config.parameters import NO_DEFAULT, parameters_of
from nemo_airflow.config.targets import short_name, target_name
from nemo_airflow.exceptions import ConfigError, PlanError, TargetNotImportableError
from nemo_airflow.runner.grammar import MAX_DEPTH, is_reserved
from nemo_airflow.runner.record import Record

_FUNCTIONS = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType)


def encode(config: Any, *, defaults: bool) -> Any:
    """Returns a config, or any value with configs in it, as a node.

    Args:
        config: The config.
        defaults: Whether to write the defaults of parameters that are not set.

    Raises:
        PlanError: A plan cannot hold a value, with its path.
        TargetNotImportableError: A job could not import a function or class, with its path.
    """
    return _Encoding(config, defaults=defaults).node(config, "", 0)


class _Encoding:
    def __init__(self, root: Any, *, defaults: bool) -> None:
        self._defaults = defaults
        self._shared = _shared(root)
        self._ids: dict[int, str] = {}
        self._above: set[int] = set()

    def node(self, value: Any, path: str, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise PlanError(f"nested deeper than {MAX_DEPTH} levels", path)
        scalar = _scalar(value, path)
        if scalar is not _NONE:
            return scalar
        if id(value) in self._above:
            raise PlanError("the value holds itself", path)
        if id(value) not in self._shared:
            return self._composite(value, path, depth)
        if id(value) in self._ids:
            return {"_same_": self._ids[id(value)]}
        name = self._ids[id(value)] = str(len(self._ids) + 1)
        inline = isinstance(value, fdl.Buildable) or is_dataclass_instance(value)
        node = self._composite(value, path, depth if inline else depth + 1)
        return {**node, "_id_": name} if inline else {"_id_": name, "_value_": node}

    def _composite(self, value: Any, path: str, depth: int) -> Any:
        self._above.add(id(value))
        try:
            if isinstance(value, fdl.Buildable):
                return self._target(value, path, depth)
            if is_dataclass_instance(value) or is_named_tuple(value):
                return self._instance(value, path, depth)
            if isinstance(value, dict):
                return self._dict(value, path, depth)
            items = children(value)
            if items is None:
                raise PlanError(_refusal(value), path)
            tagged = not isinstance(value, list)
            nodes = [self.node(item, join(path, key), depth + 1 + tagged) for key, item in items]
            return nodes if not tagged else _tagged(value, nodes)
        finally:
            self._above.discard(id(value))

    def _target(self, config: Any, path: str, depth: int) -> dict[str, Any]:
        target = config.__fn_or_cls__
        arguments = self._arguments(config, path, depth)
        node: dict[str, Any] = {"_target_": _name(target, path)}
        if isinstance(config, fdl.ArgFactory):
            node["_arg_factory_"] = True
        elif isinstance(config, fdl.Partial):
            node["_partial_"] = True
        positional = self._positional(config, arguments, path)
        if positional:
            node["_args_"] = [arguments.pop(key) for key in positional]
        for key, child in arguments.items():
            if is_reserved(key):
                raise PlanError(f"a parameter of {short_name(target)} has a name that plans reserve", join(path, key))
            node[str(key)] = child
        return node

    def _arguments(self, config: Any, path: str, depth: int) -> dict[Any, Any]:
        """Returns the nodes of a config's arguments in the order of its parameters."""
        given = config.__arguments__
        # The job's own record class knows no defaults.
        is_record = isinstance(config.__fn_or_cls__, type) and issubclass(config.__fn_or_cls__, Record)
        nodes: dict[Any, Any] = {}
        for position, parameter in enumerate(parameters_of(config.__fn_or_cls__).by_name.values()):
            if parameter.is_variadic:
                continue
            key = position if parameter.kind is inspect.Parameter.POSITIONAL_ONLY else parameter.name
            if key in given:
                nodes[key] = self.node(given[key], join(path, key), depth + 1)
            elif (self._defaults or is_record) and (
                node := _default_node(parameter.known_default(), depth)
            ) is not _NONE:
                nodes[key] = node
        for key, value in given.items():
            if key not in nodes:
                nodes[key] = self.node(value, join(path, key), depth + 1)
        return nodes

    def _positional(self, config: Any, arguments: Mapping[Any, Any], path: str) -> list[Any]:
        """Returns the keys of those arguments that have to be given by position, in order."""
        parameters = list(parameters_of(config.__fn_or_cls__).by_name.values())
        star = next(
            (i for i, p in enumerate(parameters) if p.kind is inspect.Parameter.VAR_POSITIONAL), len(parameters)
        )
        extra = sorted(key for key in config.__arguments__ if isinstance(key, int) and key >= star)
        keys: list[Any] = []
        for position, parameter in enumerate(parameters[:star]):
            if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
                keys.append(position)
            elif extra and parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
                keys.append(parameter.name)
        keys += extra
        while keys and keys[-1] not in arguments:
            keys.pop()
        for key in keys:
            if key not in arguments:
                raise PlanError("an argument after it is given by position, so it has to be given too", join(path, key))
        return keys

    def _instance(self, value: Any, path: str, depth: int) -> dict[str, Any]:
        kind = type(value)
        node: dict[str, Any] = {"_target_": _name(kind, path)}
        for name, child in children(value) or ():
            if is_reserved(name):
                raise PlanError(f"a field of {short_name(kind)} has a name that plans reserve", join(path, name))
            node[name] = self.node(child, join(path, name), depth + 1)
        return node

    def _dict(self, value: Mapping[Any, Any], path: str, depth: int) -> dict[str, Any]:
        if all(isinstance(key, str) and not isinstance(key, enum.Enum) and not is_reserved(key) for key in value):
            return {str(key): self.node(child, join(path, key), depth + 1) for key, child in value.items()}
        pairs = []
        for key, child in value.items():
            node = self.node(key, join(path, key), depth + 3)
            pairs.append([node, self.node(child, join(path, key), depth + 3)])
        return {"_dict_": pairs}


class _Nothing:
    pass


_NONE = _Nothing()


def _shared(root: Any) -> set[int]:
    """Returns the ids of the values that are in several places and are to stay one."""
    once: set[int] = set()
    twice: set[int] = set()
    stack = [root]
    while stack:
        value = stack.pop()
        if is_shareable(value):
            if id(value) in once:
                twice.add(id(value))
                continue
            once.add(id(value))
        stack.extend(child for _, child in children(value) or ())
    return twice


def _default_node(default: Any, depth: int) -> Any:
    """Returns the node of a parameter's default, or ``_NONE`` where a plan should not or cannot hold it."""
    if default is NO_DEFAULT or isinstance(default, _FUNCTIONS):
        return _NONE  # a job may have another version of a library, with its default elsewhere
    try:
        # By itself: that two parameters have the same default object makes them share nothing.
        return _Encoding(default, defaults=True).node(default, "", depth + 1)
    except ConfigError:
        return _NONE


def _scalar(value: Any, path: str) -> Any:
    """Returns the node of a value that holds no others, or ``_NONE``."""
    if value is None or value is True or value is False:
        return value
    if isinstance(value, enum.Enum):
        return {"_enum_": f"{_name(type(value), path)}.{_member(value, path)}"}
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return (
            float(value)
            if math.isfinite(value)
            else {"_float_": "nan" if math.isnan(value) else f"{value:+}".lstrip("+")}
        )
    for kind, tag, write in _TAGGED:
        if isinstance(value, kind):
            return {tag: write(value)}
    if isinstance(value, _FUNCTIONS):
        return {"_ref_": _name(value, path)}
    return _NONE


def _seconds(value: datetime.timedelta) -> float | str:
    seconds = value.total_seconds()
    if datetime.timedelta(seconds=seconds) == value:
        return seconds
    microseconds = value // datetime.timedelta(microseconds=1)
    sign = "-" if microseconds < 0 else ""
    return f"{sign}{abs(microseconds) // 1_000_000}.{abs(microseconds) % 1_000_000:06d}"


_TAGGED: Sequence[tuple[type, str, Callable[[Any], Any]]] = (
    (bytes, "_bytes_", lambda value: base64.b64encode(value).decode()),
    (pathlib.PurePath, "_path_", str),
    (datetime.datetime, "_datetime_", datetime.datetime.isoformat),
    (datetime.date, "_date_", datetime.date.isoformat),
    (datetime.time, "_time_", datetime.time.isoformat),
    (datetime.timedelta, "_timedelta_", _seconds),
    (decimal.Decimal, "_decimal_", str),
)


def _text(value: str, path: str) -> str:
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PlanError("the text is not valid Unicode", path) from error
    return text


def _tagged(value: Any, nodes: list[Any]) -> dict[str, Any]:
    if isinstance(value, tuple):
        return {"_tuple_": nodes}
    tag = "_frozenset_" if isinstance(value, frozenset) else "_set_"
    return {tag: sorted(nodes, key=lambda node: json.dumps(node, sort_keys=True, separators=(",", ":")))}


def _name(target: Any, path: str) -> str:
    try:
        return target_name(target)
    except TargetNotImportableError as error:
        raise TargetNotImportableError(error.message, path) from None


def _member(value: enum.Enum, path: str) -> str:
    if value.name not in type(value).__members__:
        raise PlanError("a combination of flags has no name that a plan could hold", path)
    return str(value.name)


def _refusal(value: Any) -> str:
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if is_deferred(value):
        return f"this {name} was not replaced by a value"
    return f"a plan cannot hold a value of type {name}: use Config({kind.__name__}, ...), or plain values"
