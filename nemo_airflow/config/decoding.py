"""Makes a config of a plan's nodes, importing what an allow-list permits."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import fiddle as fdl

from nemo_airflow.config import checks
from nemo_airflow.config.buildable import Config, Partial, check_name, unchecked
from nemo_airflow.config.leaves import fitted
from nemo_airflow.config.parameters import parameters_of
from nemo_airflow.config.targets import short_name
from nemo_airflow.exceptions import UnknownParameterError
from nemo_airflow.runner import plan as runner
from nemo_airflow.runner.grammar import Path, join, path_text

_KINDS: Mapping[str, type] = {"config": Config, "partial": Partial, "arg_factory": fdl.ArgFactory}


def decode(plan: Mapping[str, Any], allow: Iterable[str]) -> Any:
    """Returns the config that a plan describes.

    Raises:
        runner.PlanError: The plan is not valid, or names what is not permitted.
        runner.TargetNotFound: A target is not there.
        ConfigError: An argument is unknown, or does not fit.
    """
    return _ConfigBuilder(allow).build(plan)


class _ConfigBuilder(runner.Builder):
    def call(self, kind: str, target: Any, args: Sequence[Any], kwargs: Mapping[str, Any], path: Path) -> Any:
        """Makes a config where the job would make the call."""
        where = path_text(path)
        arguments: dict[int | str, Any] = {}
        for position, value in enumerate(args):
            parameter = parameters_of(target).find(position)
            if parameter is None:
                raise UnknownParameterError(
                    f"{short_name(target)} does not take {len(args)} positional arguments", where
                )
            named = parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
            arguments[parameter.name if named else position] = value
        for name in kwargs:
            check_name(target, name, join(where, name))
        arguments.update(kwargs)
        for key, value in arguments.items():
            parameter = parameters_of(target).find(key)
            if parameter is not None:
                arguments[key] = fitted(parameter.annotation, value, join(where, key), checks.read_plain)
        return unchecked(target, arguments, _KINDS[kind])
