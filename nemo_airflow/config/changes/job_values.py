"""Values of changes that a job applies below a recipe, checked here as far as the recipe's source allows."""

from __future__ import annotations

import datetime
import enum
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nemo_airflow.config.changes import factories
from nemo_airflow.config.changes.values import Values
from nemo_airflow.config.plan import to_plan
from nemo_airflow.config.source import source_at, target_from_source
from nemo_airflow.exceptions import ConfigError, OverrideError, TargetNotImportableError
from nemo_airflow.language.names import source_folder
from nemo_airflow.language.overrides import nodes as nodes
from nemo_airflow.language.overrides.coded import NODES, holds_code, is_code, plain, read_call
from nemo_airflow.language.plan.grammar import join, join_paths

if TYPE_CHECKING:
    from nemo_airflow.config.objects.recipe import Factory


_WRITTEN = (
    *(bool, int, float, str, type(None), set, frozenset, enum.Enum, os.PathLike, datetime.date, datetime.time),
    *NODES,
)
"""Types of values that have a text of their own in an override."""


class JobValues:
    """Makes the override nodes that the job gets: without files, and with full names of factories.

    A factory in the recipe's own code is looked up in the source, and its arguments are
    checked. Any other factory is resolved in the job. Nothing is imported.

    Args:
        values: Makes values of changes that are applied in this process.
        factory: The recipe's factory.
    """

    def __init__(self, values: Values, factory: Factory) -> None:
        self._values = values
        self._factory = factory

    def of(self, given: Any, path: str) -> Any:
        """Returns a node or value in the form for the job's override.

        Args:
            given: A node of the grammar of overrides, or a value.
            path: The place, for errors.

        Raises:
            ConfigError: A factory or a file in it cannot be used.
        """
        if isinstance(given, nodes.File):
            return self.of(self._values.file(given, path), path)
        if isinstance(given, nodes.Call):
            return self._call(given.name, given.args, dict(given.kwargs), path)
        if isinstance(given, nodes.Items):
            return nodes.Items(given.kind, tuple(self.of(item, path) for item in given.items))
        if isinstance(given, nodes.Pairs) and not is_code(given):
            given = {nodes.value_of(key): item for key, item in given.pairs}
        if is_code(given):
            coded = read_call(given, path)
            if coded is None:
                return self._tag(given, path)
            call = self._call(coded.call.name, coded.call.args, dict(coded.call.kwargs), path)
            if coded.kind == "config":
                return call
            return {"_target_": call.name, f"_{coded.kind}_": True, "_args_": list(call.args), **dict(call.kwargs)}
        if isinstance(given, Mapping):
            return {key: self.of(value, path) for key, value in given.items()}
        if type(given) in (list, tuple):
            return type(given)(self.of(item, path) for item in given)
        return given if isinstance(given, _WRITTEN) else self._encoded(given, path)

    def _tag(self, given: Any, path: str) -> Any:
        """Returns a mapping that is one tag of plans, such as ``{_path_: /data}``."""
        from nemo_airflow.config.texts.yaml_text import plan_from_values

        try:
            node = plan_from_values(plain(given))["root"]
        except ConfigError as error:
            raise type(error)(error.message, join_paths(path, error.path)) from error
        if not isinstance(node, dict) or "_target_" in node or "_value_" in node:
            raise OverrideError("a recipe cannot be a value below another one: name a factory", path)
        return node

    def _encoded(self, given: Any, path: str) -> Any:
        """Returns a value that has no text of its own, such as a config, as a plan has it."""
        try:
            return self.of(to_plan(given, check=False, defaults=False)["root"], path)
        except ConfigError as error:
            raise type(error)(error.message, error.path if error.path.startswith(path) else path) from error

    def _call(self, written: str, args: Sequence[Any], kwargs: Mapping[str, Any], path: str) -> nodes.Call:
        name = self._full_name(written, path)
        positional = tuple(self.of(item, path) for item in args)
        named = {key: self.of(item, join(path, key)) for key, item in kwargs.items()}
        target = self._target(name, path)
        if target is not None:
            factories.bind_arguments(target, positional, named, self._checked, path)
        return nodes.Call(name, positional, tuple(named.items()))

    def _full_name(self, name: str, path: str) -> str:
        from nemo_airflow.language.names import name_from_dotted

        entry = self._values.recipes.get(name) if ":" not in name else None
        if entry is not None or ":" in name or "." in name or not self._factory.is_read:
            full = entry.value if entry is not None else name_from_dotted(name)
            self._values.grant_registered(full)
            return full
        homes, allow = (self._factory,), self._values.allow
        full = factories.name_beside(name, homes, allow)
        if not full:
            raise OverrideError(factories.unknown_factory(name, self._values.recipes, homes, allow), path)
        return full

    def _target(self, name: str, path: str) -> Any:
        """Returns the stand-in of a factory in the recipe's own code; None for one that only the job can resolve."""
        module, _, qualname = name.partition(":")
        folder = source_folder(self._factory)
        package, own = module.partition(".")[0], self._factory.__module__.partition(".")[0]
        where = source_at(folder or None)
        if not self._factory.is_read or (package != own and not (folder and where.is_in_folder(package))):
            return None
        try:
            return target_from_source(name, where)
        except TargetNotImportableError as error:
            if where.may_have(module, qualname):
                return None
            raise TargetNotImportableError(error.message, path) from error

    def _checked(self, annotation: Any, given: Any, path: str, target: Any) -> Any:
        return given if holds_code(given) else self._values.read(annotation, given, path, (target,))
