"""What is recorded of an alias: each change of the version that it names. Pure: no I/O."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any

PROMOTION, ROLLBACK = "promotion", "rollback"

CHAMPION, CHALLENGER = "champion", "challenger"

ALIAS_CHANGES = "nemo_airflow.alias.{}"
"""Tag of the registered model with the changes of an alias."""

_MOST = 100
"""Changes that are kept of an alias, the newest."""

_LONGEST_REASON = 500
"""Characters: MLflow keeps 100,000 of a tag, which has all changes."""


@dataclasses.dataclass(frozen=True)
class Change:
    """One change of the version that an alias names.

    Attributes:
        kind: ``promotion`` or ``rollback``.
        version: The version that the alias names since.
        before: The version that it named before; empty for none.
        at: When, in seconds since the epoch.
        by: Who or what has done it.
        why: The reason, in one line.
        operation: What asked for it, such as a task of a DAG run: the same operation changes an alias once.
        done: Whether the alias was moved; a process may die between the record and that.
    """

    kind: str
    version: str
    before: str
    at: float
    by: str = ""
    why: str = ""
    operation: str = ""
    done: bool = True


def parse_changes(text: str) -> list[Change]:
    """Returns the changes that :func:`format_changes` has written, the oldest first.

    Raises:
        ValueError: Something else has written the text.
    """
    fields = {field.name for field in dataclasses.fields(Change)}
    try:
        rows: list[dict[str, Any]] = json.loads(text) if text else []
        return [Change(**{name: value for name, value in row.items() if name in fields}) for row in rows]
    except (AttributeError, TypeError) as error:
        raise ValueError(str(error)) from None


def format_changes(changes: Sequence[Change]) -> str:
    """Returns the newest changes as JSON."""
    kept = [dataclasses.replace(change, why=change.why[:_LONGEST_REASON]) for change in changes[-_MOST:]]
    return json.dumps([dataclasses.asdict(change) for change in kept], separators=(",", ":"))


def effective_changes(changes: Iterable[Change], current: str) -> list[Change]:
    """Returns the changes that took place: of one that is not marked as done, the alias tells."""
    return [dataclasses.replace(change, done=True) for change in changes if change.done or change.version == current]


def versions_in_turn(changes: Iterable[Change], current: str) -> list[str]:
    """Returns the versions to which rollbacks lead, the oldest first; the last one is the current one.

    A rollback takes away what came after the version that it went back to. What somebody has set besides these changes,
    by hand in MLflow, counts as a promotion.

    Args:
        changes: The changes of the alias, the oldest first.
        current: The version that the alias names now; empty for none.
    """
    turn: list[str] = []
    for change in effective_changes(changes, current):
        _append(turn, change.before)
        if change.kind == ROLLBACK:
            while turn and turn[-1] != change.version:
                turn.pop()
        _append(turn, change.version)
    _append(turn, current)
    return turn


def _append(turn: list[str], version: str) -> None:
    if version and turn[-1:] != [version]:
        turn.append(version)
