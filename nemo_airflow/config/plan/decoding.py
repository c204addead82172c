"""Makes a config from a plan's nodes, importing only targets that an allow-list permits."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from nemo_airflow.config.objects.buildable import KINDS, Blank, blank, by_parameter, check_name, positional
from nemo_airflow.config.objects.leaves import fit_value
from nemo_airflow.config.objects.origins import find_caller
from nemo_airflow.config.objects.recipe import ANY_ARGUMENTS, recipe_from
from nemo_airflow.config.types import checks
from nemo_airflow.config.types.parameters import Parameter, Parameters, parameters_of
from nemo_airflow.exceptions import TargetNotImportableError
from nemo_airflow.language.plan.build import Builder
from nemo_airflow.language.plan.grammar import Path, path_text


def decode(plan: Mapping[str, Any], allow: Iterable[str], source: str | os.PathLike[str] | None = None) -> Any:
    """Returns the config that a plan describes; its targets are read in a folder of code where one is given.

    Raises:
        PlanError: The plan is not valid, or names a target that is not permitted.
        TargetNotImportableError: A target does not exist.
        ConfigError: An argument is unknown, or does not fit.
    """
    return (_ConfigBuilder(allow) if source is None else _SourceBuilder(allow, source)).build(plan)


class _Known(NamedTuple):
    """Facts about a target that all of its configs in a plan share.

    Attributes:
        target: The function or class.
        parameters: Its parameters.
        fitting: Types whose values surely fit, by the names of parameters.
        blank: What its configs are made of.
    """

    target: Any
    parameters: Parameters
    fitting: Mapping[str, frozenset[type]]
    blank: Blank


class _ConfigBuilder(Builder):
    imports_recipes = False

    def __init__(self, allow: Iterable[str]) -> None:
        super().__init__(allow)
        self._location = find_caller()
        # By the id of a target, since not all can be hashed; each entry keeps its target alive, so ids are not reused.
        self._known: dict[tuple[str, int], _Known] = {}

    def call(self, kind: str, target: Any, args: Sequence[Any], kwargs: dict[Any, Any], path: Path) -> Any:
        """Makes a config in place of the call that the job would make."""
        known = self._known.get((kind, id(target))) or self._learn(kind, target)
        first = self._positional(known, args, path) if args else None
        fitting = known.fitting
        if known.parameters.other_names:
            kwargs = by_parameter(known.target, kwargs, path_text(path))
        for name, value in kwargs.items():
            if type(value) not in fitting.get(name, ()):
                kwargs[name] = self._argument(known, name, value, path)
        return known.blank.fill({**first, **kwargs} if first else kwargs)

    def artifact(self, given: Any) -> Any:
        """Leaves an artifact as it is: only a job has it as a path."""
        return given

    def _learn(self, kind: str, target: Any) -> _Known:
        parameters = parameters_of(target)
        known = _Known(target, parameters, parameters.fitting_types, blank(target, KINDS[kind], self._location))
        self._known[kind, id(target)] = known
        return known

    def _argument(self, known: _Known, name: str, value: Any, path: Path) -> Any:
        parameter = known.parameters.find(name)
        if parameter is None:
            check_name(known.target, name, path_text((*path, name)))
            return value
        return _read(parameter, value, path, name)

    def _positional(self, known: _Known, args: Sequence[Any], path: Path) -> dict[int | str, Any]:
        found: dict[int | str, Any] = {}
        for position, value in enumerate(args):
            taken, key = positional(known.target, position, len(args), path_text(path))
            found[key] = _read(taken, value, path, position)
        return found

    def recipe(
        self,
        name: str,
        target: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        overrides: Sequence[str],
        path: Path,
    ) -> Any:
        """Makes a recipe. Its factory is not imported: the libraries that it needs may not be here."""
        arguments: dict[int | str, Any] = {}
        arguments.update(enumerate(args))
        arguments.update(kwargs)
        return recipe_from(name, arguments, list(overrides))


class _SourceBuilder(_ConfigBuilder):
    """Reads targets from their source instead of importing them."""

    def __init__(self, allow: Iterable[str], source: str | os.PathLike[str]) -> None:
        super().__init__(allow)
        self._source = source

    def _resolve(self, name: str) -> Any:
        from nemo_airflow.config.source.modules import source_at
        from nemo_airflow.config.source.targets import SourceFunction, target_from_source

        if name not in self._resolved:
            try:
                self._resolved[name] = target_from_source(name, source_at(self._source))
            except TargetNotImportableError:  # compiled, or only in the job's image
                self._resolved[name] = SourceFunction(name, ANY_ARGUMENTS, "")
        return self._resolved[name]


def _read(parameter: Parameter, value: Any, path: Path, key: int | str) -> Any:
    if checks.check(parameter.annotation, value) is None:
        return value
    return fit_value(parameter.annotation, value, path_text((*path, key)), checks.read_plain)
