"""What is told of a task: which event it is, why, what has changed, and where to look."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from nemo_airflow.comparison.records import Change

EVENTS = (
    "started",
    "waiting",
    "slow",
    "failed",
    "retrying",
    "succeeded",
    "recovered",
    "promoted",
    "not_promoted",
    "rolled_back",
    "alert",
)
"""Events by name. Airflow's callbacks tell of ``started``, ``failed``, ``retrying``, ``succeeded``, ``recovered``."""

_MOST_CHANGES = 12
_LONGEST_VALUE = 120


@dataclasses.dataclass(frozen=True)
class Report:
    """What is told.

    Attributes:
        event: One of :data:`EVENTS`.
        task: The DAG and the task, as ``dag.task``; the DAG alone for one of all of its tasks.
        run_id: The DAG run.
        reason: Why, in one line or several; empty if there is nothing to say.
        changes: What differs from the last run that went well.
        compared_with: Id of that run, or empty.
        links: Pages, by their names.
    """

    event: str
    task: str
    run_id: str = ""
    reason: str = ""
    changes: Sequence[Change] = ()
    compared_with: str = ""
    links: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def title(self) -> str:
        """The report in a few words."""
        return f"{self.task} {_WORDS[self.event]}"

    @property
    def text(self) -> str:
        """The whole report."""
        lines = [f"run: {self.run_id}"] if self.run_id else []
        if self.reason:
            lines.append(f"reason: {self.reason}")
        if self.compared_with and not self.changes:
            lines.append(f"nothing has changed since {self.compared_with}, the last run that went well")
        if self.changes:
            lines.append(f"changed since {self.compared_with}, the last run that went well:")
            lines += [
                f"  {change.name}: {_short(change.old) or 'none'} -> {_short(change.new) or 'none'}"
                for change in self.changes[:_MOST_CHANGES]
            ]
            if (more := len(self.changes) - _MOST_CHANGES) > 0:
                lines.append(f"  and {more} more")
        lines += [f"{name}: {address}" for name, address in self.links.items() if address]
        return "\n".join(lines)


_WORDS = {
    "started": "has started",
    "waiting": "still waits to start",
    "slow": "takes longer than it should",
    "failed": "has failed",
    "retrying": "has failed and is tried again",
    "succeeded": "went well",
    "recovered": "went well again",
    "promoted": "has promoted a model",
    "not_promoted": "has not promoted a model",
    "rolled_back": "has rolled a model back",
    "alert": "raises an alert",
}


def event_of(context: Mapping[str, Any], *, was_failed: bool) -> str:
    """Returns the event of which one of Airflow's callbacks of a task tells.

    Args:
        context: Airflow's context of the callback.
        was_failed: Whether an earlier try, or the run before, has failed.
    """
    if context.get("alert"):
        return "alert"
    state = state_of(context.get("ti"))
    if state == "up_for_retry":
        return "retrying"
    if "reason" in context:  # a callback of the DAG as a whole
        failed = context["reason"] != "success"
        return "failed" if failed else "recovered" if was_failed else "succeeded"
    if context.get("exception") is not None or state in ("failed", "upstream_failed"):
        return "failed"
    if state == "success":
        return "recovered" if was_failed else "succeeded"
    return "started"


def state_of(ti: Any) -> str:
    """Returns the state of a task instance as text; the classes of Airflow's states print themselves in two ways."""
    state = getattr(ti, "state", None)
    return str(getattr(state, "value", state) or "")


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
