"""Descriptions of parameters, from docstrings (Google, NumPy, Sphinx) and from the fields themselves."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from nemo_airflow.config.hints import hints_of
from nemo_airflow.config.models import model_fields

_GOOGLE = re.compile(r"^(?:Args|Arguments|Parameters|Attributes|Keyword Args):\s*$")
_GOOGLE_ITEM = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")
_NUMPY = re.compile(r"^(?:Parameters|Other Parameters|Attributes)\s*$")
_NUMPY_ITEM = re.compile(r"^\*{0,2}(\w+(?:\s*,\s*\w+)*)\s*(?::.*)?$")
_SECTION = re.compile(r"^(?:(?:Returns|Yields|Raises|Examples?|Notes?):?\s*$|:\w+.*:)")
_SPHINX = re.compile(r"^:param(?:eter)?\s+(?:[^:]*\s)?\*{0,2}(\w+)\s*:\s*(.*)$")


def parameter_help(target: Any) -> Mapping[str, str]:
    """Returns the description of each parameter of a function or class.

    Descriptions come from the docstrings of a function, or of a class and its constructor; for parameters that
    these leave out, from the text below a field, ``Field(description=...)`` and ``Annotated[..., Doc(...)]``.
    """
    return {**_at_fields(target), **_in_docstrings(target)}


def description_of(target: Any) -> str:
    """Returns what the docstring of a function or class says before its parameters; empty for one without."""
    lines = _lines(target)
    ends = (n for n, line in enumerate(lines) if any(p.match(line) for p in (_GOOGLE, _NUMPY, _SPHINX, _SECTION)))
    text = "\n".join(lines[: next(ends, len(lines))]).strip()
    # What a dataclass writes for itself is its signature.
    return "" if isinstance(target, type) and text.startswith(f"{target.__name__}(") else text


def _at_fields(target: Any) -> dict[str, str]:
    texts: dict[str, str] = {}
    for kind in reversed(target.__mro__[:-1]) if isinstance(target, type) else ():
        texts.update(_below_fields(kind))
    texts.update((name, field.description) for name, field in model_fields(target).items() if field.description)
    for name, hint in hints_of(target).items():
        for note in getattr(hint, "__metadata__", ()):
            text = getattr(note, "documentation", None) or getattr(note, "description", None)
            if isinstance(text, str):
                texts[name] = text
    return {name: " ".join(text.split()) for name, text in texts.items()}


@functools.lru_cache(maxsize=1024)
def _below_fields(kind: type) -> Mapping[str, str]:
    """Returns the strings below the fields in the body of a class."""
    if not vars(kind).get("__annotations__"):
        return {}
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    except (OSError, TypeError, ValueError, SyntaxError):  # made at run time, or without its source
        return {}
    texts: dict[str, str] = {}
    for field, text in itertools.pairwise(getattr(tree, "body", ())):
        is_text = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        if is_text and isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            texts[field.target.id] = str(text.value.value)
    return texts


def _in_docstrings(target: Any) -> Mapping[str, str]:
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
