"""The nodes of an override's value as written, and their meaning without an annotation."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Tuple, Union

MAX_NESTING = 50
"""Most levels of brackets in a value."""

_MAX_DIGITS = 1000

_NULL = re.compile(r"~|null|Null|NULL|None")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9](?:_?[0-9])*")
_BASED_INT = re.compile(r"[-+]?0(?:x[0-9A-Fa-f]|o[0-7]|b[01])[0-9A-Fa-f_]*")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9](?:_?[0-9])*|[0-9](?:_?[0-9])*(?:\.(?:[0-9](?:_?[0-9])*)?)?)(?:[eE][-+]?[0-9]{1,9})?"
)
_SPECIAL = re.compile(r"([-+]?)\.?(inf|Inf|INF|nan|NaN|NAN)")


@dataclasses.dataclass(frozen=True)
class Word:
    """A text without quotes: a number, null or a truth value where it can be read as one.

    Attributes:
        text: The text as written, for a place that takes a text.
    """

    text: str


@dataclasses.dataclass(frozen=True)
class Quoted:
    """A text in quotes, which is always a text."""

    text: str


@dataclasses.dataclass(frozen=True)
class Items:
    """A list, tuple or set.

    Attributes:
        kind: ``list``, ``tuple`` or ``set``.
        items: The items in the order written.
    """

    kind: str
    items: Tuple[Node, ...]


@dataclasses.dataclass(frozen=True)
class Pairs:
    """A dict: its keys, which are words or quoted texts, and its values."""

    pairs: Tuple[Tuple[Union[Word, Quoted], Node], ...]


@dataclasses.dataclass(frozen=True)
class Call:
    """A factory by name, ``adam(0.1, betas=[0.9, 0.99])``.

    Attributes:
        name: A registered name, or ``pkg.mod:name``.
        args: Its positional arguments: nodes, or plain values once :func:`value_of` has read them.
        kwargs: Its named arguments, as pairs.
    """

    name: str
    args: Tuple[Any, ...] = ()
    kwargs: Tuple[Tuple[str, Any], ...] = ()


@dataclasses.dataclass(frozen=True)
class File:
    """A value from a file, ``@optimizers.yaml:adam``.

    Attributes:
        path: The file: YAML, TOML or JSON, by its ending.
        key: Path of the value in it; empty for all.
    """

    path: str
    key: str = ""


Node = Union[Word, Quoted, Items, Pairs, Call, File]
"""A value as written, before the annotation of its place determines its meaning."""


def value_of(node: Node) -> Any:
    """Returns the meaning of a value without an annotation.

    Calls and files stay nodes, with their arguments read in the same way: whoever applies the
    override decides whether the target may be imported and the file read.
    """
    if isinstance(node, Word):
        return literal(node.text)
    if isinstance(node, Quoted):
        return node.text
    if isinstance(node, Items):
        kinds: Mapping[str, Any] = {"list": list, "tuple": tuple, "set": set}
        return kinds[node.kind](map(value_of, node.items))
    if isinstance(node, Pairs):
        return {value_of(key): value_of(item) for key, item in node.pairs}
    if isinstance(node, Call):
        named = tuple((name, value_of(item)) for name, item in node.kwargs)
        return Call(node.name, tuple(map(value_of, node.args)), named)
    return node


def literal(text: str) -> Any:
    """Returns the meaning of a text without quotes: None, a truth value, a number, or the text."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text[0] in "tT"
    if len(text) > _MAX_DIGITS:
        return text
    if _INT.fullmatch(text):
        return int(text)
    if _BASED_INT.fullmatch(text):
        try:
            return int(text, 0)
        except ValueError:
            return text
    if _FLOAT.fullmatch(text):
        return float(text.replace("_", ""))
    special = _SPECIAL.fullmatch(text)
    return float(special[1] + special[2]) if special else text
