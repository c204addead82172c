"""Why the process of a task is told to end: a user has ended the task, or its worker has to go.

Airflow sends SIGTERM in both cases, and calls ``on_kill``. In the first the API server has refused a heartbeat, so the
state of the task is another by then; in the second (a pod evicted, a worker replaced, an API server that is away) it
is still running.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

_ENDED_BY_USER = frozenset({None, "success", "failed", "skipped", "removed", "upstream_failed", "restarting"})
"""States that a user gives to a task whose process still runs, or after which no try looks for its job.

Not among them are those of a next try (``up_for_retry``, ``scheduled``, ``queued``, ``running``), such as one begun by
a scheduler that has missed this one's heartbeats: it finds the job, follows it, or ends it if the task was cleared.
"""


def is_ended_by_user(state: str | None) -> bool:
    """Returns whether the state of a task says that a user has ended it; for a process that was told to end."""
    return state in _ENDED_BY_USER


class Termination:
    """Finds out why this process has to end. Made for each execution of a task.

    Args:
        ti: The task instance, as in Airflow's context.
        warn: Takes a warning, as a logger does.
    """

    def __init__(self, ti: Any, warn: Callable[..., None]) -> None:
        self._ti = ti
        self._warn = warn
        self.leave = threading.Event()
        """Set when this process is to end and the job is to go on."""
        self.by_user = threading.Event()
        """Set when a user has ended the task."""
        self._job_told: float | None = None

    @property
    def job_told_for(self) -> float:
        """Seconds since the job was told to end because a user has ended its task; 0 where it was not."""
        return time.monotonic() - self._job_told if self._job_told is not None else 0.0

    def look_why(self, cancel: Callable[[], None]) -> None:
        """Finds out why, and cancels the job if it was a user. Returns at once, as a handler of signals must.

        Args:
            cancel: Cancels the job.
        """
        threading.Thread(target=self._look, args=(cancel,), name="nemo-termination", daemon=True).start()

    def _look(self, cancel: Callable[[], None]) -> None:
        if is_ended_by_user(self._state()):
            self.by_user.set()
            try:
                cancel()
            finally:
                self._job_told = time.monotonic()
        else:
            self._warn("This process was told to end, and nobody has ended the task: its job goes on")
            self.leave.set()

    def _state(self) -> str | None:
        ti = self._ti
        index = None if ti.map_index is None or ti.map_index < 0 else ti.map_index
        try:
            states = ti.get_task_states(
                dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=index
            ).get(ti.run_id, {})
        except Exception as error:  # noqa: BLE001 - of the API server, which may be what is away
            self._warn("Cannot find out whether the task was ended by a user, so its job goes on: %s", error)
            return "running"
        state: str | None = states.get(ti.task_id if index is None else f"{ti.task_id}_{index}")
        return state
