"""Checks what an executor is given, where it is written: each field by its annotation.

A template, or the output of another task, is left as it is until Airflow has rendered it. Rendering makes the executor
anew, so that what came of it is converted and checked then: ``"{{ params.nodes }}"`` becomes the number 2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from nemo_airflow.exceptions import ExecutorArgumentError


def is_deferred(value: Any) -> bool:
    """Returns whether a value is a template or the output of another task, or holds one."""
    from nemo_airflow.config.types import graph

    if graph.is_deferred(value):
        return True
    if isinstance(value, Mapping):
        return any(map(is_deferred, value)) or any(map(is_deferred, value.values()))
    return isinstance(value, (list, tuple)) and any(map(is_deferred, value))


def known_mapping(value: Any) -> Mapping[Any, Any]:
    """Returns a field that is a mapping; an empty one where it is None, or as a whole a template or an output."""
    return value if isinstance(value, Mapping) else {}


def fit_fields(executor: Any) -> None:
    """Converts the fields of a frozen dataclass to their annotations: ``nodes="2"`` becomes 2.

    Raises:
        ExecutorArgumentError: A value does not fit.
    """
    from nemo_airflow.config.types import checks
    from nemo_airflow.config.types.hints import hints_of

    kind = type(executor)
    hints = hints_of(kind)
    for field in dataclasses.fields(executor):
        value = getattr(executor, field.name)
        if is_deferred(value):
            continue
        try:
            fitted = checks.read_value(hints.get(field.name, Any), value)
        except checks.MisfitError as error:
            where = "".join(f"[{key!r}]" for key in error.misfit.keys)
            raise ExecutorArgumentError(f"{kind.__name__}: {field.name}{where}: {error.misfit.message}") from None
        if fitted is not value:
            object.__setattr__(executor, field.name, fitted)


def read_aliases(executor: Any, aliases: Mapping[str, str]) -> None:
    """Moves the values of aliases to the fields that they name.

    Args:
        executor: A frozen dataclass.
        aliases: Fields by their other names.

    Raises:
        ExecutorArgumentError: Both names are given.
    """
    unset = {field.name: field.default for field in dataclasses.fields(executor)}
    for alias, name in aliases.items():
        if (value := getattr(executor, alias)) is None:
            continue
        if getattr(executor, name) not in (unset[name], value):
            raise ExecutorArgumentError(
                f"{type(executor).__name__}: {alias}={value!r} and {name}={getattr(executor, name)!r} are two names of "
                f"one field: give {name} alone"
            )
        object.__setattr__(executor, name, value)
        object.__setattr__(executor, alias, None)


def refuse(kind: str, given: Iterable[str], refused: Mapping[str, str], field: str) -> None:
    """Refuses options that would undo that a job is started once, or that its stream can be read.

    Args:
        kind: Name of the executor's class.
        given: What the author gives.
        refused: What to use instead, by what is refused.
        field: The field in which it is given.

    Raises:
        ExecutorArgumentError: One of them is refused.
    """
    for name in given:
        if name in refused:
            raise ExecutorArgumentError(f"{kind}: {field} cannot have {name}: {refused[name]}")
