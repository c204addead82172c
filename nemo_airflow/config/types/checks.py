"""Values and annotations: what is set in code is only checked, what comes as text is read and then checked."""

from __future__ import annotations

from typing import Any

import fiddle as fdl
import pydantic

from nemo_airflow.config.types import results
from nemo_airflow.config.types.annotations import UNIONS, find_element
from nemo_airflow.config.types.graph import is_deferred
from nemo_airflow.config.types.misfits import Misfit, MisfitError, check, fitting_types, format_error
from nemo_airflow.language.artifact import Artifact
from nemo_airflow.language.overrides.literals import literal_from_text
from nemo_airflow.language.overrides.values import Reader

__all__ = [
    "UNIONS",
    "Misfit",
    "MisfitError",
    "check",
    "find_element",
    "fitting_types",
    "format_error",
    "json_schema",
    "read_plain",
    "read_value",
    "read_with",
    "stands_in",
]


def stands_in(value: Any) -> bool:
    """Returns whether a value stands for one of another type: a config, an artifact, or a deferred value."""
    return isinstance(value, (fdl.Buildable, Artifact)) or is_deferred(value)


def accepts(annotation: Any, value: Any) -> bool:
    """Returns whether a value fits an annotation as it is."""
    return check(annotation, value) is None


def read_with(reader: Reader, annotation: Any, given: Any) -> Any:
    """Returns what a reader makes of a value, checked strictly.

    Raises:
        MisfitError: It does not fit.
    """
    found = reader.read(annotation, given)
    misfit = check(annotation, found)
    if misfit is not None:
        raise MisfitError(misfit)
    return found


def read_plain(annotation: Any, value: Any) -> Any:
    """Returns a value of plain JSON types, converted to the annotation: a list to a tuple, a text to a Path.

    Numbers are never read from texts here.

    Raises:
        MisfitError: It does not fit.
    """
    return read_with(_PLAIN, annotation, value)


def read_value(annotation: Any, value: Any) -> Any:
    """Returns a value of unknown origin (a rendered template, a task's output), converted to the annotation.

    Raises:
        MisfitError: It does not fit.
    """
    try:
        return read_with(_ANY, annotation, value)
    except MisfitError as error:
        if isinstance(value, str) and value.startswith(("[", "{", "(")) and not _is_literal(value):
            hint = ", which was rendered as unreadable text: pass the task's output itself, or add '| tojson'"
            raise MisfitError(Misfit((), f"{error.misfit.message}{hint}")) from None
        raise


def result_fits(value: Any, annotation: Any) -> bool:
    """Returns whether a config's built value fits an annotation; what else stands in for a value is not asked."""
    return not isinstance(value, fdl.Buildable) or results.result_fits(value, annotation)


_ANY = Reader(stands_in, result_fits=result_fits, accepts=accepts)
_PLAIN = Reader(stands_in, reads_numbers=False, result_fits=result_fits, accepts=accepts)


def json_schema(annotation: Any) -> dict[str, Any] | None:
    """Returns the annotation's JSON schema, or None where there is none."""
    try:
        return pydantic.TypeAdapter(annotation, config=None).json_schema()
    except Exception:  # noqa: BLE001 - schemas of other people's types may raise anything
        return None


def _is_literal(text: str) -> bool:
    try:
        literal_from_text(text)
    except ValueError:
        return False
    return True
