"""Walks over all nodes of a plan, checking each, and lists its content. Imports nothing that a plan names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any, Dict, List, NamedTuple, Optional, Set, Tuple

from nemo_airflow.language.errors import PlanError, TargetNotAllowedError
from nemo_airflow.language.names import check_entries, is_allowed
from nemo_airflow.language.plan.grammar import (
    MAX_DEPTH,
    TOO_DEEP,
    VERSION,
    Path,
    children,
    is_plan,
    kind_of,
    path_text,
    too_deep,
)
from nemo_airflow.language.plan.node_checks import check_node, check_target, check_value

_SIMPLE = frozenset((bool, int, type(None)))
"""Types of JSON values that are always valid."""


_OF_PARTS = f"; one with parts, of a config deeper than {MAX_DEPTH} levels, is no longer read: {TOO_DEEP}"


class Contents:
    """What a plan has, as :func:`check` finds it.

    Attributes:
        nodes: Every node with its kind and path, parents before children, where these were asked for.
        names: Targets that building the plan would import, with the first place of each.
        enums: Those of them that are classes of Enum members.
        shared: The nodes with an ``_id_``, by id, with their places.
        has_recipes: Whether it has recipes, whose factories are not called yet.
    """

    def __init__(self) -> None:
        self.nodes: List[Tuple[Any, str, Path]] = []
        self.names: Dict[str, Path] = {}
        self.enums: Set[str] = set()
        self.shared: Dict[str, Tuple[Any, Path]] = {}
        self.has_recipes = False


def check(plan: Mapping[str, Any], *, list_nodes: bool = False) -> Contents:
    """Checks the shape of a plan and returns its contents. Imports nothing.

    Args:
        plan: The plan.
        list_nodes: Whether to list all nodes.

    Raises:
        PlanError: The shape is wrong; the path of the wrong node is in the error.
    """
    if not is_plan(plan):
        hint = _OF_PARTS if isinstance(plan, Mapping) and "parts" in plan else ""
        raise PlanError(f'a plan has the keys "version" and "root", and no others{hint}')
    if plan["version"] != VERSION or isinstance(plan["version"], bool):
        raise PlanError(f"plan version {plan['version']!r}, but this version of nemo-airflow reads only {VERSION}")
    walk = _Walk(list_nodes)
    walk.visit(plan["root"], (), None)
    walk.check_links()
    return walk.found


class _Link(NamedTuple):
    """One place of a shared node.

    Attributes:
        inside: The id of the shared node that has this place in it; None for the root.
        name: The shared node's id.
        path: The place.
    """

    inside: Optional[str]
    name: str
    path: Path


class _Walk:
    def __init__(self, list_nodes: bool) -> None:
        self.found = Contents()
        self._list_nodes = list_nodes
        self._bare: Set[Tuple[str, ...]] = set()
        self._links: List[_Link] = []
        self._levels: Dict[Optional[str], int] = {None: 0}
        """The most keys of the path of a node in each shared one, by id, and in the root."""

    def visit(self, node: Any, path: Path, inside: Optional[str]) -> None:
        """Checks a node with all below it, and notes what it has.

        Args:
            node: The node.
            path: Its path.
            inside: The id of the shared node that it is in; None for the root.
        """
        try:
            if len(path) > MAX_DEPTH:
                raise too_deep(path)
            kind = kind_of(node)
            is_bare = kind == "target" and check_target(node, self._bare)
            if kind == "value":
                check_value(node)
            elif kind != "target":
                check_node(node, kind)
            if kind in ("target", "shared") and "_id_" in node:
                inside = self._note_shared(node, path, inside)
            elif kind == "same":
                self._links.append(_Link(inside, node["_same_"], path))
        except PlanError as error:
            raise type(error)(error.message, error.path or path_text(path)) from None
        self._note(node, kind, path)
        keeps_all = self._list_nodes or len(path) >= MAX_DEPTH
        pairs = node.items() if is_bare and not keeps_all else children(node, kind)
        if len(path) > self._levels[inside]:
            self._levels[inside] = len(path)
        for key, child in pairs:
            # Most nodes of a plan are plain values; valid ones need no visit.
            if keeps_all or not (
                type(child) in _SIMPLE
                or (type(child) is str and child.isascii())
                or (type(child) is float and isfinite(child))
            ):
                self.visit(child, path if key is None else (*path, key), inside)

    def _note(self, node: Any, kind: str, path: Path) -> None:
        found = self.found
        if self._list_nodes:
            found.nodes.append((node, kind, path))
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

    def _note_shared(self, node: Any, path: Path, inside: Optional[str]) -> str:
        name: str = node["_id_"]
        if name in self.found.shared:
            raise PlanError(f"_id_ {name!r} is given twice")
        if "_value_" in node and kind_of(node["_value_"]) == "shared":
            raise PlanError(f"what has the _id_ {name!r} has another one in its _value_")
        self.found.shared[name] = (node, path)
        self._links.append(_Link(inside, name, path))
        self._levels[name] = len(path)
        return name

    def check_links(self) -> None:
        """Checks that shared nodes are defined, do not contain themselves, and are not too deep at any place.

        Raises:
            PlanError: One is.
        """
        shared = self.found.shared
        below: Dict[Optional[str], List[_Link]] = {}
        waiting: Dict[str, int] = {}
        for link in self._links:
            if link.name not in shared:
                message = f"_same_ {link.name!r} refers to an _id_ that this plan does not have"
                raise PlanError(message, path_text(link.path))
            below.setdefault(link.inside, []).append(link)
            waiting[link.name] = waiting.get(link.name, 0) + 1
        lowered: Dict[Optional[str], int] = {None: 0}  # keys that the deepest place of each has more than its own
        ready: List[Optional[str]] = [None]
        while ready:  # all places of these are known
            name = ready.pop()
            if name is not None and lowered[name] + self._levels[name] > MAX_DEPTH:
                raise too_deep(shared[name][1])
            for link in below.get(name, ()):
                more = lowered[name] + len(link.path) - len(shared[link.name][1])
                lowered[link.name] = max(lowered.get(link.name, 0), more)
                waiting[link.name] -= 1
                if not waiting[link.name]:
                    ready.append(link.name)
        left = sorted(name for name, count in waiting.items() if count)
        if left:
            raise PlanError(f"the node with _id_ {left[0]!r} contains itself")


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
