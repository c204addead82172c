"""Finds a tracker's class by its kind, to bring a tracker back from its JSON form."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from nemo_airflow.exceptions import TrackingError
from nemo_airflow.tracking.base import Tracker

GROUP = "nemo_airflow.trackers"


@functools.cache
def tracker_class(kind: str) -> type[Tracker]:
    """Returns the class of a kind: ``mlflow``, or one that is registered as an entry point.

    Raises:
        TrackingError: None is registered, or what is registered is not a tracker of that kind.
    """
    if kind == "mlflow":
        from nemo_airflow.tracking.mlflow import MLflowTracker

        return MLflowTracker
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if kind not in found:
        known = ", ".join(sorted({"mlflow", *found}))
        raise TrackingError(f"no tracker of kind {kind!r} is installed; known, or registered under '{GROUP}': {known}")
    cls = found[kind].load()
    if not (isinstance(cls, type) and issubclass(cls, Tracker) and cls.kind == kind):
        raise TrackingError(f"the entry point {kind!r} in '{GROUP}' is {cls!r}, which is not a Tracker of that kind")
    return cls


def tracker_from_json(data: Mapping[str, Any]) -> Tracker:
    """The inverse of :meth:`Tracker.to_json`.

    Raises:
        TrackingError: The kind is not registered, or a field is not one of its tracker.
    """
    fields = dict(data)
    cls = tracker_class(fields.pop("kind", ""))
    if not dataclasses.is_dataclass(cls):
        raise TrackingError(f"{cls.__name__} is not a dataclass, so it cannot be read from JSON: make it a dataclass")
    known = {field.name for field in dataclasses.fields(cls)}
    if unknown := sorted(fields.keys() - known):
        raise TrackingError(
            f"{cls.__name__} has no field {', '.join(unknown)}; its fields are {', '.join(sorted(known))}"
        )
    return cls(**fields)
