"""Talks to the API server of one cluster: plain JSON requests, streams, and what its refusals mean."""

from __future__ import annotations

import asyncio
import contextlib
import json
import weakref
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from nemo_airflow.exceptions import BackendUnavailable, ExecutorError
from nemo_airflow.executors.kubernetes.access import Access
from nemo_airflow.job import JsonObject

if TYPE_CHECKING:
    import aiohttp
    from kubernetes_asyncio.client import ApiClient

MERGE_PATCH = "application/merge-patch+json"

_TIMEOUT = 30.0
_PAUSE = 0.5


class Refused(ExecutorError):
    """The API server refused a request.

    Args:
        doing: What was asked for.
        code: The HTTP status.
        reason: The API server's word for the reason, for example ``AlreadyExists``.
        detail: Its own message.
    """

    def __init__(self, doing: str, code: int, reason: str, detail: str) -> None:
        self.code = code
        self.reason = reason
        self.detail = detail
        super().__init__(f"cannot {doing}: {detail} (HTTP {code})")


class Troubled(BackendUnavailable):
    """The API server answered, but something behind it is down or overloaded: a node, its storage."""


def ask_again(seconds: float) -> AsyncRetrying:
    """Returns what makes a call again that may be made twice, where its failure will pass.

    These pass: an answer of 429 or 5xx (:class:`Troubled`), and a connection that was refused or cut.

    Args:
        seconds: For how long. The last error is raised then.
    """
    return AsyncRetrying(
        retry=retry_if_exception_type(BackendUnavailable),
        wait=wait_fixed(_PAUSE),
        stop=stop_after_delay(seconds),
        reraise=True,
    )


class Cluster:
    """One namespace of one cluster, for the running event loop.

    Attributes:
        namespace: Its name; known once a request was made.
        host: Address of the API server.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._client: ApiClient | None = None
        self._opening = asyncio.Lock()
        self.namespace = ""
        self.host = ""

    @property
    def name(self) -> str:
        """What handles call it; known once a request was made."""
        return f"{self.host}/{self.namespace}"

    async def request(
        self,
        method: str,
        path: str,
        doing: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        accept: str = "application/json",
    ) -> JsonObject:
        """Returns the object that the API server answers with.

        Args:
            method: HTTP method. A PATCH is a JSON merge patch.
            path: Path below the namespace, for example ``pods/name``; with a slash before it, one below the server.
            doing: What is asked for, for an error message: ``create pod x``.
            query: Parameters.
            body: The object to send.
            accept: Media type of the answer.

        Raises:
            Refused: The API server said no.
            BackendUnavailable: It could not be reached, is overloaded, or does not know our credentials.
        """
        async with self.stream(
            method, path, doing, query=query, body=body, accept=accept, timeout=_TIMEOUT
        ) as response:
            data = await response.read()
        try:
            return dict(json.loads(data))
        except ValueError as error:
            raise BackendUnavailable(f"cannot {doing}: {self.host} answers with something else than JSON") from error

    @contextlib.asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        doing: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        accept: str = "*/*",
        timeout: float | None = None,  # noqa: ASYNC109 - of each step of the transfer, not of the caller's block
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Gives the answer as it comes. See :meth:`request`."""
        with self._clear_errors(doing):
            token = await self._token()
            response = await self._send(method, path, query or {}, body, accept, timeout)
            if response.status == 401:
                # A token has a short life: the file or the plug-in that it comes from may have a new one.
                response.release()
                await self._renew(token)
                response = await self._send(method, path, query or {}, body, accept, timeout)
            async with response:
                if response.status >= 300:
                    self._refuse(doing, response.status, await response.read())
                yield response

    async def open(self) -> ApiClient:
        """Returns the client, connected on first use.

        Raises:
            SettingsError: There is no way to the cluster.
        """
        async with self._opening:
            if self._client is None:
                configuration, self.namespace = await self._access.load()
                from kubernetes_asyncio.client import ApiClient

                self.host = str(configuration.host)
                self._client = ApiClient(configuration)
                weakref.finalize(self, _abandon, self._client, asyncio.get_running_loop())
            return self._client

    @contextlib.asynccontextmanager
    async def execute(
        self,
        pod: str,
        container: str,
        command: Sequence[str],
        doing: str,
        *,
        stdin: bool = True,
        terminal: bool = False,
    ) -> AsyncIterator[Any]:
        """Gives the WebSocket of a command in a pod: each message's first byte is the number of its stream."""
        client = await self.open()
        from kubernetes_asyncio.stream import WsApiClient

        wanted = {"stdin": stdin, "stdout": True, "stderr": not terminal, "tty": terminal}
        flags = {name: "true" for name, is_wanted in wanted.items() if is_wanted}
        query = [("container", container), *flags.items(), *(("command", word) for word in command)]
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/exec"
        async with WsApiClient(client.configuration) as sockets:
            with self._clear_errors(doing):
                opened = await sockets.call_api(
                    path, "GET", query_params=query, auth_settings=["BearerToken"], _preload_content=False
                )
                async with opened as socket:
                    yield socket

    async def close(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _token(self) -> str:
        return str((await self.open()).configuration.api_key.get("BearerToken"))

    async def _renew(self, token: str) -> None:
        """Loads the credentials anew, unless another request has done so since it took this token."""
        async with self._opening:
            if self._client is not None and self._client.configuration.api_key.get("BearerToken") == token:
                configuration, _ = await self._access.load()
                self._client.configuration.api_key = configuration.api_key

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Any,
        accept: str,
        timeout: float | None,  # noqa: ASYNC109 - of each step of the transfer
    ) -> aiohttp.ClientResponse:
        client = await self.open()
        import aiohttp

        response: aiohttp.ClientResponse = await client.call_api(
            path if path.startswith("/") else f"/api/v1/namespaces/{self.namespace}/{path}",
            method,
            query_params=list(query.items()),
            header_params={
                "Content-Type": MERGE_PATCH if method == "PATCH" else "application/json",
                "Accept": accept,
            },
            body=body,
            auth_settings=["BearerToken"],
            _preload_content=False,
            _request_timeout=aiohttp.ClientTimeout(total=None, sock_connect=_TIMEOUT, sock_read=timeout),
        )
        return response

    def _refuse(self, doing: str, code: int, data: bytes) -> None:
        """Raises what an answer other than success means."""
        try:
            status = json.loads(data)
            reason, message = str(status.get("reason") or ""), str(status.get("message") or "")
        except (ValueError, AttributeError):
            reason, message = "", data.decode(errors="replace")
        message = " ".join(message.split())[:1000] or f"HTTP {code}"
        if code == 401:
            raise BackendUnavailable(
                f"cannot {doing}: {self.host} does not accept the credentials of {self._access.name}: renew them"
            )
        if code == 429 or code >= 500 or (code == 409 and reason == "Conflict"):
            raise Troubled(f"cannot {doing}: {message} (HTTP {code})")
        raise Refused(doing, code, reason, message)

    @contextlib.contextmanager
    def _clear_errors(self, doing: str) -> Any:
        import aiohttp

        try:
            yield
        except aiohttp.WSServerHandshakeError as error:
            self._refuse(doing, error.status, error.message.encode())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            text = str(error) or type(error).__name__
            raise BackendUnavailable(f"cannot {doing}: {self.host} cannot be reached: {text}") from error


def _abandon(client: ApiClient, loop: asyncio.AbstractEventLoop) -> None:
    """Closes the connections of a cluster that was not closed: aiohttp would complain of it in everybody's log."""
    connections = client.rest_client.pool_manager
    if loop.is_running():
        # From the collector in the loop's own thread, or from another one at the end of the process.
        loop.call_soon_threadsafe(lambda: asyncio.ensure_future(connections.close(), loop=loop))
    elif not connections.closed and connections.connector is not None:
        connector = connections.connector
        connections.detach()
        closing = connector.close().__await__()
        with contextlib.suppress(StopIteration, RuntimeError):
            next(closing)
