"""The error for an override that cannot be read or applied, with its place in the text."""

from __future__ import annotations


class OverrideSyntaxError(ValueError):
    """An override that cannot be read, or an operator that does not fit the existing value.

    Args:
        message: What is wrong, and what was expected, in one line.
        text: The override.
        column: The position in it, from 0.
    """

    def __init__(self, message: str, text: str = "", column: int = 0) -> None:
        self.message = message
        self.text = text
        self.column = column
        super().__init__(f"{message}\n{excerpt(text, column)}" if text else message)


def excerpt(text: str, column: int) -> str:
    """Returns the part of a text around a column, and a line below with a caret under the column."""
    width, indent = 80, "    "
    start = max(0, min(column - width // 2, len(text) - width))
    shown = "".join(c if c.isprintable() else " " for c in text[start : start + width])
    before, after = ("..." if start else ""), ("..." if start + width < len(text) else "")
    return f"{indent}{before}{shown}{after}\n{indent}{' ' * (len(before) + column - start)}^"
