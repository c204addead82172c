"""What belongs to the record of a job, so that the job itself may not write it: tags and files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

RECORD = "nemo_airflow"
"""Folder of a run's artifacts with the record: plan, log, environment ..."""

_PREFIXES = ("nemo_airflow.", "airflow.", "mlflow.source.")
_TAGS = frozenset({"mlflow.parentRunId", "mlflow.rootRunId"})


def split_tags(tags: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Returns the tags that a job may set, and the names of those that it may not."""
    refused = [name for name in tags if name in _TAGS or name.startswith(_PREFIXES)]
    return {name: value for name, value in tags.items() if name not in refused}, refused


def free_name(names: Iterable[str]) -> str:
    """Returns what the folder, or the file, of a job is called that has the name of the record's folder."""
    taken = set(names)
    name = f"job_{RECORD}"
    while name in taken:
        name += "_"
    return name


def move_aside(kept: Path) -> str:
    """Renames what a job left where the record goes; returns its new name, or an empty text if there is nothing."""
    if not (kept / RECORD).exists():
        return ""
    name = free_name(path.name for path in kept.iterdir())
    (kept / RECORD).rename(kept / name)
    return name
