"""The grammar of a plan: the forms of its nodes. Imports nothing that a plan names.

A plan is a config as JSON, ``{"version": 1, "root": NODE}``. It nests :data:`MAX_DEPTH` levels at most, also
through shared values, so that whatever reads or writes one may recurse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, List, Tuple

from nemo_airflow.language.errors import PlanError
from nemo_airflow.language.plan.tags import SCALARS as SCALARS

VERSION = 1

MAX_DEPTH = 200
"""Most levels of a config: most keys of the path of a value, also of a path through a shared one."""

SEQUENCES = ("_tuple_", "_set_", "_frozenset_")
NAMES = ("_target_", "_ref_", "_enum_")
FLAGS = ("_partial_", "_arg_factory_")
TARGET_KEYS = frozenset(("_target_", "_args_", "_id_", "_recipe_", *FLAGS))

Path = Tuple[Any, ...]
"""Keys from the root; ``()`` is the root."""


class DictKey(int):
    """In a path: the key of a pair in a ``_dict_``, by the pair's number."""


def is_reserved(key: Any) -> bool:
    """Returns whether a key belongs to the plan's grammar rather than to the user: ``_tuple_``, but not ``_``."""
    return isinstance(key, str) and len(key) > 2 and key[0] == "_" and key[-1] == "_"


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
    """Returns a path as dotted text."""
    text = ""
    for key in path:
        text = join(text, key)
    return text


def below(path: Path, key: Any) -> Path:
    """Returns the path of a value under a key.

    Raises:
        PlanError: It has more than :data:`MAX_DEPTH` keys.
    """
    path = (*path, key)
    if len(path) > MAX_DEPTH:
        raise too_deep(path)
    return path


def too_deep(path: Path) -> PlanError:
    """Returns the error for a value that is nested too deep, with the two ends of its path."""
    text = path_text(path)
    if len(text) > 2 * _SHOWN:
        text = f"{text[:_SHOWN]} ... {text[-_SHOWN:]}"
    return PlanError(f"nested deeper than {MAX_DEPTH} levels: {TOO_DEEP}", text)


_SHOWN = 60
"""Characters of each end of a long path."""

TOO_DEEP = "make what is deeper in a function, and configure that function"
"""What to do about a config that nests too deep."""


def kind_of(node: Any) -> str:
    """Returns the form of a node.

    Returns:
        ``value`` (null, bool, int, float, str), ``list``, ``map`` (a dict as it is), ``target``,
        ``shared`` (a container with an ``_id_``), ``same``, or the tag: ``_dict_``, ``_tuple_`` ...

    Raises:
        PlanError: The node has none of these forms.
    """
    if isinstance(node, dict):
        if "_target_" in node:
            return "target"
        reserved: list[str] = [
            key for key in node if isinstance(key, str) and key[:1] == "_" and key[-1:] == "_" and len(key) > 2
        ]
        if not reserved:
            return "map"
        if len(node) == 1:
            tag = reserved[0]
            if tag == "_same_":
                return "same"
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


def is_plan(value: Any) -> bool:
    """Returns whether a value has a plan's keys."""
    return isinstance(value, Mapping) and set(value) == {"version", "root"}
