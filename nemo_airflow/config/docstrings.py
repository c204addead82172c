"""What docstrings say of parameters, in Google's, NumPy's and Sphinx's style."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

_GOOGLE = re.compile(r"^(?:Args|Arguments|Parameters|Attributes|Keyword Args):\s*$")
_GOOGLE_ITEM = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")
_NUMPY = re.compile(r"^(?:Parameters|Other Parameters|Attributes)\s*$")
_NUMPY_ITEM = re.compile(r"^\*{0,2}(\w+(?:\s*,\s*\w+)*)\s*(?::.*)?$")
_SPHINX = re.compile(r"^:param(?:eter)?\s+(?:[^:]*\s)?\*{0,2}(\w+)\s*:\s*(.*)$")


def parameter_help(target: Any) -> Mapping[str, str]:
    """Returns what the docstrings of a function, or of a class and its constructor, say of each parameter."""
    texts: dict[str, str] = {}
    sources = [target]
    if isinstance(target, type):
        sources = [*reversed(target.__mro__[:-1]), inspect.getattr_static(target, "__init__")]
    for source in sources:
        lines = _lines(source)
        texts.update((name, " ".join(" ".join(text).split())) for name, text in _items(lines))
    return {name: text for name, text in texts.items() if text}


def _lines(source: Any) -> list[str]:
    text = source.__dict__.get("__doc__") if isinstance(source, type) else getattr(source, "__doc__", None)
    return inspect.cleandoc(text).splitlines() if isinstance(text, str) else []


def _items(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(lines):
        if _GOOGLE.match(line):
            yield from _google(lines[number + 1 :])
        elif _NUMPY.match(line) and number + 1 < len(lines) and re.match(r"^-{3,}\s*$", lines[number + 1]):
            yield from _numpy(lines[number + 2 :])
        elif match := _SPHINX.match(line):
            yield match[1], [match[2], *_indented(lines[number + 1 :], 0)]


def _google(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    block = list(_indented(lines, 0))
    margin = _margin(next((line for line in block if line.strip()), ""))
    for number, line in enumerate(block):
        if _margin(line) == margin and (match := _GOOGLE_ITEM.match(line.strip())):
            yield match[1], [match[2], *_indented(block[number + 1 :], margin)]


def _numpy(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(lines):
        if number + 1 < len(lines) and re.match(r"^-{3,}\s*$", lines[number + 1]):
            return  # the heading of the next section
        if line and not line[0].isspace() and (match := _NUMPY_ITEM.match(line)):
            for name in match[1].split(","):
                yield name.strip(), list(_indented(lines[number + 1 :], 0))


def _indented(lines: list[str], margin: int) -> Iterator[str]:
    """Yields the lines up to the first that is not indented by more than the margin."""
    for line in lines:
        if line.strip() and _margin(line) <= margin:
            return
        yield line.strip() if margin else line


def _margin(line: str) -> int:
    return len(line) - len(line.lstrip())
