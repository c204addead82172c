"""Talks to one Docker daemon about many jobs at once."""

from __future__ import annotations

import asyncio
import io
import tarfile
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from nemo_airflow.exceptions import BackendUnavailable, ExecutorError, OutputsLost
from nemo_airflow.executors.base import Chunk, Cursor, Driver, Executor, LeaveOut, Request
from nemo_airflow.executors.docker import submission
from nemo_airflow.executors.docker.api import Access, Docker, Refused
from nemo_airflow.executors.docker.entry import enter_container
from nemo_airflow.executors.docker.examination import examine_daemon
from nemo_airflow.executors.docker.executor import FOLDER, KEY, NAME, PREFIX, TTL, DockerExecutor
from nemo_airflow.executors.docker.status import end_status, seconds, state_of
from nemo_airflow.executors.finding import Finding
from nemo_airflow.executors.folder import parse_end
from nemo_airflow.executors.inside import command_inside
from nemo_airflow.executors.intake import Intake
from nemo_airflow.executors.outputs import extract_outputs, file_of
from nemo_airflow.executors.pace import Pace
from nemo_airflow.executors.seen import Fact, Seen
from nemo_airflow.executors.timed_log import Ask, TimedLog
from nemo_airflow.job import JobHandle, JobState, JobStatus, JsonObject
from nemo_airflow.runner import stream_tail
from nemo_airflow.terminal import Terminal
from nemo_airflow.threads import Threads

_ALIVE = ("created", "running", "paused", "restarting", "removing")
_KEPT = 10_000
_ABANDONED = 3600.0
"""Seconds after which a container that was only created counts as abandoned."""

_READS_A_SECOND, _READS_AT_ONCE = 50.0, 50
"""Of how many running containers the log is read, in turn: each takes a call of its own."""

_SWEPT_AT_ONCE = 50


class DockerDriver(Driver):
    """One Docker daemon.

    Args:
        access: How it is reached.
    """

    poll_interval: ClassVar[tuple[float, float]] = (0.05, 15.0)

    def __init__(self, access: Access) -> None:
        self._docker = Docker(access)
        self._threads = Threads("docker")
        self._logs: OrderedDict[str, TimedLog] = OrderedDict()
        self._read_at: dict[str, float] = {}
        self._pace = Pace(_READS_A_SECOND, _READS_AT_ONCE)

    async def examine(self, executor: Executor) -> list[Finding]:
        """See :meth:`Driver.examine`."""
        given: Any = executor
        return await self._threads.call(
            lambda: examine_daemon(self._docker, given.container_image, pull=given.pull, gpus=given.gpu_count)
        )

    async def image_digest(self, executor: Executor, handle: JobHandle | None = None) -> str | None:
        """See :meth:`Driver.image_digest`: the id of the image on this daemon."""
        if handle is not None:
            container = (await self._inspected([handle.key])).get(handle.key)
            return str(container["Image"]) if container is not None else None
        given: Any = executor
        return await self._threads.call(self._docker.image_id, given.container_image)

    async def enter(self, handle: JobHandle, command: Sequence[str], executor: Executor, terminal: Terminal) -> int:
        """See :meth:`Driver.enter`."""
        given: Any = executor
        inside = command_inside(given.python, FOLDER, command)
        with self._docker.asking(f"run a command in container {handle.key}") as client:
            return await enter_container(client, handle.key, inside, terminal)

    async def submit(self, request: Request) -> JobHandle:
        """See :meth:`Driver.submit`."""
        return self._handle(await self._threads.transfer(submission.submit, self._docker, request))

    async def find(self, keys: Sequence[str]) -> dict[str, JobHandle]:
        """See :meth:`Driver.find`."""
        known = await self._inspected(keys)
        return {
            key: self._handle(container)
            for key, container in known.items()
            if container["State"]["Status"] != "created"
        }

    async def look(self, handles: Sequence[JobHandle]) -> dict[str, Seen]:
        """See :meth:`Driver.look`."""
        at = time.monotonic()
        alive = {}
        if len(handles) > 1:
            for listed in await self._threads.call(self._docker.list, [KEY], _ALIVE):
                alive[listed["Labels"][KEY], listed["Id"]] = listed["State"]
        seen = await asyncio.gather(*(self._see(handle, at, alive) for handle in handles))
        return {handle.key: each for handle, each in zip(handles, seen, strict=True)}

    async def _see(self, handle: JobHandle, at: float, alive: Mapping[tuple[str, str], str]) -> Seen:
        if state := state_of(alive.get((handle.key, handle.id), "")):
            return Seen(at, queue=Fact(JobStatus(state)))
        try:
            container = (await self._inspected([handle.key])).get(handle.key)
            if container is None or (handle.id and container["Id"] != handle.id):
                return Seen(at, note=f"Docker at {self._docker.url} has no container {handle.key}")
            if state := state_of(container["State"]["Status"]):
                return Seen(at, queue=Fact(JobStatus(state)))
            return await self._threads.call(self._see_end, container, at)
        except BackendUnavailable:
            raise
        except ExecutorError as error:
            return Seen(at, trouble=str(error))

    def _see_end(self, container: JsonObject, at: float) -> Seen:
        if container["State"]["ExitCode"] == 0:
            return Seen(at, queue=Fact(JobStatus(JobState.SUCCEEDED, 0)))
        text = self._file(container, "end.json")
        cancelled = self._file(container, "cancel") is not None
        end = Fact(end_status(container, cancelled=cancelled))
        return Seen(at, queue=end, mark=parse_end(text) if text else None, cancelled_by_us=cancelled)

    def _file(self, container: JsonObject, name: str) -> bytes | None:
        with self._docker.archive(container["Id"], f"{FOLDER}/{name}") as pieces:
            if pieces is None:
                return None
            with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
                file = tar.extractfile(tar.getmembers()[0])
                return file.read() if file else None

    async def read(self, cursors: Sequence[Cursor]) -> list[Chunk]:
        """See :meth:`Driver.read`."""
        due = self._due(cursors)
        chunks = await asyncio.gather(*(self._threads.call(self._read, cursor) for cursor in due))
        return [chunk for chunk in chunks if chunk.data or chunk.gone or chunk.trouble]

    def _due(self, cursors: Sequence[Cursor]) -> list[Cursor]:
        """Returns those whose log is to be read now: all that have ended, and of the others those whose turn it is."""
        ended: list[Cursor] = []
        running: list[Cursor] = []
        for cursor in cursors:
            (ended if cursor.ended else running).append(cursor)
        running.sort(key=lambda cursor: self._read_at.get(cursor.handle.key, 0.0))
        running = running[: self._pace.take(len(running))]
        if len(self._read_at) > _KEPT:
            self._read_at.clear()
        for cursor in running:
            self._read_at[cursor.handle.key] = time.monotonic()
        for cursor in ended:
            self._read_at.pop(cursor.handle.key, None)
        return ended + running

    def _read(self, cursor: Cursor) -> Chunk:
        log = self._logs.pop(cursor.handle.key, None) or TimedLog()
        self._logs[cursor.handle.key] = log  # the last one used is the last to be forgotten
        if len(self._logs) > _KEPT:
            self._logs.popitem(last=False)
        try:
            chunk = self._read_log(cursor, log)
            lacks_end = cursor.ended and not chunk.data and not log.has_ended
            return (self._read_copy(cursor) if lacks_end else None) or chunk
        except BackendUnavailable:
            raise
        except ExecutorError as error:
            return Chunk(cursor.handle.key, cursor.offset, b"", trouble=str(error))

    def _read_log(self, cursor: Cursor, log: TimedLog) -> Chunk:
        ask = log.ask(cursor)
        try:
            while isinstance(answer := log.take(self._docker.log(cursor.handle.key, ask), cursor, ask), Ask):
                ask = answer
        except Refused:
            if cursor.ended and (copy := self._read_copy(cursor)) is not None:
                return copy
            raise
        return answer

    def _read_copy(self, cursor: Cursor) -> Chunk | None:
        """Returns what a job wrote by the runner's own copy of its last bytes: a daemon that is away misses them."""
        with self._docker.archive(cursor.handle.id, f"{FOLDER}/{stream_tail.FOLDER}") as pieces:
            if pieces is None:
                return None
            with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
                parts = {int(Path(member.name).name): tar.extractfile(member) for member in tar if member.isfile()}
                files = {begin: file.read() for begin, file in parts.items() if file}
        if not files:
            return None
        whole, begin = b"".join(data for _, data in sorted(files.items())), min(files)
        gone = max(begin - cursor.offset, 0)
        return Chunk(cursor.handle.key, cursor.offset, whole[cursor.offset + gone - begin :], gone)

    async def cancel(self, handles: Sequence[JobHandle]) -> None:
        """See :meth:`Driver.cancel`."""
        await asyncio.gather(*(self._threads.call(self._cancel, handle) for handle in handles))

    def _cancel(self, handle: JobHandle) -> None:
        container = self._docker.inspect(handle.key)
        if container is None or state_of(container["State"]["Status"]) is None:
            return
        if container["State"]["Status"] == "created" and time.time() - seconds(container["Created"]) > _ABANDONED:
            self._docker.remove(container["Id"])
            return
        # The runner looks for the file at its start: the signal may come before it listens.
        self._docker.put(container["Id"], _cancel_mark())
        self._docker.signal(container["Id"], "SIGTERM")

    async def collect(
        self, handle: JobHandle, into: Path, leave_out: LeaveOut | None = None, intake: Intake | None = None
    ) -> list[Path]:
        """See :meth:`Driver.collect`."""
        return await self._threads.transfer(self._collect, handle, into, leave_out, intake)

    def _collect(self, handle: JobHandle, into: Path, leave_out: LeaveOut | None, intake: Intake | None) -> list[Path]:
        with self._docker.archive(handle.key, f"{FOLDER}/outputs/.") as pieces:
            if pieces is not None:
                return extract_outputs(file_of(pieces), into, leave_out, intake)
        if self._docker.inspect(handle.key) is None:
            raise OutputsLost(f"the outputs of job {handle.key} are gone: its container was removed")
        return []

    async def remove(self, handles: Sequence[JobHandle]) -> None:
        """See :meth:`Driver.remove`."""
        for key, container in (await self._inspected([handle.key for handle in handles])).items():
            running = state_of(container["State"]["Status"]) is JobState.RUNNING
            if running or not await self._threads.call(self._docker.remove, container["Id"]):
                raise ExecutorError(f"job {key} is still running: cancel it before it is removed")

    async def survey(self) -> list[JobHandle]:
        """See :meth:`Driver.survey`."""
        listed = await self._threads.call(self._docker.list, [KEY], _ALIVE)
        # One that was created just now is about to be started by whoever created it.
        known = [c for c in listed if c["State"] != "created" or time.time() - c["Created"] > _ABANDONED]
        return [self._handle(c) for c in (await self._inspected([c["Labels"][KEY] for c in known])).values()]

    async def labels(self, handles: Sequence[JobHandle]) -> dict[str, Mapping[str, str]]:
        """See :meth:`Driver.labels`."""
        known = await self._inspected([handle.key for handle in handles])
        return {
            key: {
                name.removeprefix(PREFIX): text
                for name, text in container["Config"]["Labels"].items()
                if name.startswith(PREFIX) and name not in (KEY, NAME, TTL)
            }
            for key, container in known.items()
        }

    async def close(self) -> None:
        """See :meth:`Driver.close`."""
        await self._threads.call(self._docker.close)
        self._threads.close()

    async def _inspected(self, keys: Sequence[str]) -> dict[str, JsonObject]:
        """Returns what the daemon knows of our containers of these keys."""
        found = await asyncio.gather(*(self._threads.call(self._docker.inspect, key) for key in keys))
        return {
            key: container
            for key, container in zip(keys, found, strict=True)
            if container is not None and (container["Config"].get("Labels") or {}).get(KEY) == key
        }

    def _handle(self, container: JsonObject) -> JobHandle:
        key, begun = container["Config"]["Labels"][KEY], seconds(container["Created"])
        return JobHandle(key, DockerExecutor.kind, container["Id"], self._docker.url, begun)

    async def sweep(self) -> None:
        """See :meth:`Driver.sweep`."""
        await self._threads.call(self._remove_old)

    def _remove_old(self) -> None:
        now = time.time()
        ended = self._docker.list([KEY, TTL], ["exited", "dead"])
        # Not looked at closer: those that are too young to have ended so long ago.
        old = [c for c in ended if now - c["Created"] > float(c["Labels"][TTL])][:_SWEPT_AT_ONCE]
        for container in old:
            details = self._docker.inspect(container["Id"])
            if details and now - seconds(details["State"]["FinishedAt"]) > float(container["Labels"][TTL]):
                self._docker.remove(container["Id"])


def _cancel_mark() -> io.BytesIO:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(f"{FOLDER.lstrip('/')}/cancel"))
    archive.seek(0)
    return archive
