"""Reads the log of a pod from an offset on, though the API server only knows it by time."""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
import time
from collections.abc import Mapping

from nemo_airflow.executors.kubernetes.cluster import Cluster, Refused, Troubled
from nemo_airflow.executors.kubernetes.manifest import CONTAINER
from nemo_airflow.executors.timed_log import TimedLog
from nemo_airflow.job import JsonObject
from nemo_airflow.stream import MARK

_LIMIT = 4 << 20
"""Bytes of log to ask for; more only where that many were written within the slack of the times."""

_ATTEMPTS = 4
_PAUSE = 0.5


class PodLog:
    """The log of one pod's job.

    Args:
        cluster: The pod's cluster.
        pod: The pod's name.

    Attributes:
        looked_at: When it was last read, on the monotonic clock.
    """

    def __init__(self, cluster: Cluster, pod: str) -> None:
        self._cluster = cluster
        self._pod = pod
        self._times = TimedLog()
        self._whole: int | None = None
        self.looked_at = 0.0

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
        data = await self._read_on(offset, ended)
        if ended and not data:
            self._whole = offset
        return data

    async def _read_on(self, offset: int, ended: bool) -> bytes:
        limit = _LIMIT
        while True:
            since = self._times.since(offset)
            excerpt = await self._fetch(since, limit, ended)
            data = self._times.take(excerpt, offset)
            if data or len(excerpt) < limit:
                return data
            limit *= 4

    async def _fetch(self, since: float | None, limit: int, ended: bool) -> bytes:
        query = {"container": CONTAINER, "limitBytes": str(limit)}
        if since is not None:
            query["sinceTime"] = datetime.datetime.fromtimestamp(since, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return await self._get(query, attempts=_ATTEMPTS if ended else 1)

    async def _get(self, query: Mapping[str, str], attempts: int) -> bytes:
        """Returns an excerpt; nothing where the node does not give it, which must not hide how the job fares."""
        path, doing = f"pods/{self._pod}/log", f"read the log of pod {self._pod}"
        for attempt in range(attempts):
            if attempt:
                await asyncio.sleep(_PAUSE)
            try:
                async with self._cluster.stream("GET", path, doing, query=query, timeout=30.0) as response:
                    return await response.read()
            except Troubled as error:
                trouble = error
            except Refused as error:
                if error.code == 403:
                    raise
                return b""  # not started yet, or gone
        if attempts > 1:
            logging.getLogger(__name__).warning("the end of a log is lost: %s", trouble)
        return b""

    async def end_record(self) -> JsonObject | None:
        """Returns the runner's last record, or None when the job has not come to it."""
        tail = await self._get({"container": CONTAINER, "tailLines": "5"}, attempts=_ATTEMPTS)
        for line in reversed(tail.split(b"\n")):
            _, mark, record = line.partition(MARK)
            if mark:
                data: JsonObject = json.loads(record)
                return data if data.get("type") == "end" else None
        return None
