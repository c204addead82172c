"""Tags and files that are reserved for the record of a job; the job itself may not write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

RECORD = "nemo_airflow"
"""Folder of a run's artifacts with the record: plan, log, environment ..."""

LOG = f"{RECORD}/log.txt"
"""Path in a run of the copy of the job's log."""

_PREFIXES = ("nemo_airflow.", "airflow.", "mlflow.source.")
_TAGS = frozenset({"mlflow.parentRunId", "mlflow.rootRunId"})


def split_tags(tags: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Returns the tags that a job may set, and the names of those that it may not."""
    refused = [name for name in tags if name in _TAGS or name.startswith(_PREFIXES)]
    return {name: value for name, value in tags.items() if name not in refused}, refused


def free_name(names: Iterable[str]) -> str:
    """Returns a free name for a job's folder or file that has the name of the record's folder."""
    taken = set(names)
    name = f"job_{RECORD}"
    while name in taken:
        name += "_"
    return name


def move_aside(kept: Path) -> str:
    """Renames a job's file at the place of the record; returns the new name, or an empty text if there is none."""
    if not (kept / RECORD).exists():
        return ""
    name = free_name(path.name for path in kept.iterdir())
    (kept / RECORD).rename(kept / name)
    return name
