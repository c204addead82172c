"""How a change sees Fiddle's configs: with their history, and with each value checked as pydantic checks it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import fiddle as fdl

from nemo_airflow.config.changes.values import Layers, Values
from nemo_airflow.config.objects.buildable import path_below, unchecked
from nemo_airflow.config.objects.leaves import copy_config
from nemo_airflow.config.objects.origins import ChangeLocation, Origin, location_of, remove_argument, set_argument
from nemo_airflow.config.objects.view import FiddleConfigs
from nemo_airflow.config.types import checks
from nemo_airflow.config.types.graph import is_dataclass_instance, iter_nodes, recipe_overrides
from nemo_airflow.config.types.parameters import parameters_of
from nemo_airflow.exceptions import OverrideError, ParameterTypeError
from nemo_airflow.language.overrides.apply import REMOVED, Change, ChangeView
from nemo_airflow.language.overrides.nodes import File
from nemo_airflow.language.overrides.paths import parse_path
from nemo_airflow.language.overrides.syntax import parse_override, parse_value
from nemo_airflow.language.overrides.values import Reader
from nemo_airflow.language.overrides.writing import format_override

Key = str | int


@contextlib.contextmanager
def not_too_deep(path: str) -> Iterator[None]:
    """Converts Python's recursion error for a value to ``OverrideError``."""
    try:
        yield
    except RecursionError:
        raise OverrideError("the value is nested too deep to be read", path) from None


class FiddleView(FiddleConfigs, ChangeView):
    """Sees Fiddle's configs.

    Args:
        values: Makes the values of calls, files and mappings.
        location: Who makes the changes, for the configs' history.
    """

    def __init__(self, values: Values, location: ChangeLocation) -> None:
        self.values, self.location = values, location

    def find_key(self, config: Any, key: Key) -> Any:
        """Returns the name of a parameter under one of its names, or None."""
        parameters = parameters_of(config.__fn_or_cls__)
        return parameters.name_of(key) if isinstance(key, str) and parameters.find(key) is not None else None

    def names(self, config: Any) -> Iterable[str]:
        """Returns the names of the arguments that a config takes."""
        return parameters_of(config.__fn_or_cls__).names

    def annotation(self, config: Any, key: Key) -> Any:
        """Returns the annotation of an argument."""
        parameter = parameters_of(config.__fn_or_cls__).find(key)
        return Any if parameter is None else parameter.annotation

    def copy_default(self, default: Any) -> Any:
        """Returns a copy of a default, which is the target's own."""
        return copy_config(default)

    def set(self, config: Any, key: Key, value: Any) -> None:
        """Sets an argument, and notes who did."""
        set_argument(config, key, value, self.location)

    def remove(self, config: Any, key: Key) -> None:
        """Removes an argument, and notes who did."""
        remove_argument(config, key, self.location)

    def open_instance(self, value: Any, root: Any) -> Any:
        """Returns a dataclass's instance as a config, in all places of the root that have it."""
        if not is_dataclass_instance(value):
            return value
        names = [field.name for field in dataclasses.fields(value) if field.init]
        config = unchecked(type(value), {name: getattr(value, name) for name in names})
        for _, holder, below in iter_nodes(root):
            if isinstance(holder, (fdl.Buildable, list, dict)):
                for key, child in below or ():
                    if child is value:
                        places = holder.__arguments__ if isinstance(holder, fdl.Buildable) else holder
                        places[key] = config
        return config

    def hand_on(self, config: Any, change: Change, number: int) -> bool:
        """Gives an override of the result of a recipe's factory to the recipe; returns whether it was one."""
        from nemo_airflow.config.changes.job_values import JobValues
        from nemo_airflow.config.objects.recipe import add_override, takes

        if recipe_overrides(config) is None or takes(config, change.keys[number]):
            return False
        values = JobValues(self.values, config.__fn_or_cls__)
        value = None if change.given is REMOVED else values.of(change.given, change.path)
        add_override(config, format_override(change.keys[number:], change.operator, value), self.location)
        return True

    def reader(self, annotation: Any, path: str, old: Any, holder: Any) -> Reader:
        """Returns the reader of the values for a place."""
        return self.values.reader(annotation, path, find_neighbours(old, holder))

    def check(self, annotation: Any, value: Any, path: str) -> None:
        """Checks strictly what was read."""
        misfit = checks.check(annotation, value)
        if misfit is not None:
            raise ParameterTypeError(misfit.message, path_below(path, misfit.keys))


def change_config(config: Any, overrides: Mapping[str, Any] | Sequence[str], origin: Origin, layers: Layers) -> Any:
    """Applies overrides to a config itself, and returns it, or another where it could not be changed.

    Args:
        config: The config.
        overrides: Values by path, or texts.
        origin: Where they come from.
        layers: Lays files over the config.
    """
    if isinstance(overrides, Mapping):
        for path, value in overrides.items():
            if not isinstance(path, str):
                raise OverrideError(f"the path {path!r} is not a text")
            location = location_of(f"override {path!r}", origin)
            values = Values(origin, config, location, layers=layers)
            config = Change(FiddleView(values, location), path, parse_path(path), "=", value).apply(config)
        return config
    for text in [overrides] if isinstance(overrides, str) else overrides:
        config = _changed(config, text, origin, layers)
    return config


def _changed(config: Any, text: str, origin: Origin, layers: Layers) -> Any:
    if isinstance(text, str) and text.lstrip().startswith("@"):
        file = parse_value(text.strip())
        if isinstance(file, File):
            return layers.apply_file(config, file, origin)
    override = parse_override(text)
    location = location_of(f"override {text.strip()!r}", origin)
    values = Values(origin, config, location, layers=layers)
    node = REMOVED if override.node is None else override.node
    view = FiddleView(values, location)
    return Change(view, override.place, override.path, override.operator, node, override).apply(config)


def find_neighbours(old: Any, holder: Any) -> list[Any]:
    """Returns the functions and classes whose modules may define a factory for this value."""
    targets = []
    if isinstance(old, fdl.Buildable):
        targets.append(old.__fn_or_cls__)
    elif is_dataclass_instance(old):
        targets.append(type(old))
    return targets if holder is None else [*targets, holder.__fn_or_cls__]
