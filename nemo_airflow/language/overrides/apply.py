"""Changes a resolved config by override texts, in the job, where the annotations are known."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from typing import Any, Dict, Tuple

from nemo_airflow.language import configs, hints
from nemo_airflow.language.errors import PlanError
from nemo_airflow.language.names import resolve
from nemo_airflow.language.nearest import similar
from nemo_airflow.language.overrides import values
from nemo_airflow.language.overrides.errors import OverrideSyntaxError
from nemo_airflow.language.overrides.nodes import Call, File, Quoted
from nemo_airflow.language.overrides.operators import combine
from nemo_airflow.language.overrides.syntax import Override, parse_override
from nemo_airflow.language.plan.grammar import join


def apply(root: Any, text: str, allow: Iterable[str], config_of_call: Callable[..., Any]) -> Any:
    """Returns a config with one override applied; the config itself is changed where that is possible.

    Args:
        root: The config.
        text: The override, in the grammar of :mod:`nemo_airflow.language.overrides.syntax`.
        allow: The allow-list for factories that the override names.
        config_of_call: Returns the config that a factory makes of positional and named arguments.

    Raises:
        PlanError: The override cannot be read, its path does not exist, or its value does not fit.
        TargetNotAllowed: A factory in it is not permitted; nothing was imported.
    """
    try:
        override = parse_override(text)
        return _Change(override, tuple(allow), config_of_call).at(root, 0, "", Any)
    except OverrideSyntaxError as error:
        raise PlanError(f"override {text!r}: {error.message}") from None


class _Change:
    def __init__(self, override: Override, allow: Tuple[str, ...], config_of_call: Callable[..., Any]) -> None:
        self._override = override
        self._allow = allow
        self._config_of_call = config_of_call

    def at(self, node: Any, number: int, path: str, annotation: Any) -> Any:
        """Returns the replacement of a node."""
        if number == len(self._override.path):
            return self._changed(node, path, annotation)
        node = _opened(node)
        key = self._key(node, self._override.path[number], path)
        below = join(path, key)
        last = number == len(self._override.path) - 1
        if isinstance(node, configs.Config):
            return self._in_config(node, key, number, below, last)
        if last and self._removes:
            return _without(node, key)
        inner = hints.element_of(annotation, key)
        old = node[key] if not isinstance(node, dict) or key in node else _MISSING
        if old is _MISSING and not last:
            raise self._error(
                f"{below} is not set, so nothing below it can be changed; set it as a whole with {below}=..."
            )
        new = self.at(old, number + 1, below, inner)
        if isinstance(node, (list, dict)):
            node[key] = new
            return node
        items = list(node)
        items[key] = new
        return type(node)(*items) if hasattr(type(node), "_fields") else type(node)(items)

    def _in_config(self, node: configs.Config, key: Any, number: int, below: str, last: bool) -> Any:
        if last and self._removes:
            if key not in node.__arguments__:
                raise self._error(f"{below} is not set, so ~= cannot remove it")
            del node.__arguments__[key]
            return node
        old = node.__arguments__.get(key, _MISSING)
        if old is _MISSING:
            default = configs.default_of(node.__fn_or_cls__, str(key))
            old = _MISSING if default is inspect.Parameter.empty else _copied(default)
        if old is _MISSING and not last:
            raise self._error(
                f"{below} is not set, so nothing below it can be changed; set it as a whole with {below}=..."
            )
        node.__arguments__[key] = self.at(old, number + 1, below, hints.annotation_of(node.__fn_or_cls__, key))
        return node

    @property
    def _removes(self) -> bool:
        return self._override.operator == "~=" and self._override.node is None

    def _key(self, node: Any, key: Any, path: str) -> Any:
        where = f" at {path}" if path else ""
        if isinstance(node, configs.Config):
            try:
                configs.check_name(node.__fn_or_cls__, str(key))
            except TypeError as error:
                if isinstance(key, int) and key in node.__arguments__:
                    return key
                raise self._error(f"{error}{where}") from None
            return str(key)
        if isinstance(node, dict):
            return next((name for name in node if name == key or str(name) == str(key)), key)
        if isinstance(node, (list, tuple)):
            fields: Dict[str, int] = {name: i for i, name in enumerate(getattr(type(node), "_fields", ()))}
            index = fields.get(str(key), key if isinstance(key, int) else _number(key))
            if index is None or not -len(node) <= index < len(node):
                raise self._error(f"there is no item {key!r}{where}, which has {len(node)}")
            return index % len(node)
        what = "None" if node is None else f"of type {type(node).__name__}"
        hint = f"; set it as a whole with {path}=..." if path else ""
        raise self._error(f"{path or 'the root'} is {what} and has nothing below it{hint}")

    def _changed(self, old: Any, path: str, annotation: Any) -> Any:
        operator = self._override.operator
        value = self._made(self._override.value)
        if operator == "=":
            return self._read(annotation, value, self._override.raw, path)
        if old is _MISSING:
            raise self._error(f"{path} has no value yet, set one with =")
        new = combine(operator, old, value)
        return self._read(annotation, new, repr(new), path)

    def _read(self, annotation: Any, value: Any, text: str, path: str) -> Any:
        quoted = isinstance(self._override.node, Quoted)
        try:
            return values.read(annotation, value, value if quoted and isinstance(value, str) else text)
        except values.Misfit as error:
            raise PlanError(f"{error} (override {self._override.text!r})", path) from None

    def _made(self, value: Any) -> Any:
        """Returns a value with its factories turned into configs."""
        if isinstance(value, File):
            raise self._error("a job reads no files for its config: give the value itself")
        if isinstance(value, Call):
            if ":" not in value.name:
                raise self._error(f"{value.name}(...) is no factory here: write it as pkg.mod:name(...)")
            target = resolve(value.name, self._allow)
            args = [self._made(item) for item in value.args]
            try:
                return self._config_of_call(target, args, {name: self._made(item) for name, item in value.kwargs})
            except TypeError as error:
                raise self._error(str(error)) from None
        if isinstance(value, (list, tuple, set)):
            return type(value)(map(self._made, value))
        return {key: self._made(item) for key, item in value.items()} if isinstance(value, dict) else value

    def _error(self, message: str) -> PlanError:
        return PlanError(f"override {self._override.text!r}: {message}")


_MISSING: Any = type("_Missing", (), {"__repr__": lambda self: "no value"})()


def _opened(node: Any) -> Any:
    """Returns a dataclass's instance as a config, which can be changed."""
    if dataclasses.is_dataclass(node) and not isinstance(node, (type, configs.Config)):
        fields: Dict[configs.Key, Any] = {
            field.name: getattr(node, field.name) for field in dataclasses.fields(node) if field.init
        }
        return configs.unchecked("config", type(node), fields)
    return node


def _copied(default: Any) -> Any:
    import copy

    # The default belongs to the target, so it is copied.
    return copy.deepcopy(default) if type(default) in (list, dict, set) else default


def _without(node: Any, key: Any) -> Any:
    if isinstance(node, dict):
        if key not in node:
            raise PlanError(f"cannot remove the key {key!r}, which is not there{similar(str(key), map(str, node))}")
        del node[key]
        return node
    items = [item for index, item in enumerate(node) if index != key]
    if isinstance(node, list):
        node[:] = items
        return node
    return type(node)(items)


def _number(key: Any) -> Any:
    try:
        return int(key)
    except ValueError:
        return None
