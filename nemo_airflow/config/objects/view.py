"""How the language sees Fiddle's configs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import fiddle as fdl

from nemo_airflow.config.objects.buildable import known_default
from nemo_airflow.config.types.graph import (
    children,
    is_dataclass_instance,
    is_deferred,
    iter_nodes,
    literal_of,
    rebuild,
    recipe_overrides,
)
from nemo_airflow.config.types.parameters import NO_DEFAULT, Parameter, parameters_of
from nemo_airflow.language.names import target_name
from nemo_airflow.language.view import View


class FiddleConfigs(View):
    """Reads Fiddle's configs."""

    def is_config(self, value: Any) -> bool:
        """Returns whether a value is a config."""
        return isinstance(value, fdl.Buildable)

    def kind(self, config: Any) -> str:
        """Returns ``config``, ``partial`` or ``arg_factory``."""
        if isinstance(config, fdl.ArgFactory):
            return "arg_factory"
        return "partial" if isinstance(config, fdl.Partial) else "config"

    def overrides(self, config: Any) -> Sequence[str] | None:
        """Returns the overrides of a recipe."""
        return recipe_overrides(config)

    def name(self, target: Any) -> str:
        """Returns the name of a function or class."""
        return target_name(target)

    def parameters(self, target: Any) -> Mapping[str, Parameter]:
        """Returns the parameters of a target."""
        return parameters_of(target).by_name

    def default(self, target: Any, name: str) -> Any:
        """Returns the default of a parameter, or that of its factory where it is known."""
        parameter = parameters_of(target).by_name.get(name)
        return NO_DEFAULT if parameter is None or parameter.is_variadic else known_default(parameter)

    def children(self, value: Any) -> Sequence[tuple[Any, Any]] | None:
        """Returns the keys and values below a value, or None for a leaf."""
        return children(value)

    def rebuild(self, value: Any, values: Sequence[Any]) -> Any:
        """Returns a container with other values, or a copy where these are the same."""
        same = all(new is old for new, (_, old) in zip(values, children(value) or (), strict=True))
        return rebuild(value, values, same=same)

    def is_built(self, value: Any) -> bool:
        """Returns whether a value is an instance of a dataclass without configs below it."""
        return is_dataclass_instance(value) and not any(self.is_config(node) for _, node, _ in iter_nodes(value))

    def content(self, value: Any) -> Any:
        """Returns the content of Airflow's ``literal(...)``."""
        return literal_of(value)

    def is_deferred(self, value: Any) -> bool:
        """Returns whether a value is a template or the output of another task."""
        return is_deferred(value)
