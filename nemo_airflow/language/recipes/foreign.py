"""Configs of Fiddle, and of libraries built on it, as configs of the job."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any, Dict, List

from nemo_airflow.language import configs, hints
from nemo_airflow.language.plan.grammar import Path, below
from nemo_airflow.language.recipes import tree
from nemo_airflow.language.recipes.autoconvert import Converted


def own(root: Any) -> Any:
    """Returns a value with each foreign config in it converted to one of this package, once."""
    return _Foreign().own(root)


def config_of_call(target: Any, arguments: Mapping[configs.Key, Any], kind: str = "config") -> Any:
    """Returns the config of a call; calls a function whose annotation is a config, and returns its result.

    Raises:
        TypeError: An argument before another one is missing.
    """
    made = configs.unchecked(kind, target, arguments)
    if kind != "config" or isinstance(target, type) or not _returns_configs(target):
        return made
    as_buildable = getattr(target, "as_buildable", None)  # Fiddle's auto_config
    return own((as_buildable or target)(*configs.positional(made), **configs.named(made)))


def is_foreign(value: Any) -> bool:
    """Returns whether a value is a config of Fiddle, or of a library that is built on it."""
    if isinstance(value, (type, configs.Config)):
        return False
    return any(base.__name__ == "Buildable" for base in type(value).__mro__) and hasattr(value, "__fn_or_cls__")


def _returns_configs(target: Any) -> bool:
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


def _kind_of(value: Any) -> str:
    names = [base.__name__ for base in type(value).__mro__]
    return "arg_factory" if "ArgFactory" in names else "partial" if "Partial" in names else "config"
