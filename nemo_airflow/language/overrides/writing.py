"""Writes overrides as text, which :func:`~nemo_airflow.language.overrides.syntax.parse_override` reads back."""

from __future__ import annotations

import datetime
import enum
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nemo_airflow.language.errors import OverrideError
from nemo_airflow.language.overrides.nodes import MAX_NESTING, Call, File, Items, Pairs, Quoted, Word, literal
from nemo_airflow.language.overrides.operators import MAX_BITS, kind_text
from nemo_airflow.language.overrides.paths import Key, format_path
from nemo_airflow.language.overrides.quoting import quote

_SAFE_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")


def format_override(path: Iterable[Key], operator: str, value: Any = None) -> str:
    """Returns an override as text; :func:`parse_override` reads the same from it.

    Args:
        path: The keys.
        operator: One of :data:`~nemo_airflow.language.overrides.operators.OPERATORS`.
        value: A node, or a plain value; None with ``~=`` for none. Paths, dates and members of an
            Enum become texts, which the place's annotation turns back.

    Raises:
        OverrideError: An override cannot hold the value.
    """
    without = operator == "~=" and value is None
    return f"{format_path(path)}{operator}{'' if without else format_value(value)}"


def format_value(value: Any, depth: int = 0) -> str:
    """Returns a node or plain value as the text of a value.

    Raises:
        OverrideError: An override cannot hold it.
    """
    if depth > MAX_NESTING:
        raise OverrideError(f"a value that nests deeper than {MAX_NESTING} levels cannot be written as text")
    deeper = depth + 1
    if isinstance(value, Word):
        return value.text
    if isinstance(value, (Quoted, str)) and not isinstance(value, enum.Enum):
        return _text(value)
    if isinstance(value, Items):
        return _enclosed(value.kind, [format_value(item, deeper) for item in value.items])
    if isinstance(value, Pairs):
        return _braces((format_value(key), format_value(item, deeper)) for key, item in value.pairs)
    if isinstance(value, Call):
        parts = [format_value(item, deeper) for item in value.args]
        return f"{value.name}({', '.join([*parts, *(f'{k}={format_value(v, deeper)}' for k, v in value.kwargs)])})"
    if isinstance(value, File):
        return f"@{quote(value.path)}" + (f":{quote(value.key)}" if value.key else "")
    if isinstance(value, Mapping):
        return _braces((_plain_text(key), format_value(item, deeper)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return _enclosed("list" if isinstance(value, list) else "tuple", [format_value(i, deeper) for i in value])
    if isinstance(value, (set, frozenset)):
        return _enclosed("set", sorted(map(_plain_text, value)))
    return _scalar_text(value)


def _plain_text(value: Any) -> str:
    if isinstance(value, (tuple, frozenset)):
        raise OverrideError(f"{kind_text(value)} cannot be written as a key or in a set")
    return format_value(value)


def _text(value: Quoted | str) -> str:
    text = value.text if isinstance(value, Quoted) else value
    plain = isinstance(value, str) and _SAFE_WORD.fullmatch(text) and isinstance(literal(text), str)
    return text if plain else quote(text)


def _enclosed(kind: str, items: Sequence[str]) -> str:
    if kind == "set":
        return f"{{{', '.join(items)}}}" if items else "set()"
    if kind == "list":
        return f"[{', '.join(items)}]"
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"


def _braces(pairs: Iterable[tuple[str, str]]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"


def _scalar_text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, enum.Enum):
        return _text(value.name)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value).bit_length() <= MAX_BITS // 2:
        return str(int(value))
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, (datetime.date, datetime.time)):
        return quote(value.isoformat())
    if isinstance(value, os.PathLike):
        name = os.fspath(value)
        if isinstance(name, str):
            return quote(name)
    raise OverrideError(f"{kind_text(value)} cannot be written as an override")
