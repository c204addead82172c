"""Reads the log of a pod from an offset on, though the API server only knows it by time."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Mapping

from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_attempt, wait_fixed

from nemo_airflow.executors.folder import parse_end
from nemo_airflow.executors.kubernetes.cluster import Cluster, Refused, Troubled
from nemo_airflow.executors.kubernetes.manifest import CONTAINER
from nemo_airflow.executors.timed_log import TimedLog
from nemo_airflow.job import JsonObject
from nemo_airflow.stream import MARK

_LIMIT = 4 << 20
"""Bytes of log to ask for; more only where that many were written within the slack of the times."""

_ATTEMPTS = 4
_PAUSE = 0.5

_PATIENCE = 60.0
"""Seconds for which a node that does not give the log of an ended job is waited for: its kubelet may be restarted."""


class PodLog:
    """The log of one pod's job.

    Args:
        cluster: The pod's cluster.
        pod: The pod's name.

    Attributes:
        looked_at: When it was last read, on the monotonic clock.
        is_awaited: Whether the job has ended, and its node does not give the log just now.
    """

    def __init__(self, cluster: Cluster, pod: str) -> None:
        self._cluster = cluster
        self._pod = pod
        self._times = TimedLog()
        self._whole: int | None = None
        self.looked_at = 0.0
        self.is_awaited = False
        self._troubled_since: float | None = None

    def is_read(self, offset: int) -> bool:
        """Returns whether nothing comes after the offset any more, as the job has ended."""
        return offset == self._whole

    async def read(self, offset: int, *, ended: bool) -> bytes:
        """Returns what the job wrote after an offset, or a part of it.

        Args:
            offset: Bytes of the stream.
            ended: Whether the container had ended before this call.

        Raises:
            BackendUnavailable: The API server cannot be reached.
        """
        self.looked_at = time.monotonic()
        try:
            data = await self._read_on(offset)
        except Troubled as error:
            if ended:
                self._bear(error, offset)
            return b""
        self.is_awaited, self._troubled_since = False, None
        if ended and not data:
            self._whole = offset
        return data

    def _bear(self, error: Troubled, offset: int) -> None:
        """Waits for a node that does not answer, and after a while no more: it may never come back."""
        now = time.monotonic()
        if self._troubled_since is None:
            self._troubled_since = now
        self.is_awaited = now - self._troubled_since < _PATIENCE
        if not self.is_awaited:
            self._whole = offset
            logging.getLogger(__name__).warning("the end of a log is lost: %s", error)

    async def _read_on(self, offset: int) -> bytes:
        limit = _LIMIT
        while True:
            since = self._times.since(offset)
            excerpt = await self._fetch(since, limit)
            data = self._times.take(excerpt, offset)
            if data or len(excerpt) < limit:
                return data
            limit *= 4

    async def _fetch(self, since: float | None, limit: int) -> bytes:
        query = {"container": CONTAINER, "limitBytes": str(limit)}
        if since is not None:
            query["sinceTime"] = datetime.datetime.fromtimestamp(since, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return await self._get(query)

    async def _get(self, query: Mapping[str, str]) -> bytes:
        """Returns an excerpt.

        Raises:
            Troubled: The node does not give it, which must not hide how the job fares.
        """
        path, doing = f"pods/{self._pod}/log", f"read the log of pod {self._pod}"
        try:
            async with self._cluster.stream("GET", path, doing, query=query, timeout=30.0) as response:
                return await response.read()
        except Refused as error:
            if error.code == 403:
                raise
            if error.code == 404 and f'"{self._pod}" not found' not in str(error):
                raise Troubled(str(error)) from error  # the kubelet does not know the pod: it has just begun
            return b""  # not started yet, or gone

    async def end_record(self) -> JsonObject | None:
        """Returns the runner's last record, or None when the job has not come to it, or its node does not answer."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Troubled), wait=wait_fixed(_PAUSE), stop=stop_after_attempt(_ATTEMPTS)
        )
        try:
            tail: bytes = await retrying(self._get, {"container": CONTAINER, "tailLines": "5"})
        except RetryError:
            return None
        for line in reversed(tail.split(b"\n")):
            _, mark, record = line.partition(MARK)
            if mark:
                data = parse_end(record)
                return data if data is not None and data.get("type") == "end" else None
        return None
