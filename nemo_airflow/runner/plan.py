"""Builds a plan, with the recipes in it, and records what it is then."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, List, Tuple

from nemo_airflow.language.plan.build import Builder
from nemo_airflow.language.plan.contents import check, check_allowed


def build(plan: Mapping[str, Any], allow: Iterable[str] = ()) -> Any:
    """Builds the object that a plan describes.

    Args:
        plan: The plan.
        allow: Exact names (``pkg.mod:name`` or ``pkg.mod.name``), or prefixes that end with a dot.

    Returns:
        The result of the root's target, or a callable where the root is a partial.

    Raises:
        PlanError: The plan is not valid.
        TargetNotAllowedError: A target is not permitted; nothing was imported.
        TargetNotImportableError: A target does not exist.
    """
    return build_resolved(plan, allow)[0]


def build_resolved(plan: Mapping[str, Any], allow: Iterable[str]) -> Tuple[Any, Mapping[str, Any], List[str]]:
    """Builds a plan like :func:`build`; returns also the plan without recipes, and its paths of values kept as text."""
    allow = tuple(allow)
    contents = check(plan)
    check_allowed(contents.names, allow)
    if not contents.has_recipes:
        return Builder(allow).build(plan, contents), plan, []
    # All recipes are resolved first: a factory gets configs, not the objects that those build.
    from nemo_airflow.language.recipes import resolve

    return resolve.build(plan, allow)
