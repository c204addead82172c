"""Checks a whole config, naming the path of what is wrong, and builds a valid one."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import fiddle as fdl
import pydantic

from nemo_airflow.config.objects.buildable import check_argument, check_name, path_below
from nemo_airflow.config.objects.leaves import iter_leaves, map_leaves
from nemo_airflow.config.objects.view import FiddleConfigs
from nemo_airflow.config.types import checks
from nemo_airflow.config.types.graph import (
    is_dataclass_instance,
    is_deferred,
    is_named_tuple,
    iter_nodes,
    literal_of,
    templates_rendered,
)
from nemo_airflow.config.types.hooks import Instances, hook_of
from nemo_airflow.config.types.parameters import Parameter, parameters_of
from nemo_airflow.exceptions import ConfigError, MissingParameterError
from nemo_airflow.language.plan.build import Builder
from nemo_airflow.language.plan.grammar import Path, path_text
from nemo_airflow.language.recipes import tree
from nemo_airflow.language.texts import short_name


def validate(config: Any) -> None:
    """Checks a config as a job would use it: names, types, missing values, deferred values.

    Then calls the ``validate()`` methods of the classes in it that define one, the inner ones
    first, and has pydantic models validate their values. A ``Partial`` at the root has to
    be complete, since the job calls it without arguments; others need not.

    Args:
        config: A config, or a value with configs in it.

    Raises:
        ConfigError: The config is not valid; the path of the first wrong value is in the error.
    """
    _validate(config, called=True)


@dataclasses.dataclass(frozen=True)
class PlacedFault:
    """A fault in a config.

    Attributes:
        error: What is wrong, with its path.
        holder: The config that has the wrong argument.
        key: The argument; None for the config itself.
    """

    error: ConfigError
    holder: Any = None
    key: int | str | None = None


def find_faults(config: Any, *, deferred: bool = False) -> list[PlacedFault]:
    """Returns all that is wrong with a config, where :func:`validate` raises the first of it.

    Args:
        config: The config of a job.
        deferred: Whether templates and outputs of other tasks may stand for values, as in a DAG file.
    """
    found: list[PlacedFault] = []

    def add(path: Path, check: Callable[[], object], holder: Any, key: Any = None) -> None:
        try:
            check()
        except ConfigError as error:
            found.append(PlacedFault(_placed(error, path), holder, key))

    hooks: list[tuple[Path, Callable[[], object], Any]] = []
    instances = Instances()
    add((), functools.partial(check_root, config), config)
    for path, value, pairs in iter_nodes(config):
        if isinstance(value, fdl.Buildable):
            target = value.__fn_or_cls__
            for key, argument in value.__arguments__.items():
                add(path, functools.partial(check_argument, target, key, argument, ""), value, key)
            for missing in missing_parameters(value) if isinstance(value, fdl.Config) or value is config else ():
                found.append(PlacedFault(_placed(missing, path), value))
        elif not (deferred and is_deferred(value)) and (pairs is not None or is_deferred(value)):
            add(path, functools.partial(_check_value, value, pairs or (), complete=False), None)
        if not deferred and (hook := hook_of(value, instances)) is not None:
            hooks.append((path, hook, value))
    wrong = [fault.error.path for fault in found]
    for path, hook, value in reversed(hooks):
        here = path_text(path)
        # What has a wrong value in it fails its own check too, with an error that says nothing new.
        if not any(not here or each == here or each.startswith((f"{here}.", f"{here}[")) for each in wrong):
            add((), functools.partial(_call, hook, path), value)
    return found


def check_complete(config: Any) -> None:
    """Checks that a config sets each required parameter of its targets; nothing else is checked.

    Args:
        config: A config, which may have templates and outputs of other tasks in it.

    Raises:
        MissingParameterError: A parameter is missing; its path is in the error.
    """
    for path, value, _ in iter_nodes(config):
        if isinstance(value, fdl.Config) or (isinstance(value, fdl.Buildable) and value is config):
            try:
                _check_required(value)
            except MissingParameterError as error:
                raise _placed(error, path) from None


def build(config: Any) -> Any:
    """Validates a config, then builds it here, as a job does.

    Args:
        config: A config, or a value with configs in it.

    Returns:
        The object that the config describes; a callable for a ``Partial``.

    Raises:
        ConfigError: As for :func:`validate`.
    """
    _validate(config, called=False)
    return tree.build(_without_literals(config), FiddleConfigs(), _Builder(()))


class _Builder(Builder):
    def artifact(self, given: Any) -> Any:
        return given  # only a job has it as a path


def _without_literals(config: Any) -> Any:
    """Returns a config with its literals replaced by their values; the same config where it has none."""
    if all(literal_of(leaf) is leaf for _, leaf in iter_leaves(config)):
        return config
    with templates_rendered():
        return map_leaves(config, lambda _, leaf: literal_of(leaf))


def check_root(config: Any) -> None:
    """Checks that calling the config's target runs it.

    Raises:
        ConfigError: The target is a generator function: a call of it runs nothing of its body.
    """
    target = config.__fn_or_cls__ if isinstance(config, fdl.Buildable) else None
    if inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target):
        raise ConfigError(
            f"{short_name(target)} is a generator function: calling it runs nothing; "
            "give a function that iterates over it and returns a value"
        )


def _validate(config: Any, *, called: bool) -> None:
    if called:
        check_root(config)
    hooks: list[tuple[Path, Callable[[], object]]] = []
    instances = Instances()
    for path, value, pairs in iter_nodes(config):
        if pairs is None and not is_deferred(value):
            continue
        try:
            _check_value(value, pairs or (), complete=isinstance(value, fdl.Config) or (called and value is config))
        except ConfigError as error:
            raise _placed(error, path) from error.__cause__
        if (hook := hook_of(value, instances)) is not None:
            hooks.append((path, hook))
    for path, hook in reversed(hooks):
        _call(hook, path)


def _check_value(value: Any, pairs: Sequence[tuple[Any, Any]], *, complete: bool) -> None:
    if isinstance(value, fdl.Buildable):
        _check_config(value, complete=complete)
    elif is_dataclass_instance(value) or is_named_tuple(value):
        for name, field in pairs:
            check_argument(type(value), name, field, "")
    elif is_deferred(value) and literal_of(value) is value:
        raise ConfigError(_not_rendered(value))


def _placed(error: ConfigError, path: Path) -> ConfigError:
    """Returns an error with the path of the enclosing config in front of its own."""
    above = path_text(path)
    dot = "." if above and error.path and not error.path.startswith("[") else ""
    return type(error)(error.message, f"{above}{dot}{error.path}")


def _check_config(config: Any, *, complete: bool) -> None:
    target = config.__fn_or_cls__
    for key, value in config.__arguments__.items():
        if isinstance(key, str):
            check_name(target, key, key)
        check_argument(target, key, value, "")
    if complete:
        _check_required(config)


def _check_required(config: Any) -> None:
    for error in missing_parameters(config):
        raise error


def missing_parameters(config: Any) -> Iterator[MissingParameterError]:
    """Yields an error for each required parameter of a config's target that is not set."""
    target = config.__fn_or_cls__
    for position, parameter in enumerate(parameters_of(target).by_name.values()):
        if parameter.is_required and not _is_given(config, parameter, position):
            message = f"{short_name(target)} requires this parameter, and it is not set"
            yield MissingParameterError(message, parameter.name)


def _is_given(config: Any, parameter: Parameter, position: int) -> bool:
    by_position = parameter.kind is inspect.Parameter.POSITIONAL_ONLY
    return (position if by_position else parameter.name) in config.__arguments__


def _not_rendered(value: Any) -> str:
    if isinstance(value, str):
        return (
            f"the template {value!r} was not rendered: templates are rendered only in a config given to an operator; "
            "for a text that is not a template, write literal(...) of airflow.sdk around it"
        )
    kind = type(value).__name__
    return f"this {kind} has no value here: outputs of other tasks are filled in only in a config given to an operator"


def _call(hook: Callable[[], object], linked: Path) -> None:
    try:
        answer = hook()
    except ConfigError as error:
        raise _placed(error, linked) from error
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise ConfigError(checks.format_error(first), path_below(path_text(linked), first["loc"])) from error
    except (Exception, SystemExit) as error:  # the user's own code decides that the config is wrong
        text = _one_line(str(error)) or type(error).__name__
        message = text if isinstance(error, (ValueError, TypeError, AssertionError)) else f"validate() failed: {text}"
        raise ConfigError(message, path_text(linked)) from error
    if inspect.iscoroutine(answer):
        answer.close()
        raise ConfigError(
            "validate() is a coroutine, which is never awaited: define it without async", path_text(linked)
        )
    if answer is False:
        raise ConfigError("validate() returned False", path_text(linked))


def _one_line(text: str) -> str:
    return " ".join(text.split())
