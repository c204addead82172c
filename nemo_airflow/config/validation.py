"""Checks a whole config, with the path of what is wrong, and builds one that is right."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import fiddle as fdl

from nemo_airflow.config.buildable import check_argument, check_name, unchecked
from nemo_airflow.config.graph import is_dataclass_instance, is_deferred, iter_nodes, join
from nemo_airflow.config.parameters import Parameter, parameters_of
from nemo_airflow.config.targets import short_name
from nemo_airflow.exceptions import ConfigError, MissingParameterError


def validate(config: Any) -> None:
    """Checks all that a job would do with a config: names, types, what is missing, what is yet to come.

    Then calls the ``validate()`` methods of dataclasses and config classes in it, the inner ones
    first. A ``Partial`` at the root has to be complete, since the job calls it without arguments;
    others need not.

    Args:
        config: A config, or a value with configs in it.

    Raises:
        ConfigError: Something is wrong; the path of the first wrong value is in the error.
    """
    _validate(config, called=True)


def build(config: Any) -> Any:
    """Validates a config, then builds it here, as Fiddle does.

    Args:
        config: A config, or a value with configs in it.

    Returns:
        What the config describes; a callable for a ``Partial``.

    Raises:
        ConfigError: As for :func:`validate`.
    """
    _validate(config, called=False)
    return fdl.build(config)


def _validate(config: Any, *, called: bool) -> None:
    hooks: list[tuple[str, Callable[[], object]]] = []
    for path, value, below in iter_nodes(config):
        if is_deferred(value):
            raise ConfigError(_not_yet(value), path)
        if isinstance(value, fdl.Buildable):
            _check_config(value, path, complete=isinstance(value, fdl.Config) or (called and value is config))
        elif is_dataclass_instance(value):
            for name, field in below or ():
                check_argument(type(value), name, field, path)
        if (hook := _hook(value)) is not None:
            hooks.append((path, hook))
    for path, hook in reversed(hooks):
        _call(hook, path)


def _check_config(config: Any, path: str, *, complete: bool) -> None:
    target = config.__fn_or_cls__
    for key, value in config.__arguments__.items():
        if isinstance(key, str):
            check_name(target, key, join(path, key))
        check_argument(target, key, value, path)
    if not complete:
        return
    for position, parameter in enumerate(parameters_of(target).by_name.values()):
        if parameter.is_required and not _is_given(config, parameter, position):
            message = f"{short_name(target)} needs it, and it was not given"
            raise MissingParameterError(message, join(path, parameter.name))


def _is_given(config: Any, parameter: Parameter, position: int) -> bool:
    by_position = parameter.kind is inspect.Parameter.POSITIONAL_ONLY
    return (position if by_position else parameter.name) in config.__arguments__


def _not_yet(value: Any) -> str:
    if isinstance(value, str):
        return f"the template {value!r} was not rendered: only a config given to an operator may have templates"
    kind = type(value).__name__
    return (
        f"this {kind} was not replaced by a value: only a config given to an operator may have outputs of other tasks"
    )


def _hook(value: Any) -> Callable[[], object] | None:
    """Returns what calls the value's own ``validate()``, for the kinds of class that may define one."""
    if is_dataclass_instance(value):
        return value.validate if _has_hook(type(value)) else None
    if not isinstance(value, fdl.Config):
        return None
    target = value.__fn_or_cls__
    if getattr(type(value), "__record__", None) is not None:
        return type(value).validate.__get__(value) if _has_hook(type(value)) else None
    if isinstance(target, type) and dataclasses.is_dataclass(target) and _has_hook(target):
        return lambda: _instance(value).validate()
    return None


def _has_hook(kind: Any) -> bool:
    hook = inspect.getattr_static(kind, "validate", None)
    return inspect.isfunction(hook) and len(inspect.signature(hook).parameters) == 1


def _instance(value: Any) -> Any:
    """Returns a dataclass's instance to call its ``validate()`` on; what is no dataclass in it stays a config."""
    if not (isinstance(value, fdl.Config) and dataclasses.is_dataclass(value.__fn_or_cls__)):
        return value
    copy = unchecked(value.__fn_or_cls__, {key: _instance(child) for key, child in value.__arguments__.items()})
    positional, named = copy.__signature_info__.transform_to_args_kwargs(copy.__arguments__)
    make: Any = value.__fn_or_cls__
    return make(*positional, **named)


def _call(hook: Callable[[], object], path: str) -> None:
    try:
        hook()
    except ConfigError as error:
        raise type(error)(error.message, ".".join(filter(None, (path, error.path)))) from error
    except Exception as error:  # the user's own code, whose word it is that the config is wrong
        text = str(error) or type(error).__name__
        message = text if isinstance(error, (ValueError, TypeError, AssertionError)) else f"validate() failed: {text}"
        raise ConfigError(message, path) from error
