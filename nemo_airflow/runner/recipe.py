"""Resolves recipes: calls factories of configs where their libraries are, and applies overrides to the results.

A plan with recipes first becomes a tree of the configs of :mod:`nemo_airflow.runner.configs`, in which
each recipe is replaced by its factory's result. The tree is built, and recorded as a plan.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Dict, List, Tuple

from nemo_airflow.runner import configs, resolved
from nemo_airflow.runner.grammar import Path, PlanError, path_text
from nemo_airflow.runner.plan import Builder, resolve

__all__ = ["autoconvert", "build", "build_here", "expand"]


def build(plan: Mapping[str, Any], allow: Iterable[str]) -> Tuple[Any, Dict[str, Any], List[str]]:
    """Resolves the recipes of a plan and builds it.

    Args:
        plan: The plan.
        allow: As for :func:`nemo_airflow.runner.plan.build`.

    Returns:
        The built object, the resolved plan, and the paths of values that the plan has only as text.

    Raises:
        PlanError: The plan is not valid, a factory's result cannot be built, or an override does not fit.
        TargetNotAllowed: A factory is not permitted; nothing was imported.
    """
    tree = expand(plan, allow)
    recorded, as_text = resolved.record(tree)
    return resolved.build(tree), recorded, as_text


def build_here(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], overrides: Sequence[str]) -> Any:
    """Resolves one recipe and builds it; the recipe's own package is allowed.

    Args:
        name: ``pkg.mod:name`` of the factory.
        args: Its positional arguments, built.
        kwargs: Its named arguments, built.
        overrides: Override texts for its result.
    """
    allow = (name, name.replace(":", ".").partition(".")[0] + ".")
    return resolved.build(_resolve(name, resolve(name, allow), args, kwargs, overrides, allow, ""))


def expand(plan: Mapping[str, Any], allow: Iterable[str]) -> Any:
    """Returns a plan's root as a tree of configs, each recipe replaced by its factory's result."""
    return _Expansion(allow).build(plan)


class _Expansion(Builder):
    def artifact(self, given: Any) -> Any:
        """Leaves an artifact as it is: the config may yet be changed."""
        return given

    def call(self, kind: str, target: Any, args: Sequence[Any], kwargs: Mapping[str, Any], path: Path) -> Any:
        """Makes a config in place of the call."""
        try:
            made = configs.KINDS[kind](target, *args)
        except TypeError as error:
            raise PlanError(str(error), path_text(path)) from None
        made.__arguments__.update(kwargs)
        return made

    def recipe(
        self,
        name: str,
        target: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        overrides: Sequence[str],
        path: Path,
    ) -> Any:
        """Calls the factory and applies the overrides to its result."""
        return _resolve(name, target, args, kwargs, overrides, self._allow, path_text(path))


def _resolve(
    name: str,
    factory: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    overrides: Sequence[str],
    allow: Iterable[str],
    path: str,
) -> Any:
    for argument in kwargs:
        try:
            configs.check_name(factory, argument)
        except TypeError as error:
            raise PlanError(str(error), path) from None
    as_buildable = getattr(factory, "as_buildable", None)  # Fiddle's auto_config
    tree = _Foreign().own((as_buildable or factory)(*args, **kwargs))
    if overrides:
        from nemo_airflow.runner import changes

        if not isinstance(tree, configs.Config):
            raise PlanError(
                f"{name} returned {type(tree).__name__}, not a config, so overrides={list(overrides)} cannot apply: "
                "decorate it with @autoconvert",
                path,
            )
        for text in overrides:
            tree = changes.apply(tree, text, allow)
    return tree


def config_of_call(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Returns the config of a call; calls a function whose annotation is a config, and returns its result.

    Raises:
        TypeError: The target does not take these arguments.
    """
    made: Any = configs.Config(target, *args, **kwargs)
    if isinstance(target, type) or not _returns_configs(target):
        return made
    as_buildable = getattr(target, "as_buildable", None)  # Fiddle's auto_config
    return _Foreign().own((as_buildable or target)(*args, **kwargs))


def _returns_configs(target: Any) -> bool:
    from nemo_airflow.runner import typed
    from nemo_airflow.runner.autoconvert import Converted

    if isinstance(target, Converted) or hasattr(target, "as_buildable"):
        return True
    returned = typed.annotation_of(target, "return")
    returned = typing.get_origin(returned) or returned
    bases = returned.__mro__ if isinstance(returned, type) else ()
    return any(base is configs.Config or base.__name__ == "Buildable" for base in bases)


class _Foreign:
    """Converts configs of Fiddle, and of libraries built on it, to configs of this package, each once."""

    def __init__(self) -> None:
        self._made: Dict[int, Any] = {}
        self._kept: List[Any] = []

    def own(self, root: Any) -> Any:
        """Returns the root with each foreign config converted."""
        waiting: List[Any] = []
        found = self._shallow(root, waiting)
        while waiting:
            made = waiting.pop()
            arguments = made.__arguments__
            for key, value in list(arguments.items()):
                arguments[key] = self._shallow(value, waiting)
        return found

    def _shallow(self, value: Any, waiting: List[Any]) -> Any:
        """Returns a converted value whose configs' arguments are not converted yet."""
        if id(value) in self._made:
            return self._made[id(value)]
        if isinstance(value, configs.Config):
            made: Any = value
            waiting.append(made)
        elif is_foreign(value):
            made = configs.unchecked(_kind_of(value), value.__fn_or_cls__, dict(value.__arguments__))
            waiting.append(made)
        else:
            pairs = resolved.children(value)
            if not pairs:
                return value
            made = resolved.rebuild(value, [self._shallow(child, waiting) for _, child in pairs])
        self._made[id(value)] = made
        self._kept.append(value)
        return made


def is_foreign(value: Any) -> bool:
    """Returns whether a value is a config of Fiddle, or of a library that is built on it."""
    if isinstance(value, (type, configs.Config)):
        return False
    return any(base.__name__ == "Buildable" for base in type(value).__mro__) and hasattr(value, "__fn_or_cls__")


def _kind_of(value: Any) -> str:
    names = [base.__name__ for base in type(value).__mro__]
    return "arg_factory" if "ArgFactory" in names else "partial" if "Partial" in names else "config"


def autoconvert(plain: Any = None, *, partial: bool = False) -> Any:
    """Makes a function that returns an object into one that returns its config.

    See :mod:`nemo_airflow.runner.autoconvert`.

    Args:
        plain: The function; a decorator when None.
        partial: Whether the config is of a callable, to be called later.
    """
    from nemo_airflow.runner.autoconvert import convert

    if plain is None:
        return lambda function: autoconvert(function, partial=partial)
    return convert(plain, configs.Config, configs.Partial, partial)
