"""Recipes and executors that installed distributions register by name, as entry points.

A distribution registers them in its ``pyproject.toml``::

    [project.entry-points."nemo_airflow.recipes"]
    small = "zoo.recipes:small"

    [project.entry-points."nemo_airflow.named_executors"]
    cluster = "zoo.executors:cluster"

A recipe is a config, or a function that returns one; a named executor is an executor, a config of
one, or a function that returns either. Nothing is imported before it is used.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_airflow.exceptions import ConfigError, ExecutorArgumentError, NemoAirflowError, TargetNotImportableError
from nemo_airflow.language.nearest import nearest

if TYPE_CHECKING:
    from nemo_airflow.executors.base import Executor

RECIPES = "nemo_airflow.recipes"
EXECUTORS = "nemo_airflow.named_executors"


@dataclasses.dataclass(frozen=True)
class Registered:
    """A registered name.

    Attributes:
        name: The name.
        group: The group of entry points.
        value: ``pkg.mod:name`` of the object, as the distribution wrote it.
        distributions: Name and version of the distributions that register it; with several it is ambiguous.
    """

    name: str
    group: str
    value: str
    distributions: tuple[str, ...]

    @property
    def problem(self) -> str:
        """Why it cannot be used, as far as the entry point itself shows; empty if nothing is wrong."""
        if len(self.distributions) > 1:
            return f"registered by {' and by '.join(self.distributions)}: uninstall all but one"
        module, colon, name = self.value.partition(":")
        if not colon or not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
            return f"{self.value!r} does not name an object: the entry point has to be pkg.mod:name"
        return ""

    def load(self) -> Any:
        """Returns the object, imported.

        Raises:
            ModuleNotFoundError: A library that its module needs is not installed.
            TargetNotImportableError: It cannot be imported for another reason.
        """
        what = f"{self.name!r} of {' and '.join(self.distributions)} ({self.value})"
        if self.problem:
            raise TargetNotImportableError(f"{self.name!r} of {self.group}: {self.problem}")
        module, _, attributes = self.value.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in attributes.split("."):
                found = getattr(found, part)
        except NemoAirflowError:
            raise
        except ModuleNotFoundError as error:
            if error.name is not None and not f"{module}.".startswith(f"{error.name}."):
                raise
            raise TargetNotImportableError(f"{what} cannot be loaded: {error}") from error
        except Exception as error:  # code of third parties
            text = " ".join(str(error).split())
            message = f"{what} cannot be loaded: {type(error).__name__}{f': {text}' if text else ''}"
            raise TargetNotImportableError(message) from error
        return found

    def config(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, fit: Any = None, path: str = ""
    ) -> Any:
        """Returns the config of a recipe; a recipe whose libraries are not installed is called in the job.

        Args:
            args: Positional arguments of its function.
            kwargs: Named ones.
            fit: Converts an argument to its annotation; as :data:`nemo_airflow.config.changes.factories.Fit`.
            path: Where it is named, for errors.

        Raises:
            ConfigError: It is not a config, or does not take these arguments.
        """
        from nemo_airflow.config.changes import factories
        from nemo_airflow.config.objects.leaves import copy_config

        try:
            found = self.load()
        except ModuleNotFoundError:
            found = factories.find_target(self.value, [self.value], path)
        if factories.is_config(found):
            if args or kwargs:
                raise ConfigError(
                    f"{self.name!r} is a config, not a function, and takes no arguments: change it with overrides", path
                )
            return copy_config(factories.to_own_config(found, self.value, path))
        if not callable(found):
            message = f"the recipe {self.name!r} ({self.value}) is {type(found).__name__}, not a config or a function"
            raise ConfigError(message, path)
        return factories.call(found, args, kwargs or {}, fit=fit or factories.as_given, path=path, is_factory=True)


def registered(group: str) -> dict[str, Registered]:
    """Returns the entries of a group, by name."""
    found: dict[str, Registered] = {}
    for entry in sorted(importlib.metadata.entry_points(group=group), key=lambda entry: (entry.name, entry.value)):
        dist = entry.dist
        origin = f"{dist.name} {dist.version}" if dist is not None else "an unknown distribution"
        value = entry.value.partition("[")[0].strip()  # without the extras after it
        known = found.get(entry.name)
        if known is None or origin not in known.distributions or known.value != value:
            origins = (*known.distributions, origin) if known is not None else (origin,)
            found[entry.name] = Registered(entry.name, group, value, origins)
    return found


def named_recipe(name: str) -> Any:
    """Returns the registered config of a name.

    Raises:
        ConfigError: The name is unknown (the nearest names are in the message), or it cannot be loaded.
    """
    from nemo_airflow.config.changes.value_files import as_file

    if as_file(name) is not None or ":" in name:
        raise ConfigError(f"{name!r} is not the name of a recipe: give compose({name!r}, allow=[...]) instead")
    return _find(RECIPES, name, "recipe", ConfigError).config()


def named_executor(name: str) -> Executor:
    """Returns the registered executor of a name, or one of that kind with its defaults.

    Raises:
        ExecutorArgumentError: The name is unknown (the nearest names are in the message), it is not an executor, or
            executors of that kind need values.
    """
    from nemo_airflow.executors.base import Executor
    from nemo_airflow.executors.registry import executor_from_json, executor_kinds

    entry = registered(EXECUTORS).get(name)
    if entry is None:
        kinds = executor_kinds()
        if name in kinds:
            return executor_from_json({"kind": name})
        known = {*registered(EXECUTORS), *kinds}
        raise ExecutorArgumentError(describe_unknown(name, known, "executor", EXECUTORS))
    try:
        found = entry.load()
        if callable(found):
            found = found()
        if not isinstance(found, Executor):
            from nemo_airflow.config import Config, build

            found = build(found) if isinstance(found, Config) else found
    except ExecutorArgumentError:
        raise
    except Exception as error:  # code of third parties
        text = " ".join(str(error).split())
        raise ExecutorArgumentError(f"the executor {name!r} ({entry.value}) cannot be created: {text}") from error
    if not isinstance(found, Executor):
        raise ExecutorArgumentError(f"the executor {name!r} ({entry.value}) is {type(found).__name__}, not an Executor")
    return found


def find_executor(text: str) -> Executor:
    """Returns an executor by its registered name, or by its ``kind`` and fields as YAML or JSON.

    Raises:
        ExecutorArgumentError: It is neither; or a field is not one of its executor.
        ExecutorError: The kind is unknown.
    """
    if ":" not in text:
        return named_executor(text)
    import yaml

    from nemo_airflow.executors.registry import executor_from_json

    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ExecutorArgumentError(f"{text!r} is not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(data, Mapping) or "kind" not in data:
        raise ExecutorArgumentError(f"{text!r} is not an executor: write its fields as YAML, for example 'kind: local'")
    return executor_from_json(data)


def _find(group: str, name: str, what: str, error: Callable[[str], NemoAirflowError]) -> Registered:
    found = registered(group)
    if name not in found:
        raise error(describe_unknown(name, found, what, group))
    return found[name]


def describe_unknown(name: str, known: Iterable[str], what: str, group: str) -> str:
    """Returns the error message for an unknown name, with the nearest and all registered names."""
    return f"no {what} {name!r} is registered under '{group}'{nearest(name, sorted(known), 'registered')}"


def describe_entry(entry: Registered) -> tuple[str, str]:
    """Returns the first line of an entry's docstring, and why it cannot be used; each may be empty.

    Its module is read, not imported: listing loads no library.
    """
    from nemo_airflow.config.source.modules import Source, source_at

    if entry.problem:
        return "", entry.problem
    module, _, name = entry.value.partition(":")
    source = Source([*_homes(module), *source_at(None).folders])
    try:
        found = source.module(module)
        if found is None:
            return "", f"there is no module {module!r}"
        defined, _, _ = source.find(module, name)
    except TargetNotImportableError as error:
        return "", error.message
    text = defined.docstring.value if defined.docstring is not None else ""
    return next((line.strip() for line in text.splitlines() if line.strip()), ""), ""


def _homes(module: str) -> list[Path]:
    """Returns the folders of a package outside Python's path, such as an editable install."""
    top = module.partition(".")[0]
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return []
    folders = spec.submodule_search_locations if spec is not None else None
    return [Path(folder).parent for folder in folders or () if Path(folder).name == top]
