"""Converts values to annotations: strict for values set in code, lenient for values that come as text."""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import enum
import functools
import json
import typing
from collections.abc import Sequence
from typing import Any

import pydantic

from nemo_airflow.config.adapters import MEMBERS_BY_NAME, adapter
from nemo_airflow.config.annotations import UNIONS, class_of, find_element, strip_annotation
from nemo_airflow.config.literals import literal_from_text
from nemo_airflow.config.misfits import Misfit, MisfitError, broken_constraint, check, fitting_types, format_error

__all__ = [
    "UNIONS",
    "Misfit",
    "MisfitError",
    "check",
    "find_element",
    "fitting_types",
    "format_error",
    "json_schema",
    "read_lenient",
    "read_plain",
    "read_text",
    "read_value",
]


def read_plain(annotation: Any, value: Any) -> Any:
    """Returns a value of plain JSON types, converted to the annotation: a list to a tuple, a text to a Path.

    Numbers are never read from texts here.

    Raises:
        MisfitError: It does not fit.
    """
    if check(annotation, value) is None:
        return value
    converted = _from_plain(annotation, value)
    misfit = check(annotation, converted)
    if misfit is not None:
        raise MisfitError(misfit)
    return converted


def read_value(annotation: Any, value: Any) -> Any:
    """Returns a value of unknown origin (a rendered template, a task's output), converted to the annotation.

    Raises:
        MisfitError: It does not fit.
    """
    if check(annotation, value) is None:
        return value
    if not isinstance(value, str):
        return read_lenient(annotation, value)
    try:
        return read_text(annotation, value)
    except MisfitError as error:
        if value.startswith(("[", "{", "(")) and not _literals(value):
            hint = ", which was rendered as unreadable text: pass the task's output itself, or add '| tojson'"
            raise MisfitError(Misfit((), f"{error.misfit.message}{hint}")) from None
        raise


def read_text(annotation: Any, text: str) -> Any:
    """Returns a text that a person typed, converted to the annotation: a literal (``3``, ``[1, 2]``) where that fits.

    Raises:
        MisfitError: It does not fit.
    """
    for literal in _literals(text):
        if check(annotation, literal) is None:
            return literal
    try:
        return read_lenient(annotation, text)
    except MisfitError as error:
        misfit = error.misfit
    for literal in _literals(text):
        try:
            return read_lenient(annotation, literal)
        except MisfitError as error:
            if isinstance(literal, (list, dict)):  # that says where in it
                misfit = error.misfit
    raise MisfitError(misfit)


def read_lenient(annotation: Any, value: Any) -> Any:
    """Returns a value converted to the annotation by pydantic; the value itself where it already fits.

    Raises:
        MisfitError: It does not fit.
    """
    misfit = check(annotation, value)
    if misfit is None:
        return value
    found = adapter(annotation, lenient=True)
    if found is None:
        raise MisfitError(misfit)
    try:
        converted = found.validate_python(value, strict=False, context={MEMBERS_BY_NAME: True})
    except pydantic.ValidationError as error:
        raise MisfitError(broken_constraint(value, error) or misfit) from None
    except (TypeError, ValueError):
        raise MisfitError(misfit) from None
    if (remaining := check(annotation, converted)) is not None:
        raise MisfitError(remaining)
    return converted


def _from_plain(annotation: Any, value: Any) -> Any:
    """Returns the value that JSON types represent for an annotation of other types, where that is unambiguous."""
    if isinstance(value, dict):
        pairs = {key: _from_plain(find_element(annotation, key, value), item) for key, item in value.items()}
        holder = class_of(strip_annotation(annotation, value))
        if issubclass(holder, collections.defaultdict):
            return holder(None, pairs)
        return holder(pairs) if holder in (collections.OrderedDict, collections.Counter) else pairs
    if isinstance(value, list):
        items = [_from_plain(find_element(annotation, index, value), item) for index, item in enumerate(value)]
        kind = class_of(strip_annotation(annotation, value))
        hashable = all(isinstance(item, collections.abc.Hashable) for item in items)
        return kind(items) if kind is tuple or (kind in (set, frozenset) and hashable) else items
    if check(annotation, value) is None or not isinstance(value, (str, int, float)):
        return value
    members = typing.get_args(annotation) if typing.get_origin(annotation) in UNIONS else (annotation,)
    for member in members:
        with contextlib.suppress(Exception):  # it does not match this member, or pydantic does not know the type
            if isinstance(member, type) and issubclass(member, enum.Enum):
                named = member.__members__
                return named[str(value)] if str(value) in named else member(value)
            return _json_adapter(member).validate_json(json.dumps(value), strict=True)
    return value


@functools.lru_cache(maxsize=1024)
def _json_adapter(annotation: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(annotation)


def json_schema(annotation: Any) -> dict[str, Any] | None:
    """Returns the annotation's JSON schema, or None where there is none."""
    try:
        return pydantic.TypeAdapter(annotation, config=None).json_schema()
    except Exception:  # noqa: BLE001 - schemas of other people's types may raise anything
        return None


def _literals(text: str) -> Sequence[Any]:
    """Returns the literals that a text can mean, other than the text itself."""
    try:
        return [literal_from_text(text)]
    except ValueError:
        return []
