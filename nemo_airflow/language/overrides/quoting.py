"""Texts in quotes, in the paths and values of overrides: as in JSON, or with single quotes."""

from __future__ import annotations

import json
import re

from nemo_airflow.language.errors import error_at

QUOTED = r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'"
"""Pattern of a text in quotes, to be compiled with ``re.DOTALL``."""

_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0", "/": "/", "\\": "\\", '"': '"', "'": "'"}


def quote(text: str) -> str:
    """Returns a text with quotes around it."""
    return json.dumps(text, ensure_ascii=False)


def unquote(written: str, text: str, column: int) -> str:
    """Returns the content of a text in quotes.

    Args:
        written: The text, with its quotes.
        text: The override that it is in, for errors.
        column: Its column in the override.

    Raises:
        OverrideError: An escape in it is not valid.
    """
    pairs = False

    def character(match: re.Match[str]) -> str:
        nonlocal pairs
        code = match[1]
        if len(code) > 1:
            number = int(code[1:], 16)
            if number > 0x10FFFF:
                raise error_at("no such character", text, column + 1 + match.start())
            pairs = pairs or 0xD800 <= number < 0xE000
            return chr(number)
        if code not in _ESCAPES:
            raise error_at(f"\\{code} is not an escape: write a backslash as \\\\", text, column + 1 + match.start())
        return _ESCAPES[code]

    found = _ESCAPE.sub(character, written[1:-1])
    # JSON writes what is beyond the first 65,536 characters as two.
    return found.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass") if pairs else found
