"""Texts that stand for values: JSON, Python's own text of a value, or the values of overrides."""

from __future__ import annotations

import ast
import io
import json
import tokenize
from typing import Any

from nemo_airflow.language.errors import OverrideError
from nemo_airflow.language.overrides.nodes import Call, File, Items, Node, Pairs, Word, literal, value_of
from nemo_airflow.language.overrides.reader import read_value

_OPENINGS = ("[", "{", "(")


def literal_from_text(text: str) -> Any:
    """Returns the value that a text stands for: ``3``, ``true``, ``null``, ``[1, None]``, ``{a: (1, 2)}``.

    Python's text of a container, which a template renders, gives the very same value, or an error.

    Raises:
        ValueError: The text stands for no value but itself.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        pass
    if text.startswith(_OPENINGS):
        return _container(text)
    value = literal(text)
    if value == text:
        raise ValueError(f"{text!r} is a text")
    return value


def _container(text: str) -> Any:
    try:
        value = _python(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, tokenize.TokenError):
        value = _written_by_hand(text)
    if not isinstance(value, (list, dict, set, tuple)):  # "(1)" is a text
        raise ValueError(f"{text!r} is a text")  # noqa: TRY004 - of the text, whatever its type
    return value


def _python(text: str) -> Any:
    """Returns the value that has this text as its ``repr``."""
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    if any(one.type == other.type == tokenize.STRING for one, other in zip(tokens, tokens[1:])):
        raise ValueError("two adjacent string literals")
    return ast.literal_eval(_Numbers().visit(ast.parse(text, mode="eval")))


class _Numbers(ast.NodeTransformer):
    """Writes ``nan`` and ``inf``, which Python's texts of floats have, as constants."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.copy_location(ast.Constant(float(node.id)), node) if node.id in ("nan", "inf") else node


def _written_by_hand(text: str) -> Any:
    try:
        node = read_value(text)
    except OverrideError as error:
        raise ValueError(error.summary) from None
    if not _is_literal(node):
        raise ValueError(f"{text!r} contains an object that is not a literal")
    try:
        return value_of(node)
    except TypeError as error:  # a member of a set that cannot be hashed
        raise ValueError(str(error)) from None


def _is_literal(node: Node) -> bool:
    """Returns whether a value contains no call, no file, and nothing that Python writes as ``<...>`` or ``b'...'``."""
    if isinstance(node, (Call, File)) or (isinstance(node, Word) and not _MARKS.isdisjoint(node.text)):
        return False
    if isinstance(node, Items):
        return all(map(_is_literal, node.items))
    return not isinstance(node, Pairs) or all(_is_literal(part) for pair in node.pairs for part in pair)


_MARKS = frozenset("<>'\"")


def _refuse(name: str) -> Any:
    raise ValueError(name)
