"""Brings one job into the cluster, so that any step can be the last one of a process that was killed.

The pods of a group are made from the last to the first: once the first pod is there, all are. Names
are the job's key, so whatever another process has made already is found instead of made again.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from nemo_airflow.exceptions import BackendUnavailable, NotStarted, SubmitError
from nemo_airflow.executors.base import Request
from nemo_airflow.executors.bundle import archive_files
from nemo_airflow.executors.kubernetes import manifest
from nemo_airflow.executors.kubernetes.cluster import Cluster, Refused
from nemo_airflow.executors.kubernetes.ending import Ending
from nemo_airflow.executors.kubernetes.pod import annotation, is_over, is_running, label, name_of, python_of, uid_of
from nemo_airflow.executors.kubernetes.pods import Pods, jobs
from nemo_airflow.executors.kubernetes.record import Records, contents, end_of, owner_of
from nemo_airflow.executors.kubernetes.status import job_fact, missing_pods
from nemo_airflow.executors.kubernetes.transfer import send_file
from nemo_airflow.job import FailureKind, JobHandle, JobState, JobStatus, JsonObject
from nemo_airflow.progress import Progress

_log = logging.getLogger(__name__)

_SECRET_LIMIT = 1 << 20
_LOOK_EVERY = 0.2
_ATTEMPTS = 5
_STARTS_WITHIN = 2.0
"""Seconds for which a pod's start is waited for in any case: where there is room it takes no longer."""

_STUCK_FOR = 30.0
"""Seconds for which what a pod waits for may yet come, though its node says that it does not."""


class Submission:
    """Submits a job.

    Args:
        request: The job.
        cluster: The cluster.
        pods: What is known of its pods.
        records: The Secrets of its jobs.
        ending: Ends what cannot be submitted.
    """

    def __init__(self, request: Request, cluster: Cluster, pods: Pods, records: Records, ending: Ending) -> None:
        self._request = request
        self._cluster = cluster
        self._pods = pods
        self._records = records
        self._ending = ending
        self._manifests: list[JsonObject] = list(request.payload["pods"])
        self._upload = annotation(self._manifests[0], manifest.PACKAGE) != ""

    async def run(self) -> JobHandle:
        """Returns the job's handle, once the job needs nothing more from here.

        Raises:
            SubmitError: The cluster refuses the job, or a pod that waits for its package never starts.
            NotStarted: The package cannot be sent yet, and the request does not wait.
            BackendUnavailable: The API server cannot be reached; the same call can be made again.
        """
        await asyncio.to_thread(archive_files, self._request.archives)
        data = await asyncio.to_thread(contents, self._request, with_package=not self._upload)
        if (size := len(data[0]) * 3 // 4) > _SECRET_LIMIT:
            raise SubmitError(_too_large(self._request, size, with_package=not self._upload))
        values = {
            manifest.secret_key(name): base64.b64encode(value.encode("utf-8", "surrogatepass")).decode()
            for name, value in self._request.values.items()
        }
        secrets = [
            {**secret, "data": {manifest.bundle_file(part): data[part], **({} if part else values)}}
            for part, secret in enumerate(self._request.payload["secrets"])
        ]
        for _ in range(_ATTEMPTS):
            if handle := await self._try(secrets):
                return handle
        raise BackendUnavailable(f"job {self._request.key} is being deleted: try again later")

    async def _try(self, secrets: Sequence[JsonObject]) -> JobHandle | None:
        """Returns the handle; None if objects of an earlier job were in the way and have been removed."""
        key = self._request.key
        made: list[JsonObject] = []
        try:
            new = await self._records.create(secrets[0])
        except Refused as error:
            raise _refusal(key, error) from error
        try:
            owner = ""
            found = new or await self._records.find(key)
            if found is None:
                return None
            if not new:
                if end := end_of(found):
                    return end[0]
                owner = owner_of(found)
                if owner and not await self._is_there(owner):
                    # What is left of a job that was removed: it would be taken away below the new pod.
                    await self._records.delete(key, uid_of(found))
                    return None
            for part in secrets[1:]:
                if not await self._make_part(part, found):
                    return None
            pods = await self._make_pods(made)
            if None in pods:
                return None
            first, *_ = present = [pod for pod in pods if pod is not None]
            if not owner:
                await self._records.give_to(key, first)
        except Refused as error:
            await self._ending.remove(key, made)
            raise _refusal(key, error) from error
        if self._upload and not annotation(first, manifest.SUBMITTED):
            if any(map(is_over, present)):
                await self._ending.remove(key, present)  # they have waited in vain for an earlier submit
                return None
            await self._bring_package()
        return self._pods.handle(first)

    async def _make_part(self, part: JsonObject, record: JsonObject) -> bool:
        """Makes a further Secret, owned by the first; returns False if one of an earlier job was in the way."""
        owner = {"apiVersion": "v1", "kind": "Secret", "name": name_of(record), "uid": uid_of(record)}
        if await self._records.create({**part, "metadata": {**part["metadata"], "ownerReferences": [owner]}}):
            return True
        found = await self._records.find(name_of(part))
        if found is not None and owner_of(found) != uid_of(record):
            await self._records.delete(name_of(part), uid_of(found))
            found = None
        return found is not None

    async def _make_pods(self, made: list[JsonObject]) -> list[JsonObject | None]:
        """Makes the pods that are not there yet, the first one last; adds those to ``made``."""
        first, *others = self._manifests
        results = await asyncio.gather(*(self._make_pod(pod, made) for pod in others), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [
            await self._make_pod(first, made),
            *(result for result in results if not isinstance(result, BaseException)),
        ]

    async def _make_pod(self, pod: JsonObject, made: list[JsonObject]) -> JsonObject | None:
        """Returns the pod, made now or before; None if it was deleted meanwhile."""
        name = name_of(pod)
        try:
            new = self._pods.note(await self._cluster.request("POST", "pods", f"create pod {name}", body=pod))
        except Refused as error:
            if error.reason != "AlreadyExists":
                raise
        else:
            made.append(new)
            return new
        found = await self._get(name)
        if found is not None and label(found, manifest.KEY) != self._request.key:
            raise SubmitError(f"pod {name} exists and does not belong to job {self._request.key}: delete it")
        return found

    async def _get(self, name: str) -> JsonObject | None:
        try:
            return self._pods.note(await self._cluster.request("GET", f"pods/{name}", f"get pod {name}"))
        except Refused as error:
            if error.code == 404:
                return None
            raise

    async def _is_there(self, uid: str) -> bool:
        pod = await self._get(name_of(self._manifests[0]))
        return pod is not None and uid_of(pod) == uid

    async def _bring_package(self) -> None:
        """Sends the package into each pod, as soon as all have started."""
        pods = await self._wait_for_start()
        if pods:
            # In their order: a pod starts its job when the last is there.
            for archive, path in await asyncio.to_thread(archive_files, self._request.archives):
                for pod in pods:
                    target = f"{manifest.BASE}/job/{archive.name}"
                    progress = Progress(f"{archive.name} sent to pod {name_of(pod)}", _log.info, archive.size)
                    await send_file(self._cluster, name_of(pod), python_of(pod), path, target, progress)
        await self._ending.change(self._manifests[0], {"metadata": {"annotations": {manifest.SUBMITTED: "true"}}})

    async def _wait_for_start(self) -> list[JsonObject]:
        """Returns the pods once all run, or none when the job was cancelled before that."""
        key = self._request.key
        begun = stuck_since = time.monotonic()
        while True:
            pods = jobs(await self._pods.look()).get(key)
            if pods is None:
                raise SubmitError(f"the pods of job {key} were deleted before they had started")
            fact = job_fact(pods, time.time())
            status = fact.status if fact is not None else JobStatus(JobState.LOST, reason=missing_pods(pods))
            if status.state is JobState.CANCELLED:
                return []
            if fact is None or fact.stuck is None:
                stuck_since = time.monotonic()
            elif fact.held or time.monotonic() - stuck_since > _STUCK_FOR:
                status = JobStatus(JobState.FAILED, None, fact.stuck, status.reason)
            if status.state.is_final:
                await self._ending.remove(key, pods)
                raise SubmitError(f"job {key} cannot start: {status.reason}", status.failure or FailureKind.USER_ERROR)
            if len(pods) == len(self._manifests) and all(map(is_running, pods)):
                return pods
            if not self._request.waits and time.monotonic() - begun > _STARTS_WITHIN:
                raise NotStarted(self._pods.handle(pods[0]))
            await asyncio.sleep(_LOOK_EVERY)


def is_submitted(pods: Sequence[Mapping[str, Any]]) -> bool:
    """Returns whether a job is all there: its first pod, which is made last, and its package."""
    first = next((pod for pod in pods if label(pod, manifest.RANK) == "0"), None)
    return first is not None and (
        not annotation(first, manifest.PACKAGE) or bool(annotation(first, manifest.SUBMITTED))
    )


def _too_large(request: Request, size: int, *, with_package: bool) -> str:
    """Returns the message for a job that does not fit into a Secret: what makes it so large, and what to do."""
    sizes = {f"{name} (the config, the environment)": len(text.encode()) for name, text in request.files.items()}
    if with_package:
        sizes |= {f"the archive {archive.name}": archive.size for archive in request.archives}
    name, largest = max(sizes.items(), key=lambda item: item[1])
    return (
        f"job {request.key} has {size} bytes, compressed, and a Secret of Kubernetes holds {_SECRET_LIMIT}: "
        f"the largest is {name} with {largest} bytes; put large values into a file of the package or of a volume, "
        "and give its path"
    )


def _refusal(key: str, error: Refused) -> SubmitError:
    kind = FailureKind.QUOTA if "exceeded quota" in error.detail else FailureKind.USER_ERROR
    return SubmitError(f"the cluster refuses job {key}: {error.detail}", kind)
