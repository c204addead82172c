"""Knows all pods of our jobs in one namespace: listed once, then kept up with by one watch.

The watch has no task of its own: what it has brought is taken in when somebody asks, so a look
costs no request, however many jobs there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nemo_airflow.exceptions import AccessRefused
from nemo_airflow.executors.kubernetes import manifest
from nemo_airflow.executors.kubernetes.cluster import Cluster, Refused
from nemo_airflow.executors.kubernetes.pod import (
    IMAGE_ERROR,
    annotation,
    created_at,
    image_error,
    label,
    name_of,
    trim,
    uid_of,
)
from nemo_airflow.job import JobHandle, JsonObject

if TYPE_CHECKING:
    import aiohttp

SELECTOR = f"{manifest.MANAGED_BY}={manifest.OURS}"

_WATCH_FOR = 60
"""Seconds after which the API server ends a watch, to be begun again: a connection that died is noticed by then."""

_KEYS_A_LIST = 40
"""Keys in one list request: its address has a limit."""


class Pods:
    """The pods in a cluster's namespace.

    Args:
        cluster: The cluster.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._pods: dict[str, JsonObject] = {}
        self._version = ""
        self._watch: aiohttp.ClientResponse | None = None
        self._scope = contextlib.AsyncExitStack()
        self._begun = 0.0
        self._rest = b""
        self._lock = asyncio.Lock()

    async def look(self) -> Mapping[str, JsonObject]:
        """Returns the pods as last heard of, by name, each with what :func:`trim` keeps.

        Raises:
            BackendUnavailable: The API server cannot be reached.
        """
        async with self._lock:
            if self._watch is not None and not self._take():
                await self._leave()
            if self._watch is None:
                await self._begin()
            return self._pods

    async def of(self, keys: Sequence[str]) -> dict[str, list[JsonObject]]:
        """Returns the pods of some jobs as they are now; see :func:`jobs`."""
        found: dict[str, JsonObject] = {}
        for start in range(0, len(keys), _KEYS_A_LIST):
            some = ",".join(keys[start : start + _KEYS_A_LIST])
            listed = await self._list({"labelSelector": f"{SELECTOR},{manifest.KEY} in ({some})"})
            found.update({name_of(pod): self.note(pod) for pod in listed["items"]})
        return jobs(found)

    async def all(self) -> dict[str, list[JsonObject]]:
        """Returns the pods of all jobs as they are now; see :func:`jobs`."""
        listed = await self._list({"labelSelector": SELECTOR})
        return jobs({name_of(pod): self.note(pod) for pod in listed["items"]})

    def handle(self, first: Mapping[str, Any]) -> JobHandle:
        """Returns the handle of the job whose first pod this is."""
        key = label(first, manifest.KEY)
        return JobHandle(key, manifest.KIND, uid_of(first), self._cluster.name, created_at(first))

    def note(self, pod: Mapping[str, Any]) -> JsonObject:
        """Takes in a pod as an answer of the API server has it."""
        pod = self._remember_image_error(trim(pod))
        self._pods[name_of(pod)] = pod
        return pod

    def forget(self, name: str) -> None:
        """Drops a pod that was deleted."""
        self._pods.pop(name, None)

    async def close(self) -> None:
        """Ends the watch."""
        await self._leave()

    def _remember_image_error(self, pod: JsonObject) -> JsonObject:
        known = self._pods.get(name_of(pod))
        message = image_error(pod)
        if not message and known and known["metadata"]["uid"] == pod["metadata"]["uid"]:
            message = annotation(known, IMAGE_ERROR)
        if message:
            annotations = {**(pod["metadata"].get("annotations") or {}), IMAGE_ERROR: message}
            pod["metadata"] = {**pod["metadata"], "annotations": annotations}
        return pod

    async def _begin(self) -> None:
        """Begins a watch: where the last one ended, or after a list when that is too long ago."""
        if not self._version:
            await self._relist()
        try:
            await self._open_watch()
        except Refused as error:
            if error.code != 410:
                raise
            await self._relist()
            await self._open_watch()

    async def _relist(self) -> None:
        # Version 0: from the API server's own memory, which is as good as a watch.
        listed = await self._list({"labelSelector": SELECTOR, "resourceVersion": "0"})
        kept = self._pods
        self._pods = {}
        for pod in listed["items"]:
            name = pod["metadata"]["name"]
            if name in kept:
                self._pods[name] = kept[name]
            self.note(pod)
        self._version = listed["metadata"]["resourceVersion"]

    async def _list(self, query: Mapping[str, str]) -> JsonObject:
        with _right_to("list", self._cluster.namespace):
            return await self._cluster.request("GET", "pods", "list pods", query=query)

    async def _open_watch(self) -> None:
        query = {
            "watch": "true",
            "labelSelector": SELECTOR,
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_FOR),
        }
        with _right_to("watch", self._cluster.namespace):
            self._watch = await self._scope.enter_async_context(
                self._cluster.stream("GET", "pods", "watch pods", query=query)
            )
        self._begun = time.monotonic()
        self._rest = b""

    async def _leave(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        await self._scope.aclose()

    def _take(self) -> bool:
        """Takes in what the watch has brought; returns whether it goes on."""
        import aiohttp

        assert self._watch is not None  # noqa: S101
        content = self._watch.content
        try:
            *lines, self._rest = (self._rest + content.read_nowait()).split(b"\n")
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False
        for line in lines:
            if not self._take_event(json.loads(line)):
                self._version = ""
                return False
        return not content.at_eof() and time.monotonic() - self._begun < _WATCH_FOR + 15

    def _take_event(self, event: Mapping[str, Any]) -> bool:
        """Takes in one event; returns False when the watch has fallen behind too far."""
        kind, item = event["type"], event["object"]
        if kind == "ERROR":
            return False
        self._version = item["metadata"]["resourceVersion"]
        if kind == "DELETED":
            self.forget(item["metadata"]["name"])
        elif kind != "BOOKMARK":
            self.note(item)
        return True


@contextlib.contextmanager
def _right_to(verb: str, namespace: str) -> Iterator[None]:
    try:
        yield
    except Refused as error:
        if error.code != 403:
            raise
        raise AccessRefused(
            f"no pod of namespace {namespace} can be looked at: {error.detail}; give the account a Role that may "
            f"{verb} pods, as in docs/backends/kubernetes.md"
        ) from error


def jobs(pods: Mapping[str, JsonObject]) -> dict[str, list[JsonObject]]:
    """Returns the pods of each job, by the job's key, in the order of their ranks."""
    by_key: dict[str, list[JsonObject]] = {}
    for pod in pods.values():
        by_key.setdefault(label(pod, manifest.KEY), []).append(pod)
    for group in by_key.values():
        group.sort(key=lambda pod: int(label(pod, manifest.RANK) or 0))
    return by_key
