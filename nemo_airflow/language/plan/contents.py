"""Walks over all nodes of a plan, checking each, and lists its content. Imports nothing that a plan names."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Mapping
from math import isfinite
from typing import Any, Dict, List, Set, Tuple

from nemo_airflow.language.errors import PlanError, TargetNotAllowedError
from nemo_airflow.language.names import check_entries, is_allowed
from nemo_airflow.language.plan.grammar import (
    MAX_DEPTH,
    VERSION,
    Path,
    children,
    is_plan,
    kind_of,
    part,
    path_text,
)
from nemo_airflow.language.plan.node_checks import check_node, check_target, check_value

_SIMPLE = frozenset((bool, int, type(None)))
"""Types of JSON values that are always valid."""


def walk(plan: Mapping[str, Any], *, leaves: bool = True) -> Iterator[Tuple[Any, str, Path]]:
    """Yields every node with its kind and path, depth first, parents before children; parts where they belong.

    Args:
        plan: The plan.
        leaves: Whether to yield plain JSON values too; if not, they are only checked.

    Raises:
        PlanError: The plan is not valid; nodes before the wrong one were yielded.
    """
    if not is_plan(plan):
        raise PlanError('a plan has the keys "version" and "root", optionally "parts", and no others')
    if plan["version"] != VERSION or isinstance(plan["version"], bool):
        raise PlanError(f"plan version {plan['version']!r}, but this version of nemo-airflow reads only {VERSION}")
    if not isinstance(plan.get("parts", []), list):
        raise PlanError("parts is not a list")
    used: Dict[int, Path] = {}
    bare: Set[Tuple[str, ...]] = set()
    stack: List[Tuple[Any, Path, int]] = [(plan["root"], (), 0)]
    while stack:
        node, path, depth = stack.pop()
        try:
            if depth > MAX_DEPTH:
                raise PlanError(f"nested deeper than {MAX_DEPTH} levels: move what is deeper into parts of the plan")
            kind = kind_of(node)
            is_bare = kind == "target" and check_target(node, bare)
            if kind == "value":
                check_value(node)
                if not leaves:
                    continue
            elif kind == "part":
                child, below = part(plan, node)
                if node["_part_"] in used:
                    raise PlanError(f"part {node['_part_']} is used twice")
                used[node["_part_"]] = path
                stack.append((child, below, 0))
                continue
            elif kind != "target":
                check_node(node, kind)
        except PlanError as error:
            raise type(error)(error.message, error.path or path_text(path)) from None
        yield node, kind, path
        if kind != "value":
            depth += 1
            keeps_all = leaves or depth > MAX_DEPTH
            pairs = node.items() if is_bare and not keeps_all else children(node, kind)
            # Most nodes of a plan are plain values; valid ones are not put on the stack.
            found = [
                (child, path if key is None else (path, key), depth)
                for key, child in pairs
                if keeps_all
                or not (
                    type(child) in _SIMPLE
                    or (type(child) is str and child.isascii())
                    or (type(child) is float and isfinite(child))
                )
            ]
            found.reverse()
            stack += found
    if len(used) != len(plan.get("parts", ())):
        unused = next(number for number in range(len(plan["parts"])) if number not in used)
        raise PlanError(f"part {unused} is never used")


class Contents:
    """What one walk over a plan finds.

    Attributes:
        names: Targets that building the plan would import, with the first place of each.
        enums: Those of them that are classes of Enum members.
        shared: The nodes with an ``_id_``, by id, with their places.
        has_recipes: Whether it has recipes, whose factories are not called yet.
    """

    def __init__(self) -> None:
        self.names: Dict[str, Path] = {}
        self.enums: Set[str] = set()
        self.shared: Dict[str, Tuple[Any, Path]] = {}
        self.has_recipes = False


def check(plan: Mapping[str, Any]) -> Contents:
    """Checks the shape of a plan and returns its contents. Imports nothing, and does not recurse.

    Raises:
        PlanError: The shape is wrong; the path of the wrong node is in the error.
    """
    found = Contents()
    used: List[Tuple[str, Path]] = []
    for node, kind, path in walk(plan, leaves=False):
        if kind == "target":
            if node["_target_"] not in found.names:
                found.names[node["_target_"]] = path
            if "_recipe_" in node:
                found.has_recipes = True
        elif kind == "_ref_":
            found.names.setdefault(node[kind], path)
        elif kind == "_enum_":  # by its class: the member does not affect what is imported
            name = node[kind].rpartition(".")[0]
            found.names.setdefault(name, path)
            found.enums.add(name)
        if kind in ("target", "shared") and "_id_" in node:
            if node["_id_"] in found.shared:
                raise PlanError(f"_id_ {node['_id_']!r} is given twice", path_text(path))
            found.shared[node["_id_"]] = (node, path)
        elif kind == "same":
            used.append((node["_same_"], path))
    for name, path in used:
        if name not in found.shared:
            raise PlanError(f"_same_ {name!r} refers to an _id_ that this plan does not have", path_text(path))
    _check_acyclic(plan, {name for name, _ in used})
    return found


def check_allowed(names: Mapping[str, Path], allow: Iterable[str]) -> None:
    """Checks every target of a plan against an allow-list.

    Args:
        names: The targets, with the first place of each, as :func:`check` finds them.
        allow: Exact names (``pkg.mod:name`` or ``pkg.mod.name``), or prefixes that end with a dot.

    Raises:
        TargetNotAllowedError: A target is not permitted.
        PlanError: An entry of the list is not valid.
    """
    allow = check_entries(allow)
    for name, path in names.items():
        if not is_allowed(name, allow):
            package = name.replace(":", ".").split(".")[0] + "."
            message = f"target {name!r} is not allowed here: add it, or its package as {package!r}, to allow"
            raise TargetNotAllowedError(message, path_text(path))


def targets_in(plan: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of everything that building the plan would import, sorted, each once; Enums by their class."""
    return tuple(sorted(check(plan).names))


def has_recipes(plan: Mapping[str, Any]) -> bool:
    """Returns whether a plan has recipes, whose factories are not called yet."""
    return check(plan).has_recipes


def _check_acyclic(plan: Mapping[str, Any], used: set[str]) -> None:
    if not used:
        return
    below: dict[str, set[str]] = collections.defaultdict(set)
    stack: list[tuple[Any, str]] = [(plan["root"], "")]
    while stack:
        node, inside = stack.pop()
        kind = kind_of(node)
        if kind == "same":
            below[inside].add(node["_same_"])
        if kind == "part":
            stack.append((part(plan, node)[0], inside))
        if kind in ("target", "shared") and node.get("_id_") in used:
            below[inside].add(node["_id_"])
            inside = node["_id_"]
        stack.extend((child, inside) for _, child in children(node, kind))
    waiting: dict[str, int] = collections.Counter(name for names in below.values() for name in names)
    ready = [""]
    while ready:
        for name in below.pop(ready.pop(), ()):
            waiting[name] -= 1
            if not waiting[name]:
                ready.append(name)
    left = sorted(name for name, count in waiting.items() if count)
    if left:
        raise PlanError(f"the node with _id_ {left[0]!r} contains itself")
