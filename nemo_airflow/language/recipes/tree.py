"""A resolved config, of the objects of :mod:`nemo_airflow.language.configs`: built, and written as a plan."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Dict, List, Optional, Set, Tuple

from nemo_airflow.language import configs
from nemo_airflow.language.artifact import Artifact
from nemo_airflow.language.errors import PlanError, TargetNotImportableError
from nemo_airflow.language.names import name_of
from nemo_airflow.language.plan.build import Builder, make_container
from nemo_airflow.language.plan.grammar import VERSION, Path, below, path_text
from nemo_airflow.language.plan.write import write
from nemo_airflow.language.texts import dotted_name
from nemo_airflow.language.view import View


class JobConfigs(View):
    """Reads the configs of :mod:`nemo_airflow.language.configs`."""

    def is_config(self, value: Any) -> bool:
        """Returns whether a value is a config."""
        return isinstance(value, configs.Config)

    def kind(self, config: Any) -> str:
        """Returns ``config``, ``partial`` or ``arg_factory``."""
        return str(config.__kind__)

    def name(self, target: Any) -> str:
        """Returns the name of a function or class."""
        name = name_of(target)
        if name is None:
            raise TargetNotImportableError(f"{dotted_name(target)} cannot be imported by its name")
        return name

    def parameters(self, target: Any) -> Mapping[str, inspect.Parameter]:
        """Returns the parameters of a target."""
        return configs.parameters_of(target)

    def default(self, target: Any, name: str) -> Any:
        """Returns the default of a parameter, or what its factory returns."""
        return configs.default_of(target, name)

    def children(self, value: Any) -> Optional[Sequence[Tuple[Any, Any]]]:
        """Returns the keys and values below a config or a container, or None for a leaf."""
        if isinstance(value, configs.Config):
            return list(configs.ordered(value))
        kind = type(value)
        if kind is dict:
            return list(value.items())
        if kind in (list, tuple):
            return list(enumerate(value))
        if isinstance(value, tuple) and hasattr(kind, "_fields"):
            return list(zip(kind._fields, value))
        if kind in (set, frozenset):
            return list(enumerate(sorted(value, key=lambda item: (type(item).__name__, repr(item)))))
        return None

    def rebuild(self, value: Any, values: Sequence[Any]) -> Any:
        """Returns a container with other values; the same container where these are the same."""
        if all(new is old for new, (_, old) in zip(values, self.children(value) or ())):
            return value
        if isinstance(value, dict):
            return dict(zip(value, values))
        if hasattr(type(value), "_fields"):
            return type(value)(*values)
        return type(value)(values)


VIEW = JobConfigs()


def build(root: Any, view: View = VIEW, builder: Optional[Builder] = None) -> Any:
    """Builds a config with all configs below it, each once.

    Args:
        root: The config, or a value with configs in it.
        view: How configs are seen.
        builder: Makes the calls.

    Raises:
        PlanError: A value contains itself or is nested too deep, or an argument factory is not an argument of a
            partial.
    """
    made: Dict[int, Any] = {}
    kept: List[Any] = []  # kept alive, since ids are reused
    open_: Set[int] = set()
    builder = builder or Builder(())

    def visit(value: Any, path: Path) -> Any:
        pairs = view.children(value)
        if pairs is None or view.is_built(value):
            return builder.artifact(value) if isinstance(value, Artifact) else value
        if id(value) in made:
            return made[id(value)]
        if id(value) in open_:
            raise PlanError("the value contains itself", path_text(path))
        open_.add(id(value))
        values = []
        for key, child in pairs:
            values.append(visit(child, below(path, key)))
        open_.discard(id(value))
        if view.is_config(value):
            kind, target = view.kind(value), view.target(value)
            call = configs.unchecked(kind, target, {key: new for (key, _), new in zip(pairs, values)})
            built = builder.call(kind, target, configs.positional(call), configs.named(call), path)
        else:
            built = make_container(view.rebuild(value, values), values)
        made[id(value)] = built
        kept.append(value)
        return built

    return visit(root, ())


def all_below(root: Any) -> List[Any]:
    """Returns the configs and containers of a value, itself included; shared ones once.

    Raises:
        PlanError: It is nested too deep.
    """
    found: Dict[int, Any] = {}

    def visit(value: Any, path: Path) -> None:
        pairs = VIEW.children(value)
        if pairs is None or id(value) in found:
            return
        found[id(value)] = value
        for key, child in pairs:
            visit(child, below(path, key))

    visit(root, ())
    return list(found.values())


def record(root: Any) -> Tuple[Dict[str, Any], List[str]]:
    """Returns a config as a plan for people and the tracker, and the paths of values that a plan cannot hold.

    Such values, for example the type of a tensor, are in the plan as text.

    Raises:
        PlanError: A value contains itself, or is nested too deep.
    """
    as_text: List[str] = []
    node = write(root, VIEW, defaults=True, as_text=as_text)
    return {"version": VERSION, "root": node}, as_text
