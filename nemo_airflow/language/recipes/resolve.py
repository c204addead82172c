"""Resolves recipes: calls factories of configs where their libraries are, and applies overrides to the results.

A plan with recipes first becomes a tree of the configs of :mod:`nemo_airflow.language.configs`, in which
each recipe is replaced by its factory's result. The tree is built, and recorded as a plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Dict, List, Tuple

from nemo_airflow.language import configs
from nemo_airflow.language.errors import ConfigError, PlanError
from nemo_airflow.language.names import resolve
from nemo_airflow.language.plan.build import Builder
from nemo_airflow.language.plan.grammar import Path, join_paths, path_text
from nemo_airflow.language.recipes import changes, foreign
from nemo_airflow.language.recipes import tree as trees


def build(plan: Mapping[str, Any], allow: Iterable[str]) -> Tuple[Any, Dict[str, Any], List[str]]:
    """Resolves the recipes of a plan and builds it.

    Args:
        plan: The plan.
        allow: As for :func:`nemo_airflow.language.plan.build.build`.

    Returns:
        The built object, the resolved plan, and the paths of values that the plan has only as text.

    Raises:
        PlanError: The plan is not valid, a factory's result cannot be built, or an override does not fit.
        TargetNotAllowedError: A factory is not permitted; nothing was imported.
    """
    tree = expand(plan, allow)
    recorded, as_text = trees.record(tree)
    return trees.build(tree), recorded, as_text


def build_here(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], overrides: Sequence[str]) -> Any:
    """Resolves one recipe and builds it; the recipe's own package is allowed.

    Args:
        name: ``pkg.mod:name`` of the factory.
        args: Its positional arguments, built.
        kwargs: Its named arguments, built.
        overrides: Override texts for its result.
    """
    allow = (name, name.replace(":", ".").partition(".")[0] + ".")
    return trees.build(_resolve(name, resolve(name, allow), args, kwargs, overrides, allow, ""))


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
    tree = foreign.own((as_buildable or factory)(*args, **kwargs))
    if overrides:
        if not isinstance(tree, configs.Config):
            raise PlanError(
                f"{name} returned {type(tree).__name__}, not a config, so overrides={list(overrides)} cannot apply: "
                "decorate it with @autoconvert",
                path,
            )
        for text in overrides:
            try:
                tree = changes.apply(tree, text, allow)
            except ConfigError as error:
                summary = error.message.partition("\n")[0]
                raise type(error)(f"{summary} (override {text!r})", join_paths(path, error.path)) from error
    return tree
