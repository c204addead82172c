"""Reads logs of pods from an offset on, though the API server only knows them by time.

A log comes from the kubelet of the pod's node, through the API server, which waits half a minute for a kubelet that
does not answer. So each log has its own trouble, and no node's silence keeps the logs of others waiting.
"""

from __future__ import annotations

import asyncio
import datetime
import time
import weakref
from collections.abc import Mapping, Sequence

from nemo_airflow.exceptions import ExecutorError
from nemo_airflow.executors.base import Chunk, Cursor
from nemo_airflow.executors.folder import parse_end
from nemo_airflow.executors.kubernetes.cluster import Cluster, Refused, Troubled, ask_again
from nemo_airflow.executors.kubernetes.manifest import CONTAINER
from nemo_airflow.executors.timed_log import Ask, TimedLog
from nemo_airflow.job import JsonObject
from nemo_airflow.stream import MARK

_PATIENCE = 5.0
"""Seconds for which a node is asked again for the end of a log."""

_TIMEOUT = 45.0
"""Seconds to wait for a log: longer than the API server waits for a kubelet, which it then says."""

_AT_ONCE = 5.0
"""Seconds to wait for a log on which a look at jobs waits."""

_TAIL = {"container": CONTAINER, "tailLines": "5"}

_SHORT = 5.0
"""Seconds for which all readers wait for one log; after that only its own reader does."""

_OF_A_NODE = 4
"""Logs that are read from one node at one time."""


class PodLog:
    """The log of one pod's job.

    Args:
        cluster: The pod's cluster.
        pod: The pod's name.
        node: The name of its node.

    Attributes:
        pod: The pod's name.
        node: The name of its node.
        looked_at: When it was last read, on the monotonic clock.
    """

    def __init__(self, cluster: Cluster, pod: str, node: str = "") -> None:
        self._cluster = cluster
        self.pod = pod
        self.node = node
        self._times = TimedLog()
        self._whole: int | None = None
        self.looked_at = 0.0

    @property
    def silence(self) -> str:
        """What to say of a log that does not come."""
        return f"node {self.node} does not give the log of pod {self.pod}"

    def is_read(self, offset: int) -> bool:
        """Returns whether nothing comes after the offset any more, as the job has ended."""
        return offset == self._whole

    async def read(self, cursor: Cursor) -> Chunk:
        """Returns what the job wrote after a cursor, or a part of it; or why that cannot be read."""
        self.looked_at = time.monotonic()
        ask = self._times.ask(cursor)
        try:
            while isinstance(answer := self._times.take(await self._fetch(ask), cursor, ask), Ask):
                ask = answer
        except Troubled as error:
            return Chunk(cursor.handle.key, cursor.offset, b"", trouble=f"{self.silence}: {error}")
        except ExecutorError as error:
            return Chunk(cursor.handle.key, cursor.offset, b"", trouble=str(error))
        if cursor.ended and not answer.data:
            self._whole = cursor.offset
        return answer

    async def whole(self) -> bytes:
        """Returns all of it that the node has kept.

        Raises:
            BackendUnavailable: The node does not give it.
        """
        return await self._get({"container": CONTAINER})

    async def _fetch(self, ask: Ask) -> bytes:
        query = {"container": CONTAINER, "limitBytes": str(ask.limit)}
        if ask.since is not None:
            since = datetime.datetime.fromtimestamp(ask.since, datetime.UTC)
            query["sinceTime"] = since.strftime("%Y-%m-%dT%H:%M:%SZ")
        return await self._get(query)

    async def _get(self, query: Mapping[str, str], timeout: float = _TIMEOUT) -> bytes:  # noqa: ASYNC109 - as of stream
        """Returns an excerpt.

        Raises:
            Troubled: The node does not give it, which must not hide the job's status.
        """
        path, doing = f"pods/{self.pod}/log", f"read the log of pod {self.pod}"
        try:
            async with self._cluster.stream("GET", path, doing, query=query, timeout=timeout) as response:
                return await response.read()
        except Refused as error:
            if error.code == 403:
                raise
            if error.code == 404 and f'"{self.pod}" not found' not in str(error):
                raise Troubled(str(error)) from error  # the kubelet does not know the pod: it has just begun
            return b""  # not started yet, or gone

    async def peek_end(self) -> JsonObject | None:
        """Returns the runner's last record, or None where it cannot be had at once."""
        try:
            return _end_in(await self._get(_TAIL, _AT_ONCE))
        except ExecutorError:
            return None

    async def end_record(self) -> JsonObject | None:
        """Returns the runner's last record, or None when the job has not come to it, or its node does not answer."""
        try:
            return _end_in(await ask_again(_PATIENCE)(self._get, _TAIL))
        except Troubled:
            return None


class Reading:
    """Reads of logs under way. One that takes long is not waited for: its answer is given to whoever asks next."""

    def __init__(self) -> None:
        self._tasks: dict[tuple[str, int], asyncio.Task[Chunk]] = {}
        self._nodes: weakref.WeakValueDictionary[str, asyncio.Semaphore] = weakref.WeakValueDictionary()

    async def read(self, items: Sequence[tuple[Cursor, PodLog]]) -> list[Chunk]:
        """Returns what logs have after cursors, empty chunks left out; see :meth:`PodLog.read`."""
        wanted = {(log.pod, cursor.offset): (cursor, log) for cursor, log in items}
        self._tasks = {at: task for at, task in self._tasks.items() if at in wanted or not task.done()}
        new = {at: asyncio.create_task(self._read(*item)) for at, item in wanted.items() if at not in self._tasks}
        self._tasks |= new
        if new:
            await asyncio.wait(new.values(), timeout=_SHORT)
        chunks = []
        for at, (cursor, log) in wanted.items():
            if self._tasks[at].done():
                chunks.append(self._tasks.pop(at).result())
            elif cursor.ended:  # its end waits for that; of one that runs the API server says so in a while
                chunks.append(Chunk(cursor.handle.key, cursor.offset, b"", trouble=log.silence))
        return [chunk for chunk in chunks if chunk.data or chunk.gone or chunk.trouble]

    async def _read(self, cursor: Cursor, log: PodLog) -> Chunk:
        node = self._nodes.setdefault(log.node, asyncio.Semaphore(_OF_A_NODE))
        async with node:
            return await log.read(cursor)

    def close(self) -> None:
        """Gives up what is under way."""
        for task in self._tasks.values():
            task.cancel()


def _end_in(tail: bytes) -> JsonObject | None:
    """Returns the runner's last record, where a log ends with it."""
    for line in reversed(tail.split(b"\n")):
        _, mark, record = line.partition(MARK)
        if mark:
            data = parse_end(record)
            return data if data is not None and data.get("type") == "end" else None
    return None
