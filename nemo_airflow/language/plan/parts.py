"""Cuts nodes that nest too deep for JSON readers into the parts of a plan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Dict, List, Tuple

from nemo_airflow.language.plan.grammar import MAX_DEPTH, SEQUENCES, VERSION

_LISTS = ("_args_", *SEQUENCES)
"""Keys of lists of nodes; the lists themselves are not nodes."""


def plan_of(root: Any) -> Dict[str, Any]:
    """Returns the plan of a root, which is changed in place where it is too deep for one piece.

    The parts do not depend on the order of keys.

    Args:
        root: The nodes of a plan, however deep.
    """
    parts: List[Any] = []
    stack: List[Tuple[Any, int]] = [(root, 0)]
    while stack:
        node, depth = stack.pop()
        below: List[Tuple[Any, int]] = []
        for holder, key, levels in _places(node):
            child = holder[key]
            if depth + levels < MAX_DEPTH or _is_end(child):
                below.append((child, depth + levels))
            else:
                holder[key] = {"_part_": len(parts)}
                parts.append(child)
                below.append((child, 0))
        stack.extend(reversed(below))
    return {"version": VERSION, "root": root, "parts": parts} if parts else {"version": VERSION, "root": root}


def _is_end(node: Any) -> bool:
    """Returns whether a list or object has no list or object in it, except as a tag."""
    if isinstance(node, dict) and len(node) == 1:
        return not isinstance(next(iter(node.values())), (dict, list))
    return not node


def _places(node: Any) -> Iterator[Tuple[Any, Any, int]]:
    """Yields the places of the lists and objects below a node, and their depth in levels of JSON."""
    if isinstance(node, list):
        for index, child in enumerate(node):
            if isinstance(child, (dict, list)):
                yield node, index, 1
    for key in sorted(node) if isinstance(node, dict) else ():
        child = node[key]
        if not isinstance(child, (dict, list)) or key == "_recipe_":
            continue
        if key == "_dict_":
            for pair in child:
                for place in (0, 1):
                    if isinstance(pair[place], (dict, list)):
                        yield pair, place, 3
        elif key in _LISTS:
            for index, item in enumerate(child):
                if isinstance(item, (dict, list)):
                    yield child, index, 2
        else:
            yield node, key, 1
