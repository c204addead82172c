"""Finds the ``validate()`` method of a value's class and calls it before anything is built."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import fiddle as fdl
import pydantic

from nemo_airflow.config.types.graph import is_dataclass_instance
from nemo_airflow.config.types.models import imports_texts

_OF_CONFIG = "config"
"""Name of the one parameter of a plain class's hook; other methods named ``validate`` do not have it."""


def hook_of(value: Any, instances: Instances) -> Callable[[], object] | None:
    """Returns a function that calls the hook of a value's class, or None where there is no hook.

    A dataclass's hook is called on an instance, a config class's hook on the config. A plain class is
    not instantiated, so its hook is a class method or static method that takes the config. A model
    of pydantic is its own hook: it validates when it is made.

    Args:
        value: A config, an instance, or any other value.
        instances: Cache of the instances that are made from configs.
    """
    if isinstance(value, fdl.Config):
        return _hook_of_config(value, instances)
    if isinstance(value, pydantic.BaseModel) or is_dataclass_instance(value):
        return value.validate if _is_method(type(value)) else None
    return None


def _hook_of_config(config: Any, instances: Instances) -> Callable[[], object] | None:
    target = config.__fn_or_cls__
    if getattr(type(config), "__record__", None) is not None:
        return type(config).validate.__get__(config) if _is_method(type(config)) else None
    if not isinstance(target, type):
        return None
    if _is_model(target):
        return functools.partial(_validate_model, config, instances)
    if dataclasses.is_dataclass(target):
        return (lambda: instances.of(config).validate()) if _is_method(target) else None
    if _takes_config(target):
        hook: Any = target
        return functools.partial(hook.validate, config)
    return None


def _defines_method(kind: Any) -> bool:
    hook = inspect.getattr_static(kind, "validate", None)
    return inspect.isfunction(hook) and len(inspect.signature(hook).parameters) == 1


def _defines_for_config(kind: Any) -> bool:
    hook = inspect.getattr_static(kind, "validate", None)
    if not isinstance(hook, classmethod | staticmethod):
        return False
    return list(inspect.signature(hook.__get__(None, kind)).parameters) == [_OF_CONFIG]


_is_method: Callable[[Any], bool] = functools.lru_cache(maxsize=1024)(_defines_method)
_takes_config: Callable[[Any], bool] = functools.lru_cache(maxsize=1024)(_defines_for_config)


def _is_model(target: Any) -> bool:
    is_dataclass = dataclasses.is_dataclass(target) and hasattr(target, "__pydantic_validator__")
    return is_dataclass or (isinstance(target, type) and issubclass(target, pydantic.BaseModel))


def _validate_model(config: Any, instances: Instances) -> object:
    made = instances.of(config)
    if isinstance(made, fdl.Buildable):  # a value in it can be made only in the job
        return None
    return made.validate() if _is_method(type(made)) else None


class Instances:
    """Instances of the dataclasses and models of configs; each is made once, after those below it.

    Other configs stay configs, and so does a model that contains one.
    """

    def __init__(self) -> None:
        self._made: dict[int, tuple[Any, bool, Any]] = {}
        """The instance, whether it contains a config, and the original value, kept alive since ids are reused."""

    def of(self, value: Any) -> Any:
        """Returns the instance of an acyclic config that is nowhere too deep."""
        return self._of(value)[0]

    def _of(self, value: Any) -> tuple[Any, bool, Any]:
        if id(value) not in self._made:
            parts = []
            for child in _below(value):
                parts.append(self._of(child))
            made, holds = _instance(value, [part[0] for part in parts], any(part[1] for part in parts))
            self._made[id(value)] = (made, holds, value)
        return self._made[id(value)]


def _below(value: Any) -> Sequence[Any]:
    if isinstance(value, fdl.Config):
        return list(value.__arguments__.values()) if _is_made(value.__fn_or_cls__) else ()
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    if isinstance(value, dict):
        return list(value.values())
    if is_dataclass_instance(value):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    return ()


def _is_made(target: Any) -> bool:
    if imports_texts(target):
        return False
    return _is_model(target) or (isinstance(target, type) and dataclasses.is_dataclass(target))


def _instance(value: Any, below: Sequence[Any], holds: bool) -> tuple[Any, bool]:
    """Returns the instance of a value from those of its children, and whether it contains a config."""
    if type(value) in (list, tuple):
        return type(value)(below), holds
    if type(value) is dict:
        return dict(zip(value, below, strict=True)), holds
    if not isinstance(value, fdl.Buildable):
        return value, holds
    target: Any = value.__fn_or_cls__
    if not isinstance(value, fdl.Config) or not _is_made(target) or (holds and _is_model(target)):
        return value, True
    arguments = dict(zip(value.__arguments__, below, strict=True))
    positional, named = value.__signature_info__.transform_to_args_kwargs(arguments)
    return target(*positional, **named), holds and not _is_model(target)
