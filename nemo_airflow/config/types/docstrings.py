"""Descriptions of parameters, from docstrings of any style and from the fields themselves."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from nemo_airflow.config.types.hints import hints_of
from nemo_airflow.config.types.models import model_fields
from nemo_airflow.language.names import source_name

_STYLES = ("google", "numpy", "sphinx")

_OF_PARAMETERS = ("parameters", "other parameters", "attributes")


def parameter_help(target: Any) -> Mapping[str, str]:
    """Returns the description of each parameter of a function or class.

    Descriptions come from the docstrings of a function, or of a class and its constructor; for parameters that
    these leave out, from the text below a field, ``Field(description=...)`` and ``Annotated[..., Doc(...)]``.
    """
    return {**_at_fields(target), **_in_docstrings(target)}


def description_of(target: Any) -> str:
    """Returns what the docstring of a function or class says before its first section; empty for one without."""
    first = next(iter(_sections(_docstring(target))), None)
    text = str(first.value).strip() if first is not None and first.kind.value == "text" else ""
    # What a dataclass writes for itself is its signature.
    return "" if isinstance(target, type) and text.startswith(f"{target.__name__}(") else text


def _at_fields(target: Any) -> dict[str, str]:
    texts: dict[str, str] = {}
    if source_name(target) and dataclasses.is_dataclass(target):
        texts.update((field.name, str(field.metadata["doc"])) for field in dataclasses.fields(target))
    for kind in reversed(target.__mro__[:-1]) if isinstance(target, type) else ():
        texts.update(_below_fields(kind))
    texts.update((name, field.description) for name, field in model_fields(target).items() if field.description)
    for name, hint in hints_of(target).items():
        for note in getattr(hint, "__metadata__", ()):
            text = getattr(note, "documentation", None) or getattr(note, "description", None)
            if isinstance(text, str):
                texts[name] = text
    return {name: " ".join(text.split()) for name, text in texts.items() if text}


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
    sources = [target]
    if isinstance(target, type):
        sources = [*reversed(target.__mro__[:-1]), inspect.getattr_static(target, "__init__")]
    texts: dict[str, str] = {}
    for source in sources:
        for section in _sections(_docstring(source)):
            if section.kind.value in _OF_PARAMETERS:
                texts.update((item.name.lstrip("*"), " ".join(item.description.split())) for item in section.value)
    return {name: text for name, text in texts.items() if text}


def _docstring(source: Any) -> str:
    text = source.__dict__.get("__doc__") if isinstance(source, type) else getattr(source, "__doc__", None)
    return text if isinstance(text, str) else ""


@functools.lru_cache(maxsize=1024)
def _sections(text: str) -> Sequence[Any]:
    """Returns the sections of a docstring, whichever style it has."""
    if not text.strip():
        return ()
    import griffe  # a quarter of what reading a config costs, and a DAG without a form needs none of it

    docstring = griffe.Docstring(text)
    # Griffe recognizes a style by sections between two lines, so not by the only or the last line.
    docstring.value = f"\n{docstring.value}\n"
    return docstring.parse("auto", per_style_options={style: {"warnings": False} for style in _STYLES})
