"""Guards a followed job from its sink: an error of the sink does not fail the task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from nemo_airflow.job import JobStatus
from nemo_airflow.stream import Record


class Sink(Protocol):
    """Receives a job's records while it runs. No method blocks the event loop."""

    def record(self, record: Record) -> None:
        """Accepts one record of the stream."""

    async def mark(self) -> int:
        """Returns up to which byte of the stream all records are kept, whoever passed them on; 0 if nobody knows."""

    async def finish(self, status: JobStatus, log: Path | None, error: str) -> bool:
        """Accepts the job's end.

        Args:
            status: How the job ended.
            log: The copy of its log, which stays until this returns; None if there is none.
            error: The job's error with its traceback, or empty.

        Returns:
            Whether everything is recorded, or kept to be recorded later.
        """

    async def close(self) -> None:
        """Lets go of the job, whether or not it has ended."""


class GuardedSink:
    """Passes records to a sink; turns an error of the sink into a warning, once for each kind of record.

    Args:
        sink: The sink.
        warn: Called with the warning, in one line.
    """

    def __init__(self, sink: Sink, warn: Callable[[str], None]) -> None:
        self._sink = sink
        self._warn = warn
        self._refused: set[str] = set()

    def record(self, record: Record) -> None:
        """See :meth:`Sink.record`."""
        try:
            self._sink.record(record)
        except Exception as error:  # noqa: BLE001 - a record, or a tracker, of which nobody knew: the job goes on
            if record.type not in self._refused:
                self._refused.add(record.type)
                self._warn(f"a record of type {record.type!r} is not tracked, {_name(error)}; the job goes on")

    async def mark(self) -> int:
        """See :meth:`Sink.mark`."""
        try:
            return await self._sink.mark()
        except Exception as error:  # noqa: BLE001 - as above
            self._warn(f"the job's records are read from the beginning again, {_name(error)}")
            return 0

    async def finish(self, status: JobStatus, log: Path | None, error: str) -> bool:
        """See :meth:`Sink.finish`."""
        try:
            return await self._sink.finish(status, log, error)
        except Exception as failure:  # noqa: BLE001 - the job has ended, and how it did is not to change
            self._warn(f"the end of the job is not tracked, {_name(failure)}")
            return False

    async def close(self) -> None:
        """See :meth:`Sink.close`."""
        try:
            await self._sink.close()
        except Exception as error:  # noqa: BLE001 - as above
            self._warn(f"the tracking of the job was not ended in order, {_name(error)}")


def _name(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
