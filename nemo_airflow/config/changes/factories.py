"""Makes configs of functions and classes that overrides, files and mappings name, under an allow-list."""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import fiddle as fdl

from nemo_airflow.config.objects.buildable import (
    KINDS,
    Config,
    Partial,
    by_parameter,
    check_name,
    positional,
    unchecked,
)
from nemo_airflow.config.types.hints import hints_of
from nemo_airflow.config.types.parameters import parameters_of
from nemo_airflow.exceptions import (
    ConfigError,
    NemoAirflowError,
    OverrideError,
    TargetNotAllowedError,
    TargetNotImportableError,
    UnknownParameterError,
)
from nemo_airflow.language.names import check_name as check_target_name
from nemo_airflow.language.names import is_allowed, names_in, resolve, source_folder, source_name, target_name
from nemo_airflow.language.overrides import advice
from nemo_airflow.language.plan.grammar import join, join_paths
from nemo_airflow.language.recipes.autoconvert import Converted
from nemo_airflow.language.texts import short_name

Fit = Callable[[Any, Any, str, Any], Any]
"""Converts an argument to its annotation; called with annotation, argument, path and target."""

_CONFIG_CLASSES = frozenset(("Config", "Partial", "Recipe", "ArgFactory", "Buildable"))
_CONFIG_PACKAGES = ("nemo_airflow.", "fiddle.", "nemo_run.")
"""Annotated results of factories that were read from their source and return configs."""


def find_target(name: str, allow: Iterable[str], path: str = "", beside: Sequence[Any] = ()) -> Any:
    """Returns the function or class of a name; reads its source where its libraries are not installed here.

    Args:
        name: ``pkg.mod:name``, or with dots only, as in YAML files.
        allow: What may be imported.
        path: Where it is named, for errors.
        beside: Functions and classes that take it as an argument. Where one of them was read from a source, it
            is also read, from the same folder first.

    Raises:
        TargetNotAllowedError: It is not permitted; nothing was imported.
        TargetNotImportableError: It does not exist, or cannot be imported.
        PlanError: The name is not of this form.
    """
    from nemo_airflow.config.source import target_from_source
    from nemo_airflow.language.names import name_from_dotted

    full = name_from_dotted(name)
    try:
        check_target_name(full)
        if not any(map(source_name, beside)):
            return resolve(full, allow)
        if is_allowed(full, tuple(allow)):
            return target_from_source(full, next(filter(None, map(source_folder, beside)), None))
        message = f"target {full!r} is not allowed here: add it to allow"
        raise TargetNotAllowedError(message, path)
    except ModuleNotFoundError as error:
        return _from_source(full, error, path)
    except ConfigError as error:
        raise type(error)(error.message, path) from error
    except NemoAirflowError:
        raise
    except Exception as error:  # the module's own code, as it was imported
        text = " ".join(str(error).split())
        message = f"{full} cannot be imported: {type(error).__name__}{f': {text}' if text else ''}"
        raise TargetNotImportableError(message, path) from error


def find_value(name: str, allow: Iterable[str]) -> Any:
    """Returns the object of a name: a function or class as :func:`find_target`, or a config in a module.

    Raises:
        ConfigError: It is not permitted, or does not exist.
    """
    from nemo_airflow.language.names import name_from_dotted

    full = name_from_dotted(name)
    allowed = tuple(allow)
    if is_allowed(full, allowed):
        # A config has no other definition than the named place, so that place is checked.
        found = find_target(full, [full])
        if is_config(found):
            return found
    return find_target(full, allowed)


def _from_source(name: str, missing: ModuleNotFoundError, path: str) -> Any:
    from nemo_airflow.config.source import target_from_source

    try:
        return target_from_source(name)
    except TargetNotImportableError as error:
        message = f"{name} can neither be imported ({missing}) nor read from its source ({error.message})"
        raise TargetNotImportableError(message, path) from error


def call(
    target: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    fit: Fit,
    path: str,
    kind: str = "config",
    is_factory: bool = False,
) -> Any:
    """Returns the config of a call of a target; for a factory of configs, calls it and returns its config.

    Args:
        target: The target.
        args: The positional arguments.
        kwargs: The named arguments.
        fit: Converts an argument to its annotation.
        path: Where it is named, for errors.
        kind: ``config``, ``partial`` or ``arg_factory``.
        is_factory: Whether it is known to return configs, whatever its annotation is.

    Raises:
        ConfigError: The arguments do not fit, or the factory failed.
    """
    is_config_class = isinstance(target, type) and issubclass(target, Config)
    if not callable(target) or (is_config_class and target.__record__ is None):
        raise OverrideError(f"{short_name(target)} is not a function or class, so a job cannot call it", path)
    arguments = bind_arguments(target, args, kwargs, fit, path)
    if kind != "config" or not (is_factory or makes_configs(target)):
        return unchecked(target, arguments, KINDS[kind])
    if source := source_name(target):
        from nemo_airflow.config.objects.recipe import Recipe

        if any(isinstance(key, int) for key in arguments):
            raise OverrideError(f"{source} is called in the job and takes named arguments only: write name=value", path)
        return Recipe(source, **{str(key): value for key, value in arguments.items()})
    return call_factory(target, arguments, path)


def call_factory(factory: Callable[..., Any], arguments: Mapping[int | str, Any], path: str = "") -> Any:
    """Calls a factory here and returns its config.

    Raises:
        ConfigError: It failed, or returned something else.
    """
    name = short_name(factory)
    positional = [arguments[key] for key in sorted(key for key in arguments if isinstance(key, int))]
    try:
        made = factory(*positional, **{key: value for key, value in arguments.items() if isinstance(key, str)})
    except ConfigError as error:
        raise type(error)(f"{name}(): {error.message}", join_paths(path, error.path)) from error
    except Exception as error:  # the user's own code
        text = " ".join(str(error).split())
        raise ConfigError(f"{name}() failed: {type(error).__name__}{f': {text}' if text else ''}", path) from error
    return to_own_config(made, f"what {name}() returned", path)


def is_config(value: Any) -> bool:
    """Returns whether a value is a config, of this project or of Fiddle."""
    return isinstance(value, fdl.Buildable)


def as_given(annotation: Any, given: Any, path: str, target: Any) -> Any:
    """Checks an argument and returns it unchanged: the :data:`Fit` for values from code."""
    from nemo_airflow.config.objects.leaves import fit_value

    return fit_value(annotation, given, path)


def to_own_config(value: Any, what: str, path: str = "") -> Any:
    """Returns a config as this project's class, also one of Fiddle or of a library built on Fiddle.

    Raises:
        ConfigError: It is not a config.
    """
    if isinstance(value, (Config, Partial)):
        return value
    if isinstance(value, fdl.Buildable):
        kind: Any = Partial if isinstance(value, fdl.Partial) else Config
        return kind.__unflatten__(*value.__flatten__())
    raise ConfigError(f"{what} is {type(value).__name__}, not a Config, Partial or Script", path)


def makes_configs(target: Any) -> bool:
    """Returns whether calling a target yields a config: of a config class, or by a function's annotation."""
    if isinstance(target, type):
        return issubclass(target, Config)
    if isinstance(target, Converted):
        return True
    returned = hints_of(target).get("return")
    returned = typing.get_origin(returned) or returned
    members = typing.get_args(returned) if isinstance(returned, types.UnionType) else (returned,)
    return any(_is_config_class(member) for member in members)


def _is_config_class(kind: Any) -> bool:
    if not isinstance(kind, type):
        return False
    if not source_name(kind):
        return issubclass(kind, fdl.Buildable)
    return kind.__name__ in _CONFIG_CLASSES and kind.__module__.startswith(_CONFIG_PACKAGES)


def bind_arguments(
    target: Any, args: Sequence[Any], kwargs: Mapping[str, Any], fit: Fit, path: str
) -> dict[int | str, Any]:
    """Returns the arguments of a call by parameter, each converted to its annotation; see :func:`call`.

    Raises:
        ConfigError: The target does not take these arguments.
    """
    target = getattr(target, "__record__", None) or target  # a config class has its fields as parameters
    parameters = parameters_of(target)
    arguments: dict[int | str, Any] = {}
    for position, value in enumerate(args):
        _, key = positional(target, position, len(args), path)
        arguments[key] = value
    for name, value in by_parameter(target, kwargs, path).items():
        check_name(target, name, join(path, name))
        if name in arguments:
            message = f"{short_name(target)} is given {name!r} twice, by position and by name"
            raise UnknownParameterError(message, path)
        arguments[name] = value
    for key, value in arguments.items():
        parameter = parameters.find(key)
        arguments[key] = fit(Any if parameter is None else parameter.annotation, value, join(path, key), target)
    return arguments


def name_beside(name: str, homes: Iterable[Any], allow: Sequence[str]) -> str:
    """Returns the full name of a function or class in the modules of others, or an empty text.

    Nothing is imported: the modules of a config's targets are already imported, or are read from source.

    Args:
        name: Its plain name.
        homes: The functions and classes whose modules are searched, in order.
        allow: What is permitted; of several matches, a permitted one is chosen.
    """
    found = [f"{module}:{name}" for module, folder in _modules(homes) if name in _names_in(module, folder)]
    return next((full for full in found if is_allowed(full, allow)), found[0] if found else "")


def unknown_factory(name: str, registered: Iterable[str], homes: Iterable[Any], allow: Sequence[str]) -> str:
    """Returns the error message for a name that is neither registered nor in the modules of the config."""
    folders = dict(_modules(homes))
    return advice.unknown_factory(name, registered, folders, lambda module: _names_in(module, folders[module]), allow)


def _modules(homes: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """Yields the modules of functions and classes, each with the folder that they were read from, if any."""
    seen = set()
    for home in homes:
        try:
            module = target_name(home).partition(":")[0]
        except TargetNotImportableError:
            continue
        if module not in seen and module != "builtins":
            seen.add(module)
            yield module, source_folder(home)


def _names_in(module: str, folder: str) -> list[str]:
    if not folder and module in sys.modules:
        return names_in(module)
    from nemo_airflow.config.source import source_at

    try:
        found = source_at(folder or None).module(module)
    except TargetNotImportableError:
        return []
    return [] if found is None else [name for name in found.members if name.isidentifier()]
