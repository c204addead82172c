"""The Ray driver: carries out the verbs for many jobs at once."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar

from nemo_airflow.exceptions import BackendUnavailable, ExecutorError, OutputsLost, SubmitError
from nemo_airflow.executors.base import Chunk, Cursor, Driver, LeaveOut, Request
from nemo_airflow.executors.intake import Intake
from nemo_airflow.executors.outputs import extract_outputs
from nemo_airflow.executors.ray import address, packages
from nemo_airflow.executors.ray.api import JobExists, NoAgent, RayApi
from nemo_airflow.executors.ray.executor import KEY, NAME, RayExecutor
from nemo_airflow.executors.ray.log import LogReader
from nemo_airflow.executors.ray.nodes import Nodes
from nemo_airflow.executors.ray.resources import check_fit
from nemo_airflow.executors.ray.status import node_is_gone, status_of
from nemo_airflow.executors.seen import Fact, Seen
from nemo_airflow.job import FailureKind, JobHandle, JobState
from nemo_airflow.threads import Threads

_FEW = 4
"""Up to how many jobs are asked for one by one: a list is of all jobs that the cluster remembers."""

_CONCURRENT = 16
_OUTPUTS_PAUSE = 0.2
_REMEMBERED = 10_000


class RayDriver(Driver):
    """Talks to one Ray cluster.

    Args:
        conn_id: Id of an Airflow connection, or None.
        dashboard: Address of the dashboard, or None.
    """

    poll_interval: ClassVar[tuple[float, float]] = (0.5, 30.0)

    def __init__(self, conn_id: str | None, dashboard: str | None) -> None:
        self._conn_id = conn_id
        self._dashboard = dashboard
        self._connected: tuple[RayApi, LogReader, Nodes] | None = None
        self._connecting = asyncio.Lock()
        self._threads = Threads("ray")
        self._slots = asyncio.Semaphore(_CONCURRENT)
        self._node_of: collections.OrderedDict[str, str] = collections.OrderedDict()
        """The node of each job that was seen to run: where its log is."""
        self._cancelled: set[str] = set()

    async def submit(self, request: Request) -> JobHandle:
        """See :meth:`Driver.submit`."""
        api, _, _ = await self._connect()
        call: Mapping[str, Any] = request.payload["call"]
        details = await api.job(request.key)
        if details is None:
            await check_fit(api, call)
            archives = request.payload["archives"]
            await self._bring(api, archives["code"], lambda file: packages.write_code(request.package, file))
            await self._bring(api, archives["job"], lambda file: packages.write_files(request, file))
            for each in packages.sent(request.inputs):
                for piece, name in enumerate(packages.input_names(each)):
                    await self._bring(api, name, functools.partial(packages.write_input, each, piece))
            with contextlib.suppress(JobExists):  # submitted by another process since we looked
                await api.submit(call)
            details = await api.job(request.key)
        if details is None:
            raise BackendUnavailable(f"Ray at {api.url} accepted job {request.key}, but does not list it yet")
        if not _is_ours(details, request.key):
            raise SubmitError(
                f"Ray at {api.url} has a job with the id {request.key} of another program: delete it there"
            )
        return _handle(details, api.url)

    async def find(self, keys: Sequence[str]) -> dict[str, JobHandle]:
        """See :meth:`Driver.find`."""
        api, _, _ = await self._connect()
        return {key: _handle(details, api.url) for key, details in (await self._details(keys)).items()}

    async def look(self, handles: Sequence[JobHandle]) -> dict[str, Seen]:
        """See :meth:`Driver.look`."""
        at = time.monotonic()
        details = await self._details([handle.key for handle in handles])
        return {
            handle.key: await self._see(details[handle.key], at)
            if handle.key in details
            else Seen(at, note=f"Ray at {handle.cluster or self._dashboard} does not know the job")
            for handle in handles
        }

    async def read(self, cursors: Sequence[Cursor]) -> list[Chunk]:
        """See :meth:`Driver.read`."""
        unknown = [cursor.handle.key for cursor in cursors if cursor.handle.key not in self._node_of]
        if unknown:
            await self._details(unknown)
        chunks = await asyncio.gather(*(self._read(cursor) for cursor in cursors))
        return [chunk for chunk in chunks if chunk.data]

    async def cancel(self, handles: Sequence[JobHandle]) -> None:
        """See :meth:`Driver.cancel`."""
        api, _, _ = await self._connect()
        await asyncio.gather(*(self._with_slot(api.stop(handle.key)) for handle in handles))
        self._cancelled.update(handle.key for handle in handles)

    async def collect(
        self, handle: JobHandle, into: Path, leave_out: LeaveOut | None = None, intake: Intake | None = None
    ) -> list[Path]:
        """See :meth:`Driver.collect`."""
        api, _, _ = await self._connect()
        folder = f"nemo-airflow/{handle.key}"
        while True:
            # Status before outputs: they are there before Ray sees the job's end, or there are none.
            details = (await self._details([handle.key])).get(handle.key)
            if details is None:
                raise OutputsLost(
                    f"Ray at {api.url} does not know job {handle.key} any more, so its outputs cannot be found"
                )
            node = details.get("driver_node_id")
            files = node and await self._download(node, f"{folder}/outputs.tar", into, leave_out, intake)
            if isinstance(files, list):
                return files
            if status_of(details).state.is_final:
                break
            await asyncio.sleep(_OUTPUTS_PAUSE)
        if node:
            await self._explain_missing(api, node, folder)
        return []

    async def remove(self, handles: Sequence[JobHandle]) -> None:
        """See :meth:`Driver.remove`."""
        api, _, _ = await self._connect()
        for key, details in (await self._details([handle.key for handle in handles])).items():
            if not status_of(details).state.is_final:
                raise ExecutorError(f"job {key} is still running: cancel it before it is removed")
            await api.delete(key)

    async def survey(self) -> list[JobHandle]:
        """See :meth:`Driver.survey`."""
        api, _, _ = await self._connect()
        return [
            _handle(details, api.url)
            for details in await api.jobs()
            if _is_ours(details, details["submission_id"]) and not status_of(details).state.is_final
        ]

    async def labels(self, handles: Sequence[JobHandle]) -> dict[str, Mapping[str, str]]:
        """See :meth:`Driver.labels`."""
        details = await self._details([handle.key for handle in handles])
        return {
            key: {name: text for name, text in known["metadata"].items() if name not in (KEY, NAME)}
            for key, known in details.items()
        }

    async def close(self) -> None:
        """See :meth:`Driver.close`."""
        await self._disconnect()
        self._threads.close()

    async def _disconnect(self) -> None:
        if self._connected is not None:
            (api, log, _), self._connected = self._connected, None
            await log.close()
            await api.close()

    async def _connect(self) -> tuple[RayApi, LogReader, Nodes]:
        """Returns the clients; after a refusal new ones, by the connection as it is now: tokens are replaced."""
        async with self._connecting:
            if self._connected is not None and self._connected[0].is_refused:
                await self._disconnect()
            if self._connected is None:
                api = RayApi(await address.resolve(self._conn_id, self._dashboard))
                self._connected = (api, LogReader(api), Nodes(api))
            return self._connected

    async def _bring(self, api: RayApi, name: str, write: Any) -> None:
        """Puts an archive into the cluster's store, unless it is there."""
        if await api.has_package(name):
            return
        with tempfile.TemporaryFile() as file:
            size = await self._threads.transfer(_write, write, file)
            if size >= packages.LARGEST:
                raise SubmitError(
                    f"what is to be shipped is {size / 2**20:.0f} MiB, and Ray takes less than "
                    f"{packages.LARGEST / 2**20:.0f} MiB: leave data out of the package, and give it "
                    "to the job as an artifact",
                    kind=FailureKind.QUOTA,
                )
            await api.put_package(name, file, size)

    async def _details(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Returns what Ray knows of our jobs of these keys."""
        api, _, _ = await self._connect()
        if len(keys) <= _FEW:
            found = await asyncio.gather(*(api.job(key) for key in keys))
            everything = [details for details in found if details]
        else:
            everything = await api.jobs()
        wanted = set(keys)
        jobs = {details["submission_id"]: details for details in everything}
        jobs = {key: details for key, details in jobs.items() if key in wanted and _is_ours(details, key)}
        for key, details in jobs.items():
            if node := details.get("driver_node_id"):
                self._node_of[key] = node
        while len(self._node_of) > _REMEMBERED:
            self._node_of.popitem(last=False)
        return jobs

    async def _read(self, cursor: Cursor) -> Chunk:
        key = cursor.handle.key
        data = b""
        if node := self._node_of.get(key):
            _, log, _ = await self._connect()
            with contextlib.suppress(NoAgent):  # one node's trouble is no reason to keep back the others' logs
                data = await self._with_slot(log.read(key, node, cursor.offset, cursor.limit))
        return Chunk(key, cursor.offset, data)

    async def _with_slot(self, call: Any) -> Any:
        async with self._slots:
            return await call

    async def _see(self, details: Mapping[str, Any], at: float) -> Seen:
        """Returns what Ray tells of a job, and what its nodes tell besides."""
        _, _, nodes = await self._connect()
        status, key, node = status_of(details), details["submission_id"], details.get("driver_node_id")
        unread, gone = "", False
        if status.state.is_final:
            self._cancelled.discard(key)
            if node and not await nodes.answers(node):
                unread, gone = f"node {node} does not hand out its log", not await nodes.has(node)
        # A head that was replaced and kept its jobs in Redis can call one running for ever.
        elif status.state is JobState.RUNNING and node and not await nodes.has(node):
            status = node_is_gone(details)
        # Ray ends a job that waits for resources once these are free; until then it calls it pending.
        cancelled = key in self._cancelled
        return Seen(at, queue=Fact(status), unread=unread, unread_for_good=gone, cancelled_by_us=cancelled)

    async def _download(
        self, node: str, path: str, into: Path, leave_out: LeaveOut | None, intake: Intake | None
    ) -> list[Path] | None:
        """Unpacks the outputs of a job; returns None when there are none."""
        api, _, nodes = await self._connect()
        try:
            files: list[Path] | None = await self._threads.transfer(
                api.download, node, path, lambda tar: extract_outputs(tar, into, leave_out, intake)
            )
        except NoAgent as error:
            if await nodes.has(node):
                raise
            raise OutputsLost(f"node {node} has left Ray at {api.url}, so the job's outputs are lost") from error
        return files

    async def _explain_missing(self, api: RayApi, node: str, folder: str) -> None:
        reason = await self._threads.call(api.download, node, f"{folder}/error.txt", lambda file: file.read().decode())
        if reason:
            raise ExecutorError(f"the outputs could not be kept in the cluster: {reason}")


def _write(write: Any, file: IO[bytes]) -> int:
    write(file)
    size = file.tell()
    file.seek(0)
    return size


def _is_ours(details: Mapping[str, Any], key: str) -> bool:
    return (details.get("metadata") or {}).get(KEY) == key


def _handle(details: Mapping[str, Any], url: str) -> JobHandle:
    key = details["submission_id"]
    return JobHandle(key, RayExecutor.kind, key, url, (details.get("start_time") or 0) / 1000)
