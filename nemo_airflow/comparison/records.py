"""Compares two jobs by the records that their tasks have left in Airflow: values, code and back-end."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Change:
    """One value that differs.

    Attributes:
        name: A path in the config, or ``commit``, ``package``, ``back-end``, ``config`` (its digest).
        old: The other run's value; empty if it has none.
        new: This run's value; empty if it has none.
    """

    name: str
    old: str
    new: str


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Returns the differences between two jobs' records, code and back-end first.

    Args:
        old: The operator's record of the other run's job.
        new: The operator's record of this job.
    """
    before, after = _facts(old), _facts(new)
    names = dict.fromkeys((*before, *after))
    found = [Change(name[1], before.get(name, ""), after.get(name, "")) for name in names]
    return [change for change in found if change.old != change.new]


def _facts(record: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Returns the compared values, by kind and name: a parameter may also be named ``commit``."""
    package = record.get("package") or {}
    handle = record.get("handle") or {}
    facts = {
        "commit": str(package.get("commit", "")),
        "package": str(package.get("digest", "")),
        "back-end": " ".join(filter(None, (handle.get("kind"), handle.get("cluster")))),
        # The record of a large config has only the first values; the digest shows differences in the others.
        "config": str(record.get("plan_digest", "")),
    }
    config = {("config", str(path)): str(value) for path, value in (record.get("config") or {}).items()}
    return {("job", name): value for name, value in facts.items() if value} | config
