"""What waits to be sent to a job's run, and in which order it is sent."""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from nemo_airflow.exceptions import TrackingError
from nemo_airflow.tracking import calls
from nemo_airflow.tracking.base import PartlyRefusedError, RunRef, Tracker
from nemo_airflow.tracking.buffer import PointBuffer
from nemo_airflow.tracking.calls import Call

BATCH = 900
"""Points in one call of the tracker: with their mark, and whatever else is sent with them, one request of MLflow."""

LIMIT = 20_000
"""Points in memory while the server is unreachable."""


@dataclasses.dataclass(frozen=True)
class Refusal:
    """A call that the tracker refused for good, wholly or partly.

    Attributes:
        call: What it recorded, as :attr:`.Call.what`; "points" for points.
        error: The tracker's error.
        of_files: Whether it was a call that stores files.
    """

    call: str
    error: Exception
    of_files: bool

    @property
    def is_partial(self) -> bool:
        """Whether the other parts are recorded."""
        return isinstance(self.error, PartlyRefusedError)

    @property
    def reason(self) -> str:
        """The tracker's words, in one line."""
        return str(self.error) or type(self.error).__name__


class Outbox:
    """What waits for one run: calls, points, the end, files. May be filled on an event loop while a thread sends.

    Calls come before points that were put later, and the end after all points. Files have a sender of their own.

    Args:
        points: Where points wait.
    """

    def __init__(self, points: PointBuffer | None = None) -> None:
        self.points = PointBuffer(LIMIT) if points is None else points
        self.calls: deque[Call] = deque()
        self.last_calls: deque[Call] = deque()
        self.file_calls: deque[Call] = deque()
        self.refusals: deque[Refusal] = deque()
        """What was refused since somebody took these from here."""
        self._lock = threading.Lock()
        self._mark_known = False

    def put(self, call: Call) -> None:
        """Adds a call, or puts it together with the one that waits last; see :func:`.calls.merge`."""
        with self._lock:
            if self.calls and (merged := calls.merge(self.calls[-1], call)) is not None:
                self.calls[-1] = merged
            else:
                self.calls.append(call)

    @property
    def records_left(self) -> list[str]:
        """Names the records that wait."""
        points = len(self.points)
        return [
            *([f"{points} points"] if points else []),
            *(call.what for call in (*tuple(self.calls), *tuple(self.last_calls))),
        ]

    @property
    def files_left(self) -> list[str]:
        """Names the files that wait."""
        return [call.what for call in self.file_calls]

    @property
    def left(self) -> list[str]:
        """Names all that waits."""
        return [*self.records_left, *self.files_left]

    def clear(self) -> None:
        """Drops what waits."""
        with self._lock:
            for waiting in (self.calls, self.last_calls, self.file_calls):
                waiting.clear()
        self.points.clear()

    def send_records(self, tracker: Tracker, ref: RunRef) -> None:
        """Sends the records that wait; drops a call that is refused for good.

        Raises:
            TrackingError: The tracker cannot be reached now.
        """
        self._make(self.calls, tracker, ref)
        if len(self.points) and not self._mark_known:
            self.points.acknowledge(self._mark_of(tracker, ref))
            self._mark_known = True
        while (batch := self.points.take(BATCH)) is not None:
            # What stands before these points is recorded before them: a reader may begin anew at their mark.
            self._make(self.calls, tracker, ref)
            self._attempt("points", lambda points, mark: tracker.metrics(ref, points, mark), batch.metrics, batch.mark)
            self.points.confirm(batch)
        self._make(self.last_calls, tracker, ref)

    def send_files(self, tracker: Tracker, ref: RunRef) -> None:
        """Sends the files that wait; drops those that are refused for good.

        Raises:
            TrackingError: The tracker cannot be reached now.
        """
        self._make(self.file_calls, tracker, ref, of_files=True)

    def _make(self, waiting: deque[Call], tracker: Tracker, ref: RunRef, *, of_files: bool = False) -> None:
        while True:
            with self._lock:
                if not waiting:
                    return
                call = waiting[0]
            texts = self._attempt(call.what, call.make, tracker, ref, of_files=of_files)
            with self._lock:
                if waiting and waiting[0] is call:  # neither dropped nor replaced in the meantime
                    waiting.popleft()
            if texts:
                self.file_calls.append(calls.documents(texts, call))

    def _mark_of(self, tracker: Tracker, ref: RunRef) -> int:
        marks: list[int] = []
        self._attempt("the mark", lambda: marks.append(tracker.mark(ref)))
        return marks[0] if marks else 0

    def _attempt(
        self, what: str, call: Callable[..., Mapping[str, str] | None], *arguments: Any, of_files: bool = False
    ) -> Mapping[str, str] | None:
        """Calls the tracker; notes a permanent error."""
        try:
            return call(*arguments)
        except Exception as error:  # an error of a tracker must not stop the following of a job
            if isinstance(error, TrackingError) and error.transient:
                raise
            self.refusals.append(Refusal(what, error, of_files))
            return error.documents if isinstance(error, PartlyRefusedError) else None
