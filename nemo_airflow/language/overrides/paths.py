"""The path of an override: names with dots between them, numbers and quoted texts in brackets."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Union

from nemo_airflow.language.errors import error_at
from nemo_airflow.language.overrides.operators import OPERATORS
from nemo_airflow.language.overrides.quoting import QUOTED, quote, unquote

MAX_KEYS = 50
"""Most keys of a path."""

Key = Union[str, int]
"""A key of a path: a name, or a number in brackets. A container also reads the name ``0`` as a number."""

_BRACKET = re.compile(rf"\[\s*(?:(-?\d{{1,9}})|({QUOTED}))\s*\]", re.DOTALL)
_WORD = re.compile(r"[^.\[\]=]+")
_SAFE_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|-?[0-9]{1,9}")


def parse_path(text: str) -> tuple[Key, ...]:
    """Reads a path: names with dots between them, numbers and quoted texts in brackets.

    Raises:
        OverrideError: It is not a path.
    """
    path, _, end = read_path(text, 0)
    if end != len(text):
        raise error_at("expected a dot or a bracket: this is a path without a value", text, end)
    return path


def read_path(text: str, position: int) -> tuple[tuple[Key, ...], tuple[int, ...], int]:
    """Reads the path that an override begins with.

    Args:
        text: The override.
        position: Where the path begins.

    Returns:
        Its keys, the column of each, and the place of the operator, or of the end.

    Raises:
        OverrideError: There is no path.
    """
    keys: list[Key] = []
    columns: list[int] = []
    while position < len(text) and not _at_operator(text, position):
        if text[position].isspace() and (not keys or not text[position:].strip()):
            position += 1
            continue
        if len(keys) >= MAX_KEYS:
            raise error_at(f"a path of more than {MAX_KEYS} keys", text, position)
        if text[position] == "[":
            match = _BRACKET.match(text, position)
            if match is None:
                raise error_at(
                    'not a path: expected a number or a quoted name in the brackets, such as [0] or ["a.b"]',
                    text,
                    position,
                )
            columns.append(position)
            keys.append(int(match[1]) if match[1] else unquote(match[2], text, match.start(2)))
            position = match.end()
            position += len(text[position:]) - len(text[position:].lstrip()) if position < len(text) else 0
            continue
        if keys and text[position] != ".":
            raise error_at("not a path: expected a dot, a bracket or an operator", text, position)
        start = position + 1 if keys else position
        word = _WORD.match(text, start)
        end = start if word is None else word.end()
        if end < len(text) and text[end] == "=" and end - 1 >= start and _at_operator(text, end - 1):
            end -= 1
        key = text[start:end].strip()
        if not key:
            raise error_at("not a path: expected a name, as in model.layers.0", text, min(start, len(text)))
        columns.append(start + len(text[start:end]) - len(text[start:end].lstrip()))
        keys.append(key)
        position = end
    if not keys:
        raise error_at(
            "not of the form path=value: expected a path, as in model.hidden=64", text, min(position, len(text))
        )
    return tuple(keys), tuple(columns), position


def format_path(path: Iterable[Key]) -> str:
    """Returns a path as text."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        elif _SAFE_KEY.fullmatch(key):
            text += f".{key}" if text else key
        else:
            text += f"[{quote(key)}]"
    return text


def _at_operator(text: str, position: int) -> bool:
    return text[position] == "=" or text[position : position + 2] in OPERATORS
