"""The grammar of a plan: the forms of its nodes. Imports nothing that a plan names.

A plan is a config as JSON, ``{"version": 1, "root": NODE}``. Where it would nest too deep for JSON readers, it
is cut: ``{"_part_": 3}`` then refers to the node of that number in the plan's list ``"parts"``, each of which is
used at one place. The depth of a config has no limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, List, Tuple

from nemo_airflow.language.errors import PlanError
from nemo_airflow.language.plan.tags import SCALARS as SCALARS

VERSION = 1

MAX_DEPTH = 200
"""Most levels of a plan's root and of each part: JSON readers recurse."""

SEQUENCES = ("_tuple_", "_set_", "_frozenset_")
NAMES = ("_target_", "_ref_", "_enum_")
FLAGS = ("_partial_", "_arg_factory_")
TARGET_KEYS = frozenset(("_target_", "_args_", "_id_", "_recipe_", *FLAGS))

Path = Tuple[Any, ...]
"""Keys from the root, as a linked list ``(parent, key)``; ``()`` is the root."""


class DictKey(int):
    """In a path: the key of a pair in a ``_dict_``, by the pair's number."""


class PartKey(int):
    """First key of a path: the part of that number."""


def is_reserved(key: Any) -> bool:
    """Returns whether a key belongs to the plan's grammar rather than to the user."""
    return isinstance(key, str) and key[:1] == "_" and key[-1:] == "_"


def join(path: str, key: object) -> str:
    """Returns the dotted path of a child; keys other than plain words are put in brackets."""
    if isinstance(key, int) or (isinstance(key, str) and key.isidentifier()):
        return f"{path}.{key}" if path else str(key)
    return f"{path}[{key!r}]"


def join_paths(path: str, below: str) -> str:
    """Returns a path joined with another one below it."""
    if not path or not below:
        return path or below
    return f"{path}{below}" if below.startswith("[") else f"{path}.{below}"


def path_text(path: Path) -> str:
    """Returns a linked path as dotted text; a path of hundreds of keys is cut to its end, after ``….``."""
    keys: List[Any] = []
    while path and len(keys) < _SHOWN_KEYS:
        path, key = path
        keys.append(key)
    text = "…" if path else ""
    for key in reversed(keys):
        text = f"[part {int(key)}]" if type(key) is PartKey else join(text, key)
    return text


_SHOWN_KEYS = 250


def kind_of(node: Any) -> str:
    """Returns the form of a node.

    Returns:
        ``value`` (null, bool, int, float, str), ``list``, ``map`` (a dict as it is), ``target``,
        ``shared`` (a container with an ``_id_``), ``same``, ``part``, or the tag: ``_dict_``, ``_tuple_`` ...

    Raises:
        PlanError: The node has none of these forms.
    """
    if isinstance(node, dict):
        if "_target_" in node:
            return "target"
        reserved: list[str] = [key for key in node if isinstance(key, str) and key[:1] == "_" and key[-1:] == "_"]
        if not reserved:
            return "map"
        if len(node) == 1:
            tag = reserved[0]
            if tag == "_same_":
                return "same"
            if tag == "_part_":
                return "part"
            if tag in SCALARS or tag in SEQUENCES or tag in ("_dict_", "_ref_", "_enum_"):
                return tag
        elif node.keys() == {"_id_", "_value_"}:
            return "shared"
        raise PlanError(f"{', '.join(map(repr, sorted(reserved)))}: not a form of node that a plan has")
    if isinstance(node, list):
        return "list"
    if node is None or isinstance(node, (bool, int, float, str)):
        return "value"
    raise PlanError(f"{type(node).__name__} is not JSON")


def children(node: Any, kind: str) -> Iterable[Tuple[Any, Any]]:
    """Returns the children of a node with their keys; the key None is for a child at the same place."""
    if kind == "target":
        named = [pair for pair in node.items() if pair[0] not in TARGET_KEYS]
        return [*enumerate(node["_args_"]), *named] if "_args_" in node else named
    if kind == "map":
        return node.items()  # type: ignore[no-any-return]
    if kind == "list":
        return enumerate(node)
    if kind == "shared":
        return [(None, node["_value_"])]
    if kind in SEQUENCES:
        return enumerate(node[kind])
    if kind != "_dict_":
        return ()
    pairs: List[Tuple[Any, Any]] = []
    for index, (key, child) in enumerate(node[kind]):
        pairs += [(DictKey(index), key), (key if isinstance(key, (str, int)) else index, child)]
    return pairs


def part(plan: Mapping[str, Any], node: Mapping[str, Any]) -> Tuple[Any, Path]:
    """Returns the part to which a node of the kind ``part`` refers, and the part's path.

    Raises:
        PlanError: The plan has no part of this number.
    """
    number, parts = node["_part_"], plan.get("parts", ())
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(parts):
        raise PlanError(f"_part_ {number!r} refers to a missing part: this plan has {len(parts)}")
    return parts[number], ((), PartKey(number))


def is_plan(value: Any) -> bool:
    """Returns whether a value has a plan's keys."""
    return isinstance(value, Mapping) and set(value) in _ENVELOPES


_ENVELOPES = ({"version", "root"}, {"version", "root", "parts"})
