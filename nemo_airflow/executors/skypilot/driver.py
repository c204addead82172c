"""Talks to SkyPilot's API server about many jobs at once."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, ParamSpec, TypeVar

from nemo_airflow import settings
from nemo_airflow.exceptions import BackendUnavailable, ExecutorError, OutputsLost, SubmitError
from nemo_airflow.executors.base import Chunk, Cursor, Driver, LeaveOut, Request
from nemo_airflow.executors.bundle import write_bundle
from nemo_airflow.executors.intake import Intake
from nemo_airflow.executors.outputs import extract_outputs
from nemo_airflow.executors.seen import Fact, Seen
from nemo_airflow.executors.skypilot import api, log, server
from nemo_airflow.executors.skypilot.executor import SkypilotExecutor, own_name
from nemo_airflow.job import FailureKind, JobHandle, JobState, JobStatus, JsonObject
from nemo_airflow.threads import Threads

P = ParamSpec("P")
T = TypeVar("T")

_MANAGED = "managed"
"""Id of the handle of a managed job; of another it is the cluster's name.

Where the machines were still to be made when the job was submitted, the handle's ``cluster`` is the id of the request
for its launch.
"""

_STATES = {
    "INIT": JobState.PENDING, "PENDING": JobState.PENDING, "SETTING_UP": JobState.PENDING,
    "STARTING": JobState.PENDING, "SUBMITTED": JobState.PENDING, "RECOVERING": JobState.PENDING,
    "RUNNING": JobState.RUNNING, "CANCELLING": JobState.RUNNING,
    "SUCCEEDED": JobState.SUCCEEDED, "CANCELLED": JobState.CANCELLED,
}  # fmt: skip
_FAILURES = {
    "FAILED": (FailureKind.USER_ERROR, "the job failed"),
    "FAILED_SETUP": (FailureKind.USER_ERROR, "the setup commands failed"),
    "FAILED_DRIVER": (FailureKind.NODE_FAILURE, "SkyPilot's own process on the cluster failed"),
    "FAILED_PRECHECKS": (FailureKind.USER_ERROR, "SkyPilot's checks before the launch failed"),
    "FAILED_NO_RESOURCE": (FailureKind.QUOTA, "no cloud had the machines"),
    "FAILED_CONTROLLER": (FailureKind.NODE_FAILURE, "SkyPilot's controller failed"),
}
_LAUNCHING = ("PENDING", "RUNNING")
"""States of a request for a launch that has not ended."""

_REFUSED_WITHIN = 20.0
"""Seconds for which a launch is waited for: most of those that are refused are so by then, and others have begun."""

_LAUNCH_PAUSE = 0.5
_OUTPUTS_PAUSE = 2.0
_BUNDLES_KEPT = 3600.0
_REMEMBERED = 10_000


class SkypilotDriver(Driver):
    """SkyPilot's API server.

    Args:
        conn_id: Id of an Airflow connection with its address; None for the one that SkyPilot's client finds by itself.
    """

    poll_interval: ClassVar[tuple[float, float]] = (2.0, 60.0)

    def __init__(self, conn_id: str | None = None) -> None:
        self._conn_id = conn_id
        self._threads = Threads("skypilot", transfers=8)
        self._has_begun: set[tuple[str, int]] = set()
        """Of the keys with several jobs those that have claimed the work: cluster and number."""
        self._anchors: OrderedDict[tuple[str, int], log.Anchor] = OrderedDict()
        """The last record that was read of each job's log."""

    async def _call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls a function of the SDK in a thread."""
        await server.choose(self._conn_id)
        return await self._threads.call(function, *args, **kwargs)

    async def _transfer(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls one that moves much in a thread."""
        await server.choose(self._conn_id)
        return await self._threads.transfer(function, *args, **kwargs)

    async def submit(self, request: Request) -> JobHandle:
        """See :meth:`Driver.submit`. The machines may be made later: then the handle has the request's id."""
        cluster = request.payload["cluster_name"] or ""
        if known := await self._job(request.key, cluster):
            return _handle(known)
        begun = (await self._call(api.launches)).get(own_name(request.key))
        launch = begun.request if begun is not None else await self._transfer(_launch, request)
        if not await self._has_launched(launch):
            return JobHandle(request.key, SkypilotExecutor.kind, cluster or _MANAGED, launch, time.time())
        if known := await self._job(request.key, cluster):
            return _handle(known)
        raise BackendUnavailable(f"SkyPilot has launched job {request.key}, but does not list it yet")

    async def _has_launched(self, launch: str) -> bool:
        """Returns whether a launch has ended well; most that end otherwise do so soon.

        Raises:
            SubmitError: It was refused.
        """
        give_up = time.monotonic() + _REFUSED_WITHIN
        while await self._call(api.launch_state, launch) in _LAUNCHING:
            if time.monotonic() > give_up:
                return False
            await asyncio.sleep(_LAUNCH_PAUSE)
        await self._call(api.end_launch, launch)
        return True

    async def find(self, keys: Sequence[str]) -> dict[str, JobHandle]:
        """See :meth:`Driver.find`. A job on a cluster that others share is found by its handle only."""
        names = {own_name(key): key for key in keys}
        managed = await self._call(api.managed_jobs)
        found = {names[job["name"]]: _handle(job) for job in managed if job["name"] in names}
        for key in keys:
            if key not in found and (job := await self._job(key, own_name(key))):
                found[key] = _handle(job)
        if missing := [key for key in keys if key not in found]:
            launches = await self._call(api.launches)
            for key in missing:
                if launch := launches.get(own_name(key)):
                    found[key] = JobHandle(key, SkypilotExecutor.kind, launch.cluster or _MANAGED, launch.request)
        return found

    async def look(self, handles: Sequence[JobHandle]) -> dict[str, Seen]:
        """See :meth:`Driver.look`."""
        at = time.monotonic()
        jobs = await self._jobs(handles)
        return {handle.key: await self._see(handle, jobs.get(handle.key, []), at) for handle in handles}

    async def _see(self, handle: JobHandle, jobs: Sequence[JsonObject], at: float) -> Seen:
        if (job := await self._runs(jobs)) is not None or not handle.cluster:
            return _see(job, handle, at)
        return await self._see_launch(handle, at)

    async def _see_launch(self, handle: JobHandle, at: float) -> Seen:
        """Returns what the request for a launch tells of a job that is not listed."""
        state = await self._call(api.launch_state, handle.cluster)
        if state in _LAUNCHING:
            return Seen(at, queue=Fact(JobStatus(JobState.PENDING, reason="SkyPilot makes the machines")))
        if state == "CANCELLED":
            return Seen(at, queue=Fact(JobStatus(JobState.CANCELLED, None, FailureKind.CANCELLED)))
        if state == "FAILED":
            kind, reason = FailureKind.NODE_FAILURE, "the launch failed"
            try:
                await self._call(api.end_launch, handle.cluster)
            except SubmitError as error:
                kind, reason = FailureKind(error.kind), str(error)
            except BackendUnavailable as error:  # what the server needs for the launch could not be reached
                reason = str(error)
            return Seen(at, queue=Fact(JobStatus(JobState.FAILED, None, kind, reason)))
        return _see(None, handle, at)

    async def read(self, cursors: Sequence[Cursor]) -> list[Chunk]:
        """See :meth:`Driver.read`. A log can only be asked for whole, or for its last lines."""
        jobs = await self._jobs([cursor.handle for cursor in cursors])
        chunks = await asyncio.gather(*(self._read(cursor, jobs.get(cursor.handle.key, [])) for cursor in cursors))
        return [chunk for chunk in chunks if chunk.data]

    async def _read(self, cursor: Cursor, jobs: Sequence[JsonObject]) -> Chunk:
        data = b""
        job = await self._runs(jobs)
        if job and _STATES.get(job["status"]) is not JobState.PENDING:
            with contextlib.suppress(api.NotThere):
                data = await self._read_log(job, cursor.offset)
        return Chunk(cursor.handle.key, cursor.offset, data)

    async def _read_log(self, job: JsonObject, offset: int) -> bytes:
        """Returns what a job has written after so many bytes; asks for few lines where they reach back to there."""
        number = (job["cluster"], job["id"])
        anchor = self._anchors.pop(number, None)
        known = anchor if anchor is not None and anchor.offset <= offset else None
        begin, excerpt = None, b""
        for lines in log.LINES if known is not None else log.LINES[-1:]:
            excerpt = log.stream(await self._call(api.log, job, lines))
            begin = log.place(excerpt, known) if lines and known is not None else 0
            if begin is not None:
                break
        if newest := log.last_anchor(excerpt, begin or 0) or anchor:
            self._anchors[number] = newest
            if len(self._anchors) > _REMEMBERED:
                self._anchors.popitem(last=False)
        return excerpt[offset - (begin or 0) :]

    async def _runs(self, jobs: Sequence[JsonObject]) -> JsonObject | None:
        """Returns which of a key's jobs runs it, or ran it: of several, the others found it claimed."""
        if len(jobs) < 2:
            return jobs[0] if jobs else None
        for job in jobs:
            number = (job["cluster"], job["id"])
            if number not in self._has_begun and _STATES.get(job["status"]) is not JobState.PENDING:
                with contextlib.suppress(api.NotThere):
                    if log.has_begun(await self._call(api.log, job)):
                        self._has_begun.add(number)
            if number in self._has_begun:
                return job
        return next((job for job in jobs if not _is_final(job)), jobs[0])

    async def cancel(self, handles: Sequence[JobHandle]) -> None:
        """See :meth:`Driver.cancel`."""
        jobs = await self._jobs(handles)
        for handle in handles:
            mine = jobs.get(handle.key, [])
            for job in mine:
                if not _is_final(job):
                    await self._call(api.cancel, job)
            if not mine and handle.cluster:
                await self._call(api.cancel_launch, handle.cluster)
            if not mine and handle.id != _MANAGED and (own := own_name(handle.key)) in await self._clusters([own]):
                # Still being made, for this job alone.
                await self._call(api.down, own)

    async def rest(self, handle: JobHandle, first: JobStatus) -> JobStatus | None:
        """See :meth:`Driver.rest`: where one machine fails, SkyPilot ends the others."""
        seen = (await self.look([handle]))[handle.key]
        if seen.is_alive:
            return None
        # Machines that were made for the job alone may be gone by now, and it with them.
        return first if seen.queue is None or first.state is not JobState.SUCCEEDED else seen.queue.status

    async def collect(
        self, handle: JobHandle, into: Path, leave_out: LeaveOut | None = None, intake: Intake | None = None
    ) -> list[Path]:
        """See :meth:`Driver.collect`."""
        while True:
            # Status before log: what a job has written is there when its end is known.
            jobs = (await self._jobs([handle])).get(handle.key, [])
            if not jobs:
                raise OutputsLost(f"SkyPilot does not know job {handle.key} any more, so its outputs are lost")
            job = await self._runs(jobs) or jobs[0]
            archive = log.outputs(await self._call(api.log, job))
            if archive is not None:
                return await self._transfer(extract_outputs, io.BytesIO(archive), into, leave_out, intake)
            if _is_final(job):
                return []
            await asyncio.sleep(_OUTPUTS_PAUSE)

    async def remove(self, handles: Sequence[JobHandle]) -> None:
        """See :meth:`Driver.remove`."""
        jobs = await self._jobs(handles)
        for handle in handles:
            if any(not _is_final(job) for job in jobs.get(handle.key, [])):
                raise ExecutorError(f"job {handle.key} is still running: cancel it before it is removed")
            if handle.id == own_name(handle.key):
                await self._call(api.down, handle.id)

    async def survey(self) -> list[JobHandle]:
        """See :meth:`Driver.survey`. Of clusters that others share nothing is known."""
        every = await self._call(api.managed_jobs, unended=True)
        managed = [job for job in every if job["name"].startswith(own_name(""))]
        own = [name for name in await self._clusters(None) if name.startswith(own_name(""))]
        found = await asyncio.gather(*(self._job(name.removeprefix(own_name("")), name) for name in own))
        return [_handle(job) for job in [*managed, *found] if job and not _is_final(job)]

    async def labels(self, handles: Sequence[JobHandle]) -> dict[str, Mapping[str, str]]:
        """See :meth:`Driver.labels`. SkyPilot keeps none, so a job writes them into its log when it begins."""
        jobs = await self._jobs(handles)
        found = await asyncio.gather(*(self._labels(jobs.get(handle.key, [])) for handle in handles))
        return {handle.key: each for handle, each in zip(handles, found, strict=True)}

    async def _labels(self, jobs: Sequence[JsonObject]) -> dict[str, str]:
        for job in jobs:
            with contextlib.suppress(api.NotThere):
                if found := log.labels(await self._call(api.log, job)):
                    return found
        return {}

    async def close(self) -> None:
        """See :meth:`Driver.close`."""
        self._threads.close()

    async def _clusters(self, names: Sequence[str] | None) -> dict[str, str]:
        return await self._call(api.clusters, names)

    async def _job(self, key: str, cluster: str) -> JsonObject | None:
        handle = JobHandle(key, SkypilotExecutor.kind, cluster or _MANAGED)
        jobs = (await self._jobs([handle])).get(key)
        return jobs[0] if jobs else None

    async def _jobs(self, handles: Sequence[JobHandle]) -> dict[str, list[JsonObject]]:
        """Returns jobs by key, the oldest first: several where a launch was made again."""
        queues = sorted({_queue_of(handle) for handle in handles})
        found = await asyncio.gather(*(self._queue(queue) for queue in queues))
        known: dict[str, list[JsonObject]] = {}
        wanted = {(own_name(handle.key), _queue_of(handle)): handle.key for handle in handles}
        for queue, jobs in zip(queues, found, strict=True):
            for job in sorted(jobs, key=lambda job: int(job["id"])):
                if key := wanted.get((job["name"], queue)):
                    known.setdefault(key, []).append(job)
        return known

    async def _queue(self, queue: str) -> list[JsonObject]:
        if queue == _MANAGED:
            return await self._call(api.managed_jobs)
        try:
            return await self._call(api.cluster_jobs, queue)
        except api.NotThere:
            return []


def _queue_of(handle: JobHandle) -> str:
    return handle.id or own_name(handle.key)


def _launch(request: Request) -> str:
    """Asks for the launch of a job; returns the request's id. The archive stays a while: others may launch it too."""
    folder = settings.bundles_folder()
    bundle = folder / f"{request.key}.tar"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another launch deletes it
                if time.time() - old.stat().st_mtime > _BUNDLES_KEPT:
                    old.unlink()
        descriptor, new = tempfile.mkstemp(dir=folder, suffix=".new")
        with os.fdopen(descriptor, "wb") as file:
            write_bundle(request, file)
        os.replace(new, bundle)
    except OSError as error:
        raise SubmitError(f"cannot write {bundle}: {error}") from error
    return api.launch(request.payload, request.values)


def _handle(job: Mapping[str, object]) -> JobHandle:
    cluster = str(job["cluster"]) or _MANAGED
    key = str(job["name"]).removeprefix(own_name(""))
    return JobHandle(key, SkypilotExecutor.kind, cluster, submitted_at=float(str(job["submitted_at"])))


def _is_final(job: Mapping[str, object]) -> bool:
    return _STATES.get(str(job["status"]), JobState.FAILED).is_final


def _see(job: JsonObject | None, handle: JobHandle, at: float) -> Seen:
    if job is None:
        return Seen(at, note=f"SkyPilot lists no job {handle.key}")
    word = job["status"]
    if word in _FAILURES:
        kind, reason = _FAILURES[word]
        return Seen(at, queue=Fact(JobStatus(JobState.FAILED, None, kind, f"{word}: {reason}")))
    state = _STATES.get(word)
    if state is None:
        return Seen(at, trouble=f"SkyPilot calls job {handle.key} {word}, which this release does not know")
    failure = FailureKind.CANCELLED if state is JobState.CANCELLED else None
    code = 0 if state is JobState.SUCCEEDED else None
    return Seen(at, queue=Fact(JobStatus(state, code, failure, word if state is JobState.PENDING else "")))
