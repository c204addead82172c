"""Ends pods so that their log and their status stay, and clears away what was kept long enough."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from nemo_airflow.executors.kubernetes import manifest
from nemo_airflow.executors.kubernetes.cluster import Cluster, Refused
from nemo_airflow.executors.kubernetes.pod import annotation, ended_at, is_finished, is_over, name_of, node_of, uid_of
from nemo_airflow.executors.kubernetes.pods import Pods
from nemo_airflow.executors.kubernetes.record import Records, age_of, end_of
from nemo_airflow.job import JobHandle, JobStatus

_SWEPT_AT_ONCE = 50
_TOMBSTONE_TTL = 86400.0


class Ending:
    """Ends the pods of one namespace.

    Args:
        cluster: The cluster.
        pods: What is known of its pods.
        records: The Secrets of its jobs.
    """

    def __init__(self, cluster: Cluster, pods: Pods, records: Records) -> None:
        self._cluster = cluster
        self._pods = pods
        self._records = records

    async def end(
        self, pods: Sequence[Mapping[str, Any]], handle: JobHandle, status: JobStatus, notes: Mapping[str, str]
    ) -> None:
        """Ends the pods of a job, as far as they have not ended.

        A pod that has a node is told that its time is over: its node asks the job to end, kills it after
        its grace period, and keeps log and status. One without a node has nothing to keep; it is
        deleted, and the job's Secret keeps the status.

        Args:
            pods: Those of the job's pods that are to end.
            handle: The job.
            status: What the job will have come to.
            notes: Annotations to leave on the pods.
        """
        alive = [pod for pod in pods if not is_over(pod)]
        change = {"metadata": {"annotations": dict(notes)}, "spec": {"activeDeadlineSeconds": 1}}
        nowhere = [pod for pod in alive if not node_of(pod)]
        if nowhere and len(nowhere) == len(pods):
            await self._records.keep_end(handle.key, handle, status)
        await asyncio.gather(
            *(self._delete(pod) for pod in nowhere),
            *(self.change(pod, change) for pod in alive if node_of(pod)),
        )

    async def change(self, pod: Mapping[str, Any], change: Mapping[str, Any]) -> None:
        """Changes a pod, if it is there."""
        name = name_of(pod)
        try:
            self._pods.note(await self._cluster.request("PATCH", f"pods/{name}", f"change pod {name}", body=change))
        except Refused as error:
            if error.code != 404:
                raise

    async def remove(self, key: str, pods: Sequence[Mapping[str, Any]]) -> None:
        """Deletes all that is left of a job that has ended."""
        await asyncio.gather(*(self._delete(pod, at_once=True) for pod in pods), self._records.delete(key))

    async def _delete(self, pod: Mapping[str, Any], *, at_once: bool = False) -> None:
        name = name_of(pod)
        body: dict[str, Any] = {"preconditions": {"uid": uid_of(pod)}, "propagationPolicy": "Background"}
        if at_once:
            body["gracePeriodSeconds"] = 0
        try:
            await self._cluster.request("DELETE", f"pods/{name}", f"delete pod {name}", body=body)
        except Refused as error:
            if error.code not in (404, 409):
                raise
        self._pods.forget(name)

    async def sweep(self, pods: Sequence[Mapping[str, Any]]) -> None:
        """Deletes pods and emptied Secrets that were kept for their time."""
        now = time.time()
        old = [pod for pod in pods if is_finished(pod) and _is_old(pod, now)]
        await asyncio.gather(*(self._delete(pod, at_once=True) for pod in old[:_SWEPT_AT_ONCE]))
        for secret in await self._records.all():
            if end_of(secret) and age_of(secret, now) > _TOMBSTONE_TTL:
                await self._records.delete(name_of(secret), uid_of(secret))


def _is_old(pod: Mapping[str, Any], now: float) -> bool:
    ttl = annotation(pod, manifest.TTL)
    return bool(ttl) and now - ended_at(pod) > float(ttl)
