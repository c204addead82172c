"""Makes the values of changes: converts what an override, a file or a mapping gives to its place in a config."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import fiddle as fdl

from nemo_airflow.config.changes import factories
from nemo_airflow.config.objects.buildable import path_below
from nemo_airflow.config.objects.leaves import fit_value
from nemo_airflow.config.objects.origins import ChangeLocation, Origin, note_arguments
from nemo_airflow.config.types import checks
from nemo_airflow.config.types.graph import is_dataclass_instance, iter_nodes
from nemo_airflow.exceptions import ConfigError, OverrideError, TargetNotImportableError
from nemo_airflow.language.names import target_name
from nemo_airflow.language.overrides import nodes as nodes
from nemo_airflow.language.overrides.advice import classes_in
from nemo_airflow.language.overrides.coded import is_code, plain, read_call
from nemo_airflow.language.overrides.values import Reader
from nemo_airflow.language.plan.grammar import join_paths
from nemo_airflow.registered import RECIPES, Registered, registered


class Layers(Protocol):
    """What lays whole files over configs, in which there are changes again: it is handed in from above."""

    def apply_file(self, root: Any, file: nodes.File, origin: Origin) -> Any:
        """Returns a config with the content of a file laid over it."""

    def expand(self, file: nodes.File, origin: Origin, read: Callable[[], Any], path: str) -> Any:
        """Returns the content of a file, with each mapping that has a ``_base_`` laid over that base."""


class Values:
    """Makes the values of changes.

    Args:
        origin: Where the changes come from.
        root: The config that is changed; changes may name its own targets.
        location: Who makes the changes, for the history of new configs.
        layers: Lays files.
        reads_numbers: Whether a text may be the number that it says.
    """

    def __init__(
        self,
        origin: Origin,
        root: Any,
        location: ChangeLocation | None = None,
        *,
        layers: Layers,
        reads_numbers: bool = True,
    ) -> None:
        self._origin = origin
        self._root = root
        self._location = location
        self._layers = layers
        self._reads_numbers = reads_numbers
        self._known: tuple[str, ...] | None = None
        self._made: dict[int, tuple[Any, Any]] = {}

    def read(self, annotation: Any, given: Any, path: str, beside: Sequence[Any] = ()) -> Any:
        """Returns a value converted to the annotation of its place.

        Args:
            annotation: The annotation.
            given: A node of the grammar of overrides, or a value.
            path: The place.
            beside: Functions and classes whose modules are searched for a factory without a module in its name.

        Raises:
            ParameterTypeError: It does not fit.
            ConfigError: A factory or a file in it cannot be used.
        """
        reader = self.reader(annotation, path, beside)
        return fit_value(annotation, given, path, functools.partial(checks.read_with, reader))

    def reader(self, annotation: Any, path: str, beside: Sequence[Any] = ()) -> Reader:
        """Returns the reader of the values for a place; the arguments are those of :meth:`read`."""
        homes = (*classes_in(annotation), *beside)

        def make(given: Any, annotation: Any, keys: tuple[Any, ...]) -> Any:
            return self.make(given, annotation, path_below(path, keys), homes)

        return Reader(checks.stands_in, make, is_code, self._reads_numbers, checks.result_fits, checks.accepts)

    def make(self, given: Any, annotation: Any = Any, path: str = "", beside: Sequence[Any] = ()) -> Any:
        """Returns the value of a call, a file or a mapping with a ``_target_`` or a tag of plans."""
        if isinstance(given, nodes.Call):
            return self._call(given, path, beside)
        if isinstance(given, nodes.File):
            return self.read(annotation, self._expanded(given, path), path, beside)
        if id(given) not in self._made:  # once, though it may be in several places, like that of a YAML anchor
            self._made[id(given)] = (given, self._coded(given, path, beside))
        return self._made[id(given)][1]

    def _coded(self, given: Any, path: str, beside: Sequence[Any]) -> Any:
        coded = read_call(given, path)
        if coded is None:
            return self._planned(given, path)
        return self._named(coded.call.name, coded.call.args, dict(coded.call.kwargs), path, beside, coded.kind)

    def file(self, file: nodes.File, path: str) -> Any:
        """Returns the content of a file as plain values.

        Raises:
            OverrideError: It cannot be read, or this origin may not read files.
        """
        from nemo_airflow.config.changes.value_files import read_values

        folder = self._folder(file, path)
        try:
            return read_values(file.path, file.key, folder)
        except OverrideError as error:
            raise OverrideError(error.message, path) from error

    def _folder(self, file: nodes.File, path: str) -> Path:
        if self._origin.folder is None:
            raise OverrideError(self._origin.no_files(file.path), path)
        return self._origin.folder

    def _expanded(self, file: nodes.File, path: str) -> Any:
        self._folder(file, path)
        return self._layers.expand(file, self._origin, lambda: self.file(file, path), path)

    @property
    def allow(self) -> tuple[str, ...]:
        """What may be imported: names that the origin permits, registered recipes, and the config's own targets."""
        if self._known is None:
            registered_targets = (entry.value for entry in self.recipes.values() if not entry.problem)
            self._known = (*_targets_in(self._root), *registered_targets)
        return (*self._origin.allow, *self._known)

    def grant_registered(self, name: str) -> bool:
        """Grants a target that is registered as a recipe under any name; returns whether it is."""
        dotted = name.replace(":", ".")
        found = next((e.value for e in self.recipes.values() if e.value.replace(":", ".") == dotted), None)
        if found is not None:
            self._origin.granted.names.add(found)
        return found is not None

    @functools.cached_property
    def recipes(self) -> dict[str, Registered]:
        """The registered recipes, by name."""
        return registered(RECIPES)

    def _planned(self, given: Any, path: str) -> Any:
        """Makes the values of a plan's tags, such as ``{_path_: /data}``, and recipes."""
        from nemo_airflow.config.plan import from_plan
        from nemo_airflow.config.texts.yaml_text import plan_from_values

        try:
            return from_plan(plan_from_values(plain(given)), self.allow)
        except ConfigError as error:
            raise type(error)(error.message, join_paths(path, error.path)) from error

    def _call(self, node: nodes.Call, path: str, beside: Sequence[Any]) -> Any:
        named = dict(node.kwargs)
        if ":" not in node.name and (entry := self.recipes.get(node.name)) is not None:
            return self._made_by_recipe(entry.config(node.args, named, self._argument, path))
        name = node.name
        if ":" not in name and "." not in name:
            name = factories.name_beside(name, beside, self.allow)
            if not name:
                raise OverrideError(factories.unknown_factory(node.name, self.recipes, beside, self.allow), path)
        return self._named(name, node.args, named, path, beside)

    def _named(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        path: str,
        beside: Sequence[Any],
        kind: str = "config",
    ) -> Any:
        is_recipe = self.grant_registered(name)
        target = factories.find_target(name, self.allow, path, beside)
        made = factories.call(target, args, kwargs, fit=self._argument, path=path, kind=kind, is_factory=is_recipe)
        return self._made_by_recipe(made) if is_recipe else self._noted(made)

    def _made_by_recipe(self, config: Any) -> Any:
        self._origin.granted.configs.append(config)
        return self._noted(config)

    def _noted(self, config: Any) -> Any:
        if self._location is not None:
            note_arguments(config, self._location)
        return config

    def _argument(self, annotation: Any, given: Any, path: str, target: Any) -> Any:
        return self.read(annotation, given, path, (target,))


def _targets_in(root: Any) -> Iterable[str]:
    names: dict[str, None] = {}
    for _, value, _ in iter_nodes(root):
        if isinstance(value, fdl.Buildable):
            target = value.__fn_or_cls__
        elif is_dataclass_instance(value):
            target = type(value)
        else:
            continue
        try:
            names[target_name(target)] = None
        except TargetNotImportableError:
            continue  # what a job could not import, a change cannot name
    return names
