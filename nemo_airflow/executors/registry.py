"""Finds an executor's class by its kind, to bring an executor back from its JSON form."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from nemo_airflow.exceptions import ExecutorError
from nemo_airflow.executors.base import Executor
from nemo_airflow.executors.launchers import launcher_from_json

GROUP = "nemo_airflow.executors"


@functools.cache
def executor_class(kind: str) -> type[Executor]:
    """Returns the class registered for a kind.

    Raises:
        ExecutorError: None is registered, or what is registered is not an executor of that kind.
    """
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if kind not in found:
        known = ", ".join(sorted(found)) or "none"
        raise ExecutorError(f"no executor of kind {kind!r} is installed; registered under '{GROUP}': {known}")
    cls = found[kind].load()
    if not (isinstance(cls, type) and issubclass(cls, Executor) and cls.kind == kind):
        raise ExecutorError(f"the entry point {kind!r} in '{GROUP}' is {cls!r}, which is not an Executor of that kind")
    return cls


def executor_from_json(data: Mapping[str, Any]) -> Executor:
    """The inverse of :meth:`Executor.to_json`.

    Raises:
        ExecutorError: The kind is not registered, or a field is not one of its executor.
    """
    fields = dict(data)
    cls = executor_class(fields.pop("kind", ""))
    known = {field.name for field in dataclasses.fields(cls)}
    if unknown := sorted(fields.keys() - known):
        raise ExecutorError(
            f"{cls.__name__} has no field {', '.join(unknown)}; its fields are {', '.join(sorted(known))}"
        )
    if isinstance(fields.get("launcher"), Mapping):
        fields["launcher"] = launcher_from_json(fields["launcher"])
    return cls(**fields)
