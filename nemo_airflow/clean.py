"""Makes any value of a job safe to store and to send on.

Airflow sends events, log records and XComs as MessagePack and stores them as JSON, in PostgreSQL as JSONB. Neither
accepts every value that a job can return or raise: a lone surrogate (Python's form of a file name that is not
UTF-8), a zero byte, an integer of more than 64 bits. A triggerer that gets one crashes, and so does the next.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from nemo_airflow.language.plan.grammar import MAX_DEPTH

LONGEST_MESSAGE = 64 << 10
"""Characters of an error message that are kept."""

LONGEST_TRACEBACK = 256 << 10
"""Characters of a traceback that are kept."""

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_DEEPEST = 64
"""Levels of lists and mappings that are kept; deeper values become JSON text."""

PLAN_LEVELS = 4 * MAX_DEPTH + 2
"""Levels of a record with a plan: a shared dict with keys other than texts takes four for one level of a config."""

_SMALLEST, _LARGEST = -(1 << 63), (1 << 64) - 1


def clean_text(text: str) -> str:
    r"""Returns the text with zero bytes and lone surrogates written as ``\x00`` and ``\udce9``."""
    return _UNSTORABLE.sub(_escape, text)


def clean_value(value: Any, levels: int = _DEEPEST) -> Any:
    """Returns a JSON value that can be stored and sent on.

    Texts and keys are cleaned as by :func:`clean_text`; numbers that are not finite, and integers of more than 64 bits,
    become texts; values deeper than so many levels become JSON text.

    Args:
        value: A result of ``json.loads``, or a value of such types.
        levels: Levels of lists and mappings that are kept.
    """
    return _clean(value, levels)


def shorten_text(text: str, limit: int) -> str:
    """Returns the text without its middle if it exceeds the limit: the ends matter most."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters are left out here ...\n{text[-half:]}"


def _clean(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if _SMALLEST <= value <= _LARGEST else _digits(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (dict, list, tuple)) and depth == 0:
        return clean_text(_dump(value))
    # No comprehensions: they would take a frame more for each level.
    if isinstance(value, dict):
        fields = {}
        for key, item in value.items():
            fields[clean_text(str(key))] = _clean(item, depth - 1)
        return fields
    if isinstance(value, (list, tuple)):
        items = []
        for item in value:
            items.append(_clean(item, depth - 1))
        return items
    return clean_text(str(value))


def _escape(match: re.Match[str]) -> str:
    return "\\x00" if match[0] == "\0" else f"\\u{ord(match[0]):04x}"


def _digits(number: int) -> str:
    try:
        return str(number)
    except ValueError:  # too long for Python to write in decimal
        return hex(number)


def _dump(value: Any) -> str:
    try:
        return json.dumps(value)
    except (RecursionError, TypeError, ValueError):
        return f"a {type(value).__name__} that is nested too deeply to be shown"
