"""The grammar of a plan: which JSON is one, and how to walk it. Imports nothing that a plan names.

A plan is a config as JSON, ``{"version": 1, "root": NODE}``.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Tuple

VERSION = 1

MAX_DEPTH = 200
"""How deep a plan may nest; keeps every recursion over it far from Python's limit."""

SEQUENCES = ("_tuple_", "_set_", "_frozenset_")
NAMES = ("_target_", "_ref_", "_enum_")
_FLAGS = ("_partial_", "_arg_factory_")
TARGET_KEYS = frozenset(("_target_", "_args_", "_id_", *_FLAGS))

Path = Tuple[Any, ...]
"""Keys from the root, as a linked list ``(parent, key)``; ``()`` is the root."""


class DictKey(int):
    """In a path: the key, not the value, of the pair of that number in a ``_dict_``."""


class PlanError(ValueError):
    """A plan that is not valid.

    Args:
        message: What is wrong.
        path: Dotted path of the wrong node, empty for the root.
    """

    __module__ = "nemo_airflow.runner.plan"  # where callers import it from

    def __init__(self, message: str, path: str = "") -> None:
        self.message = message
        self.path = path
        super().__init__(f"{path}: {message}" if path else message)


def _float(text: str) -> float:
    return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[text]


def _bytes(text: str) -> bytes:
    import base64

    return base64.b64decode(text, validate=True)


def _path(text: str) -> object:
    import pathlib

    return pathlib.Path(text)


def _datetime(text: str) -> object:
    import datetime

    return datetime.datetime.fromisoformat(text)


def _date(text: str) -> object:
    import datetime

    return datetime.date.fromisoformat(text)


def _time(text: str) -> object:
    import datetime

    return datetime.time.fromisoformat(text)


def _timedelta(seconds: object) -> object:
    import datetime

    if isinstance(seconds, str):  # seconds and six decimals, where a float has not as many digits
        whole, _, decimals = seconds.partition(".")
        if len(decimals) != 6:
            raise ValueError(seconds)
        return datetime.timedelta(microseconds=int(whole + decimals))
    return datetime.timedelta(seconds=seconds)  # type: ignore[arg-type]  # a number: it was checked


def _decimal(text: str) -> object:
    import decimal

    return decimal.Decimal(text)


# Imported where they are read: a job that has none of these starts sooner.
SCALARS: Mapping[str, Callable[[Any], Any]] = {
    "_float_": _float,
    "_bytes_": _bytes,
    "_path_": _path,
    "_datetime_": _datetime,
    "_date_": _date,
    "_time_": _time,
    "_timedelta_": _timedelta,
    "_decimal_": _decimal,
}
"""How the value of each tag is read."""


def is_reserved(key: Any) -> bool:
    """Returns whether a key belongs to the plan's grammar rather than to the user."""
    return isinstance(key, str) and key[:1] == "_" and key[-1:] == "_"


def join(path: str, key: object) -> str:
    """Returns the dotted path of a child; keys that are no plain words are put in brackets."""
    if isinstance(key, int) or (isinstance(key, str) and key.isidentifier()):
        return f"{path}.{key}" if path else str(key)
    return f"{path}[{key!r}]"


def path_text(path: Path) -> str:
    """Returns a linked path as dotted text."""
    keys = []
    while path:
        path, key = path
        keys.append(key)
    text = ""
    for key in reversed(keys):
        text = join(text, key)
    return text


def kind_of(node: Any) -> str:
    """Returns which form of the grammar a node has.

    Returns:
        ``value`` (null, bool, int, float, str), ``list``, ``map`` (a dict as it is), ``target``,
        ``shared`` (a container with an ``_id_``), ``same``, or the tag: ``_dict_``, ``_tuple_`` ...

    Raises:
        PlanError: It has none of them.
    """
    if isinstance(node, dict):
        reserved: list[str] = [key for key in node if is_reserved(key)]
        if not reserved:
            return "map"
        if "_target_" in node:
            return "target"
        if len(node) == 1:
            tag = reserved[0]
            if tag == "_same_":
                return "same"
            if tag in SCALARS or tag in SEQUENCES or tag in ("_dict_", "_ref_", "_enum_"):
                return tag
        elif node.keys() == {"_id_", "_value_"}:
            return "shared"
        raise PlanError(f"{', '.join(map(repr, sorted(reserved)))}: no form that a plan knows")
    if isinstance(node, list):
        return "list"
    if node is None or isinstance(node, (bool, int, float, str)):
        return "value"
    raise PlanError(f"{type(node).__name__} is not JSON")


def children(node: Any, kind: str) -> Iterator[tuple[object, Any]]:
    """Yields the nodes below a node with the key of each; None is the key of one in the same place."""
    if kind == "target":
        yield from enumerate(node.get("_args_", ()))
        for key, child in node.items():
            if key not in TARGET_KEYS:
                yield key, child
    elif kind == "map":
        yield from node.items()
    elif kind == "list":
        yield from enumerate(node)
    elif kind == "shared":
        yield None, node["_value_"]
    elif kind in SEQUENCES:
        yield from enumerate(node[kind])
    elif kind == "_dict_":
        for index, (key, child) in enumerate(node[kind]):
            yield DictKey(index), key
            yield (key if isinstance(key, (str, int)) else index), child


def walk(plan: Mapping[str, Any]) -> Iterator[tuple[Any, str, Path]]:
    """Yields every node with its kind and path, depth first, parents before children.

    Raises:
        PlanError: The plan is not valid; nodes before the wrong one were yielded.
    """
    if not isinstance(plan, Mapping) or set(plan) != {"version", "root"}:
        raise PlanError('a plan is {"version": 1, "root": ...} and nothing else')
    if plan["version"] != VERSION or isinstance(plan["version"], bool):
        raise PlanError(f"plan version {plan['version']!r}, but only version {VERSION} is known here")
    stack: list[tuple[Any, Path, int]] = [(plan["root"], (), 0)]
    while stack:
        node, path, depth = stack.pop()
        try:
            if depth > MAX_DEPTH:
                raise PlanError(f"nested deeper than {MAX_DEPTH} levels")
            kind = kind_of(node)
            _check_node(node, kind)
        except PlanError as error:
            raise type(error)(error.message, error.path or path_text(path)) from None
        yield node, kind, path
        below = [(child, path if key is None else (path, key), depth + 1) for key, child in children(node, kind)]
        stack.extend(reversed(below))


def check(plan: Mapping[str, Any]) -> None:
    """Checks that a plan has the right shape. Imports nothing, and does not recurse.

    Raises:
        PlanError: It has not; the path of the wrong node is in the error.
    """
    defined: dict[str, Path] = {}
    used: list[tuple[str, Path]] = []
    for node, kind, path in walk(plan):
        if kind in ("target", "shared") and "_id_" in node:
            if node["_id_"] in defined:
                raise PlanError(f"_id_ {node['_id_']!r} is given twice", path_text(path))
            defined[node["_id_"]] = path
        elif kind == "same":
            used.append((node["_same_"], path))
    for name, path in used:
        if name not in defined:
            raise PlanError(f"_same_ {name!r} names no _id_ of this plan", path_text(path))
    _check_acyclic(plan, {name for name, _ in used})


def check_name(name: Any) -> None:
    """Checks that a target's name is ``pkg.mod:qual.name``.

    Raises:
        PlanError: It is not.
    """
    module, colon, qualname = name.partition(":") if isinstance(name, str) else ("", "", "")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), *qualname.split("."))):
        raise PlanError(f"target {name!r} is not of the form 'package.module:name'")
    if any(part.startswith("__") and part.endswith("__") for part in (*module.split("."), *qualname.split("."))):
        raise PlanError(f"target {name!r} has a part in double underscores, which no plan may name")


def _check_node(node: Any, kind: str) -> None:
    if kind == "value":
        _check_scalar(node)
    elif kind == "map":
        _check_keys(node)
    elif kind == "target":
        _check_keys(node)
        check_name(node["_target_"])
        unknown = [key for key in node if is_reserved(key) and key not in TARGET_KEYS]
        if unknown:
            raise PlanError(f"{unknown[0]!r} is neither a parameter nor known to a plan")
        if any(node.get(flag, True) is not True for flag in _FLAGS) or all(flag in node for flag in _FLAGS):
            raise PlanError("_partial_ and _arg_factory_ are true or absent, and not both")
        if not isinstance(node.get("_args_", []), list):
            raise PlanError("_args_ is not a list")
        _check_id(node.get("_id_", ""))
    elif kind == "shared":
        _check_id(node["_id_"])
    elif kind == "same":
        _check_id(node["_same_"])
    elif kind in ("_ref_", "_enum_"):
        check_name(node[kind])
        if kind == "_enum_" and "." not in node[kind].partition(":")[2]:
            raise PlanError(f"{node[kind]!r} is not of the form 'package.module:Class.MEMBER'")
    elif kind in SCALARS:
        _check_tag(kind, node[kind])
    elif kind != "list":
        _check_items(kind, node[kind])


def _check_scalar(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise PlanError(f'{value} is not JSON: write {{"_float_": "nan"}}, "inf" or "-inf"')
    if isinstance(value, str) and not value.isascii():
        _check_unicode(value)


def _check_keys(node: Mapping[Any, Any]) -> None:
    for key in node:
        if not isinstance(key, str):
            raise PlanError(f"the key {key!r} is not a text")
        if not key.isascii():
            _check_unicode(key)


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PlanError(f"{text!r} is not valid Unicode") from None


def _check_id(name: Any) -> None:
    if not isinstance(name, str):
        raise PlanError(f"the id {name!r} is not a text")


def _check_tag(tag: str, value: Any) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    try:
        if not isinstance(value, str) and not (number and tag == "_timedelta_"):
            raise ValueError
        SCALARS[tag](value)
    except (ValueError, KeyError, ArithmeticError):
        raise PlanError(f"{value!r} is not what {tag} takes") from None


def _check_items(tag: str, value: Any) -> None:
    if not isinstance(value, list):
        raise PlanError(f"{tag} takes a list")
    if tag == "_dict_" and not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        raise PlanError("_dict_ takes a list of [key, value] pairs")


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
        raise PlanError(f"the node with _id_ {left[0]!r} holds itself")
