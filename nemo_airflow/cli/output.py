"""Prints what commands have found: as JSON for programs, as tables for people."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

JSON = "json"
_NARROW = 70
"""Columns of a terminal that are too few for a table."""

_PIPED = 400
"""Columns where nobody's terminal limits them: what is piped into another command is not folded."""


def print_json(value: Any) -> None:
    """Prints a value of plain JSON types."""
    print(json.dumps(value, indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Prints rows below the names of their columns, a long value folded within its column.

    On a terminal of few columns each row becomes lines of its own.
    """
    from rich.table import Table

    if width() < _NARROW:
        for row in rows:
            first, *others = zip(columns, row, strict=True)
            print(first[1])
            for column, value in others:
                if value not in ("", None):
                    print(f"  {column.lower()}: {value}")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    console().print(table)


def console() -> Any:
    """Returns the console on which tables are printed."""
    from rich.console import Console

    return Console(width=width(), markup=False, highlight=False)


def width() -> int:
    """Returns the columns that a line may have."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _PIPED


def time_text(seconds: float | None) -> str:
    """Returns a time, in seconds since the epoch, as people read it; empty where it is not known."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else ""
