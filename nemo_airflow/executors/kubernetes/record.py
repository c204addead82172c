"""The Secret of a job: carries the job into its pods, and keeps its end where no pod can."""

from __future__ import annotations

import base64
import gzip
import io
import json
import math
from collections.abc import Mapping
from typing import IO, Any, cast

from nemo_airflow.executors.base import Request
from nemo_airflow.executors.bundle import write_bundle
from nemo_airflow.executors.kubernetes.cluster import Cluster, Refused
from nemo_airflow.executors.kubernetes.manifest import PART
from nemo_airflow.executors.kubernetes.pod import annotation, created_at, name_of, uid_of
from nemo_airflow.executors.kubernetes.pods import SELECTOR
from nemo_airflow.job import JobHandle, JobStatus, JsonObject

END = "nemo-airflow/end"
"""Annotation of the Secret: handle and status of a job that has ended without a pod that could say so."""

_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""What to accept, so that the content of a Secret is never sent back."""


def contents(request: Request, *, with_package: bool) -> list[str]:
    """Returns what each Secret holds, as its manifest has it: of the bundle, the same bytes for the same request."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=6, mtime=0) as file:
        write_bundle(request, cast(IO[bytes], file), with_archives=with_package)
    data, parts = packed.getvalue(), len(request.payload["secrets"])
    size = math.ceil(len(data) / parts)
    return [base64.b64encode(data[size * part : size * (part + 1)]).decode() for part in range(parts)]


class Records:
    """The Secrets of the jobs in a cluster's namespace.

    Args:
        cluster: The cluster.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def create(self, secret: Mapping[str, Any]) -> JsonObject | None:
        """Makes a Secret, and returns its metadata; None when it is there already."""
        name = secret["metadata"]["name"]
        try:
            return await self._cluster.request(
                "POST", "secrets", f"create secret {name}", body=secret, accept=_METADATA
            )
        except Refused as error:
            if error.reason == "AlreadyExists":
                return None
            raise

    async def find(self, key: str) -> JsonObject | None:
        """Returns the metadata of a job's Secret, or None when there is none."""
        try:
            return await self._cluster.request("GET", f"secrets/{key}", f"get secret {key}", accept=_METADATA)
        except Refused as error:
            if error.code == 404:
                return None
            raise

    async def all(self) -> list[JsonObject]:
        """Returns the metadata of the Secrets of all jobs."""
        listed = await self._cluster.request(
            "GET", "secrets", "list secrets", query={"labelSelector": f"{SELECTOR},!{PART}"}, accept=_METADATA_LIST
        )
        return list(listed["items"])

    async def give_to(self, key: str, pod: Mapping[str, Any]) -> None:
        """Lets the Secret go when the pod does."""
        owner = {"apiVersion": "v1", "kind": "Pod", "name": name_of(pod), "uid": uid_of(pod)}
        await self._patch(key, {"metadata": {"ownerReferences": [owner]}})

    async def keep_end(self, key: str, handle: JobHandle, status: JobStatus) -> None:
        """Notes how the job ended, and empties the Secret; it stays until the job is removed."""
        text = json.dumps({"handle": handle.to_json(), "status": status.to_json()}, sort_keys=True)
        change = {"metadata": {"annotations": {END: text}, "ownerReferences": None}, "data": None}
        await self._patch(key, change)

    async def delete(self, key: str, uid: str | None = None) -> None:
        """Deletes the Secret, if it is there."""
        body = {"preconditions": {"uid": uid}} if uid else None
        try:
            await self._cluster.request("DELETE", f"secrets/{key}", f"delete secret {key}", body=body)
        except Refused as error:
            if error.code not in (404, 409):
                raise

    async def _patch(self, key: str, change: Mapping[str, Any]) -> None:
        try:
            await self._cluster.request(
                "PATCH", f"secrets/{key}", f"change secret {key}", body=change, accept=_METADATA
            )
        except Refused as error:
            if error.code != 404:
                raise


def end_of(secret: Mapping[str, Any]) -> tuple[JobHandle, JobStatus] | None:
    """Returns what the Secret says of the job's end, or None when it has not ended that way."""
    text = annotation(secret, END)
    if not text:
        return None
    data = json.loads(text)
    return JobHandle.from_json(data["handle"]), JobStatus.from_json(data["status"])


def owner_of(secret: Mapping[str, Any]) -> str:
    """Returns the uid of the pod that the Secret goes with, or an empty string."""
    owners = secret["metadata"].get("ownerReferences") or [{}]
    return str(owners[0].get("uid") or "")


def age_of(secret: Mapping[str, Any], now: float) -> float:
    """Returns for how many seconds the Secret has been there."""
    return now - created_at(secret)
