"""Finds an executor's class by its kind, and makes executors from their JSON form."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar

from nemo_airflow.exceptions import ExecutorArgumentError, ExecutorError
from nemo_airflow.executors.base import Executor
from nemo_airflow.executors.launchers import Launcher
from nemo_airflow.language.nearest import similar

GROUP = "nemo_airflow.executors"
LAUNCHERS = "nemo_airflow.launchers"

T = TypeVar("T", Executor, Launcher)


def executor_kinds() -> set[str]:
    """Returns the kinds of executors that are installed."""
    return {entry.name for entry in entry_points(group=GROUP)}


def executor_class(kind: str) -> type[Executor]:
    """Returns the class registered for a kind.

    Raises:
        ExecutorError: None is registered, or what is registered is not an executor of that kind.
    """
    cls: type[Executor] = _class(GROUP, kind)
    return cls


def executor_from_json(data: Mapping[str, Any]) -> Executor:
    """The inverse of :meth:`Executor.to_json`.

    Raises:
        ExecutorError: The kind is not registered, or a field is not one of its executor.
    """
    fields = dict(data)
    cls = executor_class(str(fields.pop("kind", "")))
    if isinstance(fields.get("launcher"), Mapping):
        fields["launcher"] = launcher_from_json(fields["launcher"])
    return _make(cls, fields)


def launcher_from_json(data: Mapping[str, Any]) -> Launcher:
    """The inverse of :meth:`Launcher.to_json`.

    Raises:
        ExecutorError: The kind is not registered, or a field is not one of its launcher.
    """
    fields = dict(data)
    cls: type[Launcher] = _class(LAUNCHERS, str(fields.pop("kind", "")))
    return _make(cls, fields)


@functools.cache
def _class(group: str, kind: str) -> Any:
    base: type[Executor | Launcher] = Executor if group == GROUP else Launcher
    name = base.__name__.lower()
    found = {entry.name: entry for entry in entry_points(group=group)}
    if kind not in found:
        known = ", ".join(sorted(found)) or "none"
        raise ExecutorError(f"no {name} of kind {kind!r} is installed; registered under '{group}': {known}")
    cls = found[kind].load()
    if not (isinstance(cls, type) and issubclass(cls, base) and cls.kind == kind):
        raise ExecutorError(
            f"the entry point {kind!r} in '{group}' is {cls!r}, which is not a subclass of {base.__name__} of that kind"
        )
    return cls


def _make(cls: type[T], fields: Mapping[str, Any]) -> T:
    known = {field.name for field in dataclasses.fields(cls)}
    if unknown := sorted(fields.keys() - known):
        raise ExecutorArgumentError(
            f"{cls.__name__} has no field {', '.join(unknown)}; its fields are {', '.join(sorted(known))}"
            f"{similar(unknown[0], sorted(known))}"
        )
    needed = [
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing := [name for name in needed if name not in fields]:
        raise ExecutorArgumentError(f"{cls.__name__} has no default for {', '.join(missing)}: give it a value")
    return cls(**fields)
