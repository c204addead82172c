"""Talks to one namespace of a cluster about many jobs at once."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from nemo_airflow.exceptions import BackendUnavailable, ExecutorError, OutputsLost
from nemo_airflow.executors.base import Chunk, Cursor, Driver, Executor, LeaveOut, Request
from nemo_airflow.executors.finding import Finding
from nemo_airflow.executors.folder import status_of_end
from nemo_airflow.executors.inside import command_inside
from nemo_airflow.executors.intake import Intake
from nemo_airflow.executors.kubernetes import manifest
from nemo_airflow.executors.kubernetes.access import Access
from nemo_airflow.executors.kubernetes.cluster import Cluster, Refused, ask_again
from nemo_airflow.executors.kubernetes.ending import Ending
from nemo_airflow.executors.kubernetes.entry import enter_pod
from nemo_airflow.executors.kubernetes.examination import examine_cluster
from nemo_airflow.executors.kubernetes.logs import PodLog, Reading
from nemo_airflow.executors.kubernetes.outputs import Outputs
from nemo_airflow.executors.kubernetes.pod import (
    annotation,
    container_end,
    has_started,
    image_digest,
    is_finished,
    is_running,
    is_unsettled,
    label,
    line,
    name_of,
    node_of,
    python_of,
    settled,
    uid_of,
)
from nemo_airflow.executors.kubernetes.pods import Pods, jobs
from nemo_airflow.executors.kubernetes.record import Records, age_of, end_of
from nemo_airflow.executors.kubernetes.status import (
    STILL_CREATED,
    dumps,
    group_status,
    is_leaving,
    job_fact,
    missing_pods,
    node_count,
    pod_fact,
)
from nemo_airflow.executors.kubernetes.submission import Submission, is_submitted
from nemo_airflow.executors.kubernetes.transfer import release
from nemo_airflow.executors.pace import Pace
from nemo_airflow.executors.seen import Fact, Seen
from nemo_airflow.job import FailureKind, JobHandle, JobState, JobStatus, JsonObject
from nemo_airflow.terminal import Terminal

T = TypeVar("T")
R = TypeVar("R")

_ENDS_WITHIN = 90.0
"""Seconds within which the API server knows that a container has ended, also from a node that is very busy."""

_AT_ONCE = 16
"""Requests about single pods that are under way at one time."""

_READS_A_SECOND = 40.0
_READS_AT_ONCE = 80
"""Logs of running jobs that are read; with more jobs than that, each log is read less often."""

_ORPHANED = 60.0
_BY_USER = {manifest.CANCELLED: "true"}


class KubernetesDriver(Driver):
    """One namespace of one cluster.

    Args:
        access: How the cluster is reached.
    """

    poll_interval = (0.1, 15.0)

    def __init__(self, access: Access) -> None:
        self._cluster = Cluster(access)
        self._pods = Pods(self._cluster)
        self._records = Records(self._cluster)
        self._ending = Ending(self._cluster, self._pods, self._records)
        self._logs: dict[str, PodLog] = {}
        self._reading = Reading()
        self._pace = Pace(_READS_A_SECOND, _READS_AT_ONCE)
        self._requests = asyncio.Semaphore(_AT_ONCE)

    async def examine(self, executor: Executor) -> list[Finding]:
        """See :meth:`Driver.examine`."""
        return await examine_cluster(self._cluster)

    async def image_digest(self, executor: Executor, handle: JobHandle | None = None) -> str | None:
        """See :meth:`Driver.image_digest`: as the node says it; of the next job's image nobody tells."""
        if handle is None:
            return None
        pods = (await self._pods.of([handle.key])).get(handle.key)
        return image_digest(pods[0]) if pods and _is_of(handle, pods) else None

    async def enter(self, handle: JobHandle, command: Sequence[str], executor: Executor, terminal: Terminal) -> int:
        """See :meth:`Driver.enter`: into the first of its pods."""
        pods = (await self._pods.of([handle.key])).get(handle.key)
        if pods is None or not _is_of(handle, pods) or not is_running(pods[0]):
            raise ExecutorError(f"job {handle.key} has no pod that runs")
        inside = command_inside(python_of(pods[0]), f"{manifest.BASE}/job", command)
        return await enter_pod(self._cluster, name_of(pods[0]), inside, terminal)

    async def submit(self, request: Request) -> JobHandle:
        """See :meth:`Driver.submit`."""
        return await Submission(request, self._cluster, self._pods, self._records, self._ending).run()

    async def find(self, keys: Sequence[str]) -> dict[str, JobHandle]:
        """See :meth:`Driver.find`."""
        found = await self._pods.of(keys)
        handles = {key: self._pods.handle(pods[0]) for key, pods in found.items() if is_submitted(pods)}
        missing = [key for key in keys if key not in found]
        for key, secret in zip(missing, await self._each(self._records.find, missing), strict=True):
            if secret and (end := end_of(secret)):
                handles[key] = end[0]
        return handles

    # Watching

    async def look(self, handles: Sequence[JobHandle]) -> dict[str, Seen]:
        """See :meth:`Driver.look`."""
        if not handles:
            return {}
        at = time.monotonic()
        known = jobs(await self._pods.look())
        missing = [handle.key for handle in handles if not _is_of(handle, known.get(handle.key))]
        if missing:
            known = {**known, **await self._pods.of(missing)}
        seen = await self._each(lambda handle: self._see_or_say_why(handle, known.get(handle.key), at), handles)
        return {handle.key: each for handle, each in zip(handles, seen, strict=True)}

    async def _see_or_say_why(self, handle: JobHandle, pods: list[JsonObject] | None, at: float) -> Seen:
        try:
            return await self._see(handle, pods, at)
        except ExecutorError as error:  # of a request about this job alone
            return Seen(at, trouble=str(error))

    async def _see(self, handle: JobHandle, pods: list[JsonObject] | None, at: float) -> Seen:
        if pods is None or not _is_of(handle, pods):
            return await self._see_record(handle, at)
        pods = [await self._settle(pod) if is_unsettled(pod) else pod for pod in pods]
        fact = job_fact(pods, time.time())
        if fact is None:
            return await self._see_record(handle, at, missing_pods(pods))
        if fact.stuck:
            fact = dataclasses.replace(fact, status=await self._with_events(fact.status, pods))
        if not fact.status.state.is_final:
            await self._introduce(pods)
        return Seen(at, queue=fact)

    async def give_up(self, handle: JobHandle, status: JobStatus) -> None:
        """See :meth:`Driver.give_up`."""
        pods = (await self._pods.of([handle.key])).get(handle.key)
        if alive := [pod for pod in pods or () if not is_leaving(pod)]:
            await self._ending.end(alive, handle, status, {manifest.VERDICT: dumps(status)})

    async def sweep(self) -> None:
        """See :meth:`Driver.sweep`."""
        await self._ending.sweep(list((await self._pods.look()).values()))

    async def _with_events(self, status: JobStatus, pods: Sequence[JsonObject]) -> JobStatus:
        """Returns the status of a job that did not start with what only the events of its pods say."""
        if not status.reason.endswith(STILL_CREATED):
            return status
        selector = f"type=Warning,involvedObject.uid={uid_of(pods[0])}"
        try:
            listed = await self._cluster.request("GET", "events", "list events", query={"fieldSelector": selector})
        except Refused:  # no right to: the job's end is known all the same
            return status
        said = [line(event.get("message")) for event in listed["items"] if event.get("reason") != "MissingClusterDNS"]
        return dataclasses.replace(status, reason=": ".join((status.reason, *said[-1:])))

    async def _settle(self, pod: JsonObject) -> JsonObject:
        """Returns an unsettled pod with how its runner has ended, where that can be told."""
        end = await PodLog(self._cluster, name_of(pod)).peek_end()
        return self._pods.note(settled(pod, int(end["exit_code"]))) if end else pod

    async def _see_record(self, handle: JobHandle, at: float, reason: str = "") -> Seen:
        """Returns what is known of a job whose pods are not there, or not all of them."""
        secret = await self._records.find(handle.key)
        end = end_of(secret) if secret else None
        if end and handle.id in ("", end[0].id):
            return Seen(at, queue=Fact(end[1]))
        gone = f"there is no pod of the job in namespace {self._cluster.namespace}: it was deleted"
        return Seen(at, note=reason or gone)

    async def _introduce(self, pods: Sequence[JsonObject]) -> None:
        """Tells the other pods of a group where the first one is."""
        address = pods[0]["status"].get("podIP")
        if address and label(pods[0], manifest.RANK) == "0":
            for pod in pods[1:]:
                if not annotation(pod, manifest.MASTER):
                    await self._ending.change(pod, {"metadata": {"annotations": {manifest.MASTER: address}}})

    # Reading

    async def read(self, cursors: Sequence[Cursor]) -> list[Chunk]:
        """See :meth:`Driver.read`."""
        if not cursors:
            return []
        looked = await self._pods.look()
        known = jobs(looked)
        self._forget_logs(looked)
        running: list[tuple[Cursor, PodLog]] = []
        ended: list[tuple[Cursor, PodLog]] = []
        for cursor in cursors:
            pods = known.get(cursor.handle.key)
            if pods and _is_of(cursor.handle, pods) and has_started(first := pods[0]):
                log = self._logs.setdefault(uid_of(first), PodLog(self._cluster, name_of(first), node_of(first)))
                has_ended = container_end(first) is not None
                if not has_ended or not log.is_read(cursor.offset):
                    (ended if has_ended else running).append((dataclasses.replace(cursor, ended=has_ended), log))
        # The end of a log is read at once: nobody asks again. Of the others those first that have waited longest.
        running.sort(key=lambda item: item[1].looked_at)
        return await self._reading.read(ended + running[: self._pace.take(len(running))])

    async def read_machine(self, handle: JobHandle, machine: int) -> bytes | None:
        """See :meth:`Driver.read_machine`: each pod has a log of its own, as long as it is there."""
        pods = (await self._pods.of([handle.key])).get(handle.key) or []
        pod = next((pod for pod in pods if label(pod, manifest.RANK) == str(machine)), None)
        if pod is None or not _is_of(handle, pods):
            raise ExecutorError(f"job {handle.key} has no pod of machine {machine} any more")
        return await PodLog(self._cluster, name_of(pod), node_of(pod)).whole()

    def _forget_logs(self, pods: Mapping[str, JsonObject]) -> None:
        if len(self._logs) > 2 * len(pods) + 100:
            there = {uid_of(pod) for pod in pods.values()}
            self._logs = {uid: log for uid, log in self._logs.items() if uid in there}

    # Ending

    async def cancel(self, handles: Sequence[JobHandle]) -> None:
        """See :meth:`Driver.cancel`."""
        found = await self._pods.of([handle.key for handle in handles])
        await self._each(lambda handle: self._cancel(handle, found.get(handle.key)), handles)

    async def _cancel(self, handle: JobHandle, pods: list[JsonObject] | None) -> None:
        status = JobStatus(JobState.CANCELLED, failure=FailureKind.CANCELLED)
        if pods is None:
            secret = await self._records.find(handle.key)
            if secret and not end_of(secret):  # a submit that has come no further, or is under way
                await self._records.keep_end(handle.key, handle, status)
            return
        fact = job_fact(pods, time.time())
        if fact is not None and fact.status.state.is_final and not fact.partial:
            return
        notes = _BY_USER
        if is_running(pods[0]) and (end := await PodLog(self._cluster, name_of(pods[0])).end_record()):
            # It only waits for somebody to fetch its outputs: that ends now, and the job ended as it did.
            status = status_of_end(end)
            notes = {manifest.VERDICT: dumps(status)}
        await self._ending.end(pods, self._pods.handle(pods[0]), status, notes)

    async def remove(self, handles: Sequence[JobHandle]) -> None:
        """See :meth:`Driver.remove`."""
        found = await self._pods.of([handle.key for handle in handles])
        for handle in handles:
            for pod in found.get(handle.key, ()):
                if not is_finished(pod) and not await self._has_ended(pod):
                    raise ExecutorError(f"job {handle.key} is still running: cancel it before it is removed")
        await self._each(lambda handle: self._ending.remove(handle.key, found.get(handle.key, ())), handles)

    async def survey(self) -> list[JobHandle]:
        """See :meth:`Driver.survey`."""
        found = await self._pods.all()
        unended = [pods for pods in found.values() if not all(map(is_finished, pods))]
        handles = [self._pods.handle(pods[0]) for pods in unended]
        for secret in await self._records.all():
            # A submit that came no further than its first step.
            if name_of(secret) not in found and not end_of(secret) and age_of(secret, time.time()) > _ORPHANED:
                handles.append(JobHandle(name_of(secret), manifest.KIND, "", self._cluster.name))
        return handles

    async def labels(self, handles: Sequence[JobHandle]) -> dict[str, Mapping[str, str]]:
        """See :meth:`Driver.labels`."""
        keys = [handle.key for handle in handles]
        objects = {key: pods[0] for key, pods in (await self._pods.of(keys)).items()}
        missing = [key for key in keys if key not in objects]
        secrets = zip(missing, await self._each(self._records.find, missing), strict=True)
        objects.update({key: secret for key, secret in secrets if secret})
        return {key: json.loads(annotation(item, manifest.LABELS) or "{}") for key, item in objects.items()}

    async def _has_ended(self, pod: JsonObject) -> bool:
        """Returns whether the pod's job has ended, though the pod may wait for somebody to fetch its outputs."""
        return container_end(pod) is not None or await PodLog(self._cluster, name_of(pod)).end_record() is not None

    # Collecting

    async def rest(self, handle: JobHandle, first: JobStatus) -> JobStatus | None:
        """See :meth:`Driver.rest`."""
        pods = (await self._pods.of([handle.key])).get(handle.key)
        if pods is None or not _is_of(handle, pods):
            return first
        status = first
        # By rank: the first may have been deleted since, but how it ended is known.
        others = [pod for pod in pods if label(pod, manifest.RANK) != "0"]
        if first.state is JobState.SUCCEEDED:
            status = group_status(others, await self._each(self._end_of, others), node_count(pods))
        if status.state is JobState.RUNNING:
            await self._introduce(pods)  # the first may have ended before it was seen to run
            return None
        if status.state is JobState.SUCCEEDED:
            return first
        if alive := [pod for pod in others if not is_leaving(pod)]:
            await self._ending.end(alive, handle, status, {manifest.VERDICT: dumps(status)})
        return status

    async def _end_of(self, pod: JsonObject) -> JobStatus:
        """Returns how the job has ended in a pod, which may still wait for its outputs to be fetched."""
        if has_started(pod) and (end := await PodLog(self._cluster, name_of(pod)).end_record()):
            status = status_of_end(end)
            if status.state is not JobState.CANCELLED:  # of that only the pod knows why
                return status
        return pod_fact(pod, time.time()).status

    async def collect(
        self, handle: JobHandle, into: Path, leave_out: LeaveOut | None = None, intake: Intake | None = None
    ) -> list[Path]:
        """See :meth:`Driver.collect`, and :meth:`Outputs.collect`."""
        pods = (await self._pods.of([handle.key])).get(handle.key)
        if pods is None or not _is_of(handle, pods):
            raise OutputsLost(f"the outputs of job {handle.key} are gone: its pod was deleted")
        return await Outputs(self._cluster, self._pods).collect(pods, into, leave_out, intake)

    async def release(self, handles: Sequence[JobHandle]) -> None:
        """See :meth:`Driver.release`."""
        await ask_again(_ENDS_WITHIN)(self._release, [handle.key for handle in handles])

    async def _release(self, keys: Sequence[str]) -> None:
        """Releases the pods of some jobs that still run; tells the others, where one cannot be told.

        Raises:
            BackendUnavailable: A pod was not told. The API server says so of one, too, that has ended just now.
        """
        trouble: BackendUnavailable | None = None
        for pods in (await self._pods.of(keys)).values():
            for pod in pods:
                if is_finished(pod) or not is_running(pod):
                    continue  # of a pod that was ended, the API server may say for long that its container runs
                try:
                    await release(self._cluster, name_of(pod), python_of(pod))
                except BackendUnavailable as error:
                    trouble = error
                except ExecutorError:  # it has ended meanwhile
                    continue
        if trouble is not None:
            raise trouble

    async def close(self) -> None:
        """See :meth:`Driver.close`."""
        self._reading.close()
        await self._pods.close()
        await self._cluster.close()

    async def _each(self, call: Callable[[T], Awaitable[R]], items: Iterable[T]) -> list[R]:
        """Makes a call for each item, a bounded number at once; returns the answers in their order."""

        async def bounded(item: T) -> R:
            async with self._requests:
                return await call(item)

        return await asyncio.gather(*map(bounded, items))


def _is_of(handle: JobHandle, pods: Sequence[Mapping[str, object]] | None) -> bool:
    """Returns whether the pods are those of the job, and not of another one that had the same key."""
    if not pods:
        return False
    first = pods[0]
    return label(first, manifest.RANK) != "0" or handle.id in ("", uid_of(first))
