"""Configs of Fiddle, and of libraries built on it, as configs of the job."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, Dict, List, Tuple

from nemo_airflow.language import configs, hints
from nemo_airflow.language.artifact import Artifact
from nemo_airflow.language.plan.grammar import Path, below
from nemo_airflow.language.recipes import tree
from nemo_airflow.language.recipes.autoconvert import Converted


def own(root: Any) -> Any:
    """Returns a value with each foreign config in it converted to one of this package, once."""
    return _Foreign().own(root)


def config_of_call(target: Any, arguments: Mapping[configs.Key, Any], kind: str = "config") -> Any:
    """Returns the config of a call; calls a config class, or a function whose annotation is a config.

    Raises:
        TypeError: An argument before another one is missing.
    """
    made = configs.unchecked(kind, target, arguments)
    if kind != "config" or not _returns_configs(target):
        return made
    as_buildable = getattr(target, "as_buildable", None)  # Fiddle's auto_config
    return own((as_buildable or target)(*configs.positional(made), **configs.named(made)))


def is_foreign(value: Any) -> bool:
    """Returns whether a value is a config of Fiddle, or of a library that is built on it."""
    if isinstance(value, (type, configs.Config)):
        return False
    return any(base.__name__ == "Buildable" for base in type(value).__mro__) and hasattr(value, "__fn_or_cls__")


def _returns_configs(target: Any) -> bool:
    if isinstance(target, type):
        return getattr(target, "__record__", None) is not None  # a config class
    if isinstance(target, Converted) or hasattr(target, "as_buildable"):
        return True
    returned = hints.annotation_of(target, "return")
    returned = typing.get_origin(returned) or returned
    bases = returned.__mro__ if isinstance(returned, type) else ()
    return any(base is configs.Config or base.__name__ == "Buildable" for base in bases)


class _Foreign:
    """Converts configs of Fiddle, and of libraries built on it, to configs of this package, each once."""

    def __init__(self) -> None:
        self._made: Dict[int, Any] = {}
        self._kept: List[Any] = []

    def own(self, value: Any, path: Path = ()) -> Any:
        """Returns a value with each foreign config in it converted.

        Raises:
            PlanError: It is nested too deep.
        """
        if id(value) in self._made:
            return self._made[id(value)]
        if is_foreign(value):
            made: Any = configs.unchecked(_kind_of(value), value.__fn_or_cls__, dict(value.__arguments__))
        elif isinstance(value, configs.Config):
            made = value
        elif _is_instance(value) and _holds_config(value):
            made = configs.unchecked("config", type(value), dict(_fields(value)))
        else:
            made = None
        if made is not None:
            self._keep(value, made)
            for key, child in list(made.__arguments__.items()):
                made.__arguments__[key] = self.own(child, below(path, key))
            return made
        pairs = tree.VIEW.children(value)
        if not pairs:
            return value
        values = []
        for key, child in pairs:
            values.append(self.own(child, below(path, key)))
        return self._keep(value, tree.VIEW.rebuild(value, values))

    def _keep(self, value: Any, made: Any) -> Any:
        self._made[id(value)] = made
        self._kept.append(value)
        return made


def _is_instance(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, (type, Artifact))


def _fields(instance: Any) -> List[Tuple[str, Any]]:
    return [(field.name, getattr(instance, field.name)) for field in dataclasses.fields(instance) if field.init]


def _holds_config(instance: Any) -> bool:
    """Returns whether a config is in the fields of a dataclass's instance, also deep in them."""
    seen: Dict[int, Any] = {}
    stack = [instance]
    while stack:
        value = stack.pop()
        if isinstance(value, configs.Config) or is_foreign(value):
            return True
        if id(value) not in seen:
            seen[id(value)] = value
            pairs = _fields(value) if _is_instance(value) else tree.VIEW.children(value) or ()
            stack.extend(child for _, child in pairs)
    return False


def _kind_of(value: Any) -> str:
    names = [base.__name__ for base in type(value).__mro__]
    return "arg_factory" if "ArgFactory" in names else "partial" if "Partial" in names else "config"
