"""The calls to a Ray dashboard that jobs need, over HTTP: Ray's own client library is not used.

Paths and fields are those of ``ray/dashboard/modules/job/job_head.py`` (the Ray Jobs REST API) and of
``ray/dashboard/modules/state/state_head.py`` (the State API: nodes and log files).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import IO, Any
from urllib.parse import quote

import httpx

from nemo_airflow import tls
from nemo_airflow.exceptions import AccessRefused, BackendUnavailable, ExecutorError, SubmitError
from nemo_airflow.executors.outputs import file_of
from nemo_airflow.executors.ray.address import Endpoint
from nemo_airflow.job import FailureKind

DOWNLOAD_LIMIT = 3600
"""Seconds within which a file that Ray streams has to have arrived."""

_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
_BLOCK = 1 << 20
_TOO_MANY = 429
_VERIFY_SETTING = "REQUESTS_CA_BUNDLE, or the extra field 'verify' of its connection, to the file of the authority"
_NOT_FOUND = 404
_NO_FILE = "A file is not found at"
_NO_AGENT = "Agent for node id"
"""What the answer says of a file, or a node, that is not there: both come as a server's error."""


_MISSING = re.compile(r"(Job|Package) \S+ does not exist")
"""What Ray itself says with a 404; an ingress or a proxy says other words, whatever it is asked for."""

_TITLE = re.compile(r"<title>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_NO_LOGIN = (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
_FAULTS = (httpx.codes.BAD_REQUEST, httpx.codes.REQUEST_ENTITY_TOO_LARGE)
"""What is wrong with a job itself, that it is answered so."""

_RAISED = re.compile(r"[A-Za-z_.]+(Error|Exception): ")
_RELAYED = re.compile(r"Request failed with status code (\d+)")
"""With what status an agent answered, whose answer the dashboard passes on as an error of its own."""


class JobExists(Exception):
    """There is a job of that id already."""


class NoAgent(BackendUnavailable):
    """The agent of a node, which hands out its files, is not there: not yet, not any more, or it could not start."""


class RayApi:
    """Talks to one dashboard. Use it within one event loop.

    Any failure to reach the dashboard, or of the dashboard to reach its cluster, is BackendUnavailable, and so is an
    answer of another server in the dashboard's place; a login or a certificate that is refused is AccessRefused.

    Attributes:
        url: The dashboard's address.
        is_refused: Whether a call was refused: the connection may have other credentials by now.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.url = endpoint.url
        self.is_refused = False
        self._options: dict[str, Any] = {
            "base_url": endpoint.url,
            "headers": {"User-Agent": "nemo-airflow", **endpoint.headers},
            "cookies": dict(endpoint.cookies),
            "verify": tls.client_context(endpoint.verify),
            "timeout": _TIMEOUT,
        }
        self._client = httpx.AsyncClient(**self._options, limits=httpx.Limits(max_connections=32))

    async def job(self, key: str) -> dict[str, Any] | None:
        """Returns the details of a job, or None when there is none of that id."""
        response = await self._call("GET", f"/api/jobs/{quote(key)}")
        if _is_missing(response):
            return None
        details: dict[str, Any] = self._checked(response).json()
        return details if details.get("type") == "SUBMISSION" else None

    async def jobs(self) -> list[dict[str, Any]]:
        """Returns the details of all jobs that were submitted."""
        everything = self._checked(await self._call("GET", "/api/jobs/")).json()
        return [details for details in everything if details.get("type") == "SUBMISSION"]

    async def submit(self, call: Mapping[str, Any]) -> None:
        """Submits a job.

        Raises:
            JobExists: One of that id was submitted before.
            SubmitError: Ray refused it.
        """
        response = await self._call("POST", "/api/jobs/", json=call)
        if not response.is_success:
            reason = _reason(response)
            if "already exists" in reason:
                raise JobExists(call["submission_id"])
            relayed = _RELAYED.search(response.text)
            if response.status_code in _FAULTS or (relayed and int(relayed[1]) < httpx.codes.INTERNAL_SERVER_ERROR):
                raise SubmitError(f"Ray at {self.url} refused the job: {reason}")
        self._checked(response)

    async def stop(self, key: str) -> None:
        """Asks a job to end; one that has ended, or is not there, stays as it is."""
        response = await self._call("POST", f"/api/jobs/{quote(key)}/stop")
        if not _is_missing(response):
            self._checked(response)

    async def delete(self, key: str) -> None:
        """Forgets an ended job."""
        response = await self._call("DELETE", f"/api/jobs/{quote(key)}")
        if not _is_missing(response):
            self._checked(response)

    async def has_package(self, name: str) -> bool:
        """Returns whether the store has the archive, and keeps it there until the job has begun."""
        response = await self._call("GET", f"/api/packages/gcs/{name}")
        if _is_missing(response):
            return False
        self._checked(response)
        return True

    async def put_package(self, name: str, archive: IO[bytes], size: int) -> None:
        """Puts an archive into the store.

        Raises:
            SubmitError: It is larger than the cluster takes.
        """
        response = await self._call(
            "PUT", f"/api/packages/gcs/{name}", content=_blocks(archive), headers={"Content-Length": str(size)}
        )
        reason = "" if response.is_success else _reason(response)
        if "exceeds" in reason or response.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE:
            raise SubmitError(
                f"the code to ship is {size / 2**20:.0f} MiB, more than Ray at {self.url} takes: {reason}",
                kind=FailureKind.QUOTA,
            )
        self._checked(response)

    async def nodes(self) -> list[dict[str, Any]]:
        """Returns the nodes that the cluster has, or had: ``node_id``, ``state``, ``resources_total`` ..."""
        result = self._checked(await self._call("GET", "/api/v0/nodes", params={"limit": 10000})).json()
        found: list[dict[str, Any]] = result["data"]["result"]["result"]
        return found

    async def grows(self) -> bool:
        """Returns whether an autoscaler may add nodes."""
        status = self._checked(await self._call("GET", "/api/cluster_status")).json()
        report = ((status.get("data") or {}).get("clusterStatus") or {}).get("autoscalerReport") or {}
        # Without one, Ray lists each node as a type of its own, named by the node's id.
        types = report.get("nodeTypeMapping") or {}
        return any(name != f"node_{node}" for node, name in types.items())

    @contextlib.asynccontextmanager
    async def file(self, node: str, path: str, lines: int = -1) -> AsyncIterator[AsyncIterator[bytes] | None]:
        """Streams a file below a node's log folder as it is now, or its last lines.

        Args:
            node: The node's id.
            path: The file, relative to the log folder of the node.
            lines: How many lines from the end, or -1 for all.

        Returns:
            A context of the bytes in pieces; of None when there is no such file.

        Raises:
            NoAgent: The node does not answer.
        """
        request = self._client.build_request("GET", "/api/v0/logs/file", params=_file(node, path, lines))
        with self._errors():
            response = await self._open_client().send(request, stream=True)
        try:
            if response.is_success:
                yield self._pieces(self._checked(response))
            else:
                with self._errors():
                    await response.aread()
                self._check_no_file(response)
                yield None
        finally:
            await response.aclose()

    def download(self, node: str, path: str, into: Any) -> Any:
        """Passes a whole file as a stream to a function; blocks, so it is for a thread.

        Args:
            node: The node's id.
            path: The file, relative to the log folder of the node.
            into: Called with the open stream.

        Returns:
            What the function returned, or None when there is no such file.

        Raises:
            NoAgent: The node does not answer.
        """
        with (
            self._errors(),
            httpx.Client(**self._options) as client,
            client.stream("GET", "/api/v0/logs/file", params=_file(node, path, -1)) as response,
        ):
            if response.is_success:
                return into(file_of(self._checked(response).iter_raw(_BLOCK)))
            response.read()
            self._check_no_file(response)
            return None

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        with self._errors():
            return await self._open_client().request(method, path, **options)

    def _open_client(self) -> httpx.AsyncClient:
        if self._client.is_closed:  # for a caller of before the connection was read anew
            raise self._unavailable("its connection has been read anew meanwhile")
        return self._client

    async def _pieces(self, response: httpx.Response) -> AsyncIterator[bytes]:
        with self._errors():
            async for piece in response.aiter_raw():
                yield piece

    def _check_no_file(self, response: httpx.Response) -> None:
        if response.text.startswith(_NO_AGENT):
            raise NoAgent(f"Ray at {self.url} cannot read the logs of a node: {response.text.strip()}")
        if not response.text.startswith(_NO_FILE):
            self._checked(response)

    def _checked(self, response: httpx.Response) -> httpx.Response:
        code, path = response.status_code, response.request.url.path
        is_page = response.headers.get("Content-Type", "").startswith("text/html")
        if response.is_success and not is_page:
            return response
        if response.is_success or response.is_redirect or code == _NOT_FOUND:
            what = "a web page" if response.is_success else response.headers.get("Location") or _reason(response)
            raise self._unavailable(
                f"another server answers {path} in its place (HTTP {code}: {what}): a proxy or an ingress that has no "
                "dashboard behind it now, or the address is not that of a dashboard"
            )
        reason = _reason(response)
        if code >= httpx.codes.INTERNAL_SERVER_ERROR or code == _TOO_MANY:
            raise self._unavailable(reason)
        if code in _NO_LOGIN:
            self.is_refused = True
            raise AccessRefused(
                f"Ray at {self.url} refused the login: {reason}; see the connection's password and headers"
            )
        raise ExecutorError(f"Ray at {self.url} refused {response.request.method} {path}: {reason}")

    def _unavailable(self, reason: str) -> BackendUnavailable:
        return BackendUnavailable(f"Ray at {self.url} cannot answer now: {reason}")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            if problem := tls.certificate_problem(error, _VERIFY_SETTING, "a proxy that shows one"):
                self.is_refused = True
                raise AccessRefused(f"Ray at {self.url} cannot be used: {problem}") from error
            raise BackendUnavailable(
                f"Ray at {self.url} cannot be reached: {str(error) or type(error).__name__}"
            ) from error


def _is_missing(response: httpx.Response) -> bool:
    """Returns whether Ray itself says that there is no such job or archive."""
    return response.status_code == _NOT_FOUND and _MISSING.fullmatch(response.text.strip()) is not None


def _file(node: str, path: str, lines: int) -> dict[str, str]:
    return {"node_id": node, "filename": path, "lines": str(lines), "timeout": str(DOWNLOAD_LIMIT)}


async def _blocks(archive: IO[bytes]) -> AsyncIterator[bytes]:
    while block := await asyncio.to_thread(archive.read, _BLOCK):
        yield block


def _reason(response: httpx.Response) -> str:
    """Returns an answer's error in one line: of a traceback what was raised first, of a web page its title."""
    if title := _TITLE.search(response.text):
        return " ".join(title[1].split())
    lines = [line.strip() for line in response.text.splitlines() if line.strip()]
    raised = [line for line in lines if _RAISED.match(line) and not _RELAYED.search(line)]
    return (raised or lines or [f"HTTP {response.status_code}"])[-1 if raised else 0]
