"""Docker's client, in threads: one daemon, its answers, and its errors as ours."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from nemo_airflow import connections
from nemo_airflow.exceptions import BackendUnavailable, ExecutorError, MissingExtraError, SubmitError
from nemo_airflow.executors.timed_log import Ask
from nemo_airflow.job import FailureKind, JsonObject

if TYPE_CHECKING:
    from docker import APIClient

_FRAME = struct.Struct(">BxxxL")
"""Head of each piece of a log: which stream, how many bytes."""

_DAEMON = 3
"""The stream in which the daemon itself says that it cannot read the log."""

_NOT_FOUND = 404

_CONNECTIONS = 12
"""Connections to one daemon that are kept open: one for each thread."""

_TOO_MUCH = ("no space left", "disk quota exceeded", "range of cpus", "minimum memory", "could not select device")
_AWAY = ("shutting down", "containerd", "connection refused", "transport is closing", "context canceled")
_NOT_IN_IMAGE = ("executable file not found", "no such file or directory", "permission denied")


@dataclasses.dataclass(frozen=True)
class Access:
    """What an executor says of its daemon; see :class:`~nemo_airflow.executors.docker.DockerExecutor`."""

    url: str
    conn_id: str | None = None
    timeout: float = 60.0
    ca_cert: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    verify: bool = True


class Refused(ExecutorError):
    """The daemon refused a call.

    Args:
        code: The HTTP status code.
        reason: The daemon's own words, in one line.
        doing: What was asked of it.
    """

    def __init__(self, code: int, reason: str, doing: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"Docker refused to {doing}: {reason}")

    @property
    def kind(self) -> FailureKind:
        """What kind of failure it is, of a job that cannot be started for this reason."""
        said = self.reason.lower()
        if any(words in said for words in _TOO_MUCH):
            return FailureKind.QUOTA
        return FailureKind.IMAGE if any(words in said for words in _NOT_IN_IMAGE) else FailureKind.USER_ERROR


class Docker:
    """One daemon. All methods block, and can be called from several threads.

    Each raises :class:`Refused`, or :class:`~nemo_airflow.exceptions.BackendUnavailable`.

    Args:
        access: How it is reached.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._lock = threading.Lock()
        self._client: APIClient | None = None

    @property
    def url(self) -> str:
        """The daemon's address."""
        return self._access.url

    def create(self, name: str, container: Mapping[str, Any], platform: str | None) -> str:
        """Creates a container and returns its id."""
        with self.asking("create a container") as client:
            return str(client.create_container_from_config(dict(container), name, platform)["Id"])

    def put(self, container: str, archive: IO[bytes]) -> None:
        """Unpacks a tar archive into the root of a container."""
        with self.asking(f"write into container {container}") as client:
            client.put_archive(container, "/", archive)

    def start(self, container: str) -> None:
        """Starts a container; one that has been started already stays as it is."""
        with self.asking(f"start container {container}") as client:
            client.start(container)

    def signal(self, container: str, signal: str) -> None:
        """Sends a signal to a container, if it runs."""
        try:
            with self.asking(f"end container {container}") as client:
                client.kill(container, signal)
        except Refused as error:
            if error.code not in (404, 409):
                raise

    def inspect(self, container: str) -> JsonObject | None:
        """Returns all there is to know of a container, or None when it is not there."""
        try:
            with self.asking(f"look at container {container}") as client:
                found: JsonObject = client.inspect_container(container)
                return found
        except Refused as error:
            if error.code == 404:
                return None
            raise

    def list(self, labels: Sequence[str], states: Sequence[str]) -> list[JsonObject]:
        """Returns what the daemon lists of containers with all these labels in one of these states."""
        with self.asking("list containers") as client:
            found: list[JsonObject] = client.containers(
                all=True, filters={"label": list(labels), "status": list(states)}
            )
            return found

    def remove(self, container: str) -> bool:
        """Removes a container that does not run, and its volumes; returns whether it is gone."""
        try:
            with self.asking(f"remove container {container}") as client:
                client.remove_container(container, v=True)
        except Refused as error:
            if error.code == 409:
                return "already in progress" in error.reason
            if error.code != 404:
                raise
        return True

    def log(self, container: str, ask: Ask) -> bytes:
        """Returns what a container wrote, from a time on, or from its start; little more than the limit."""
        with self.asking(f"read the log of container {container}") as client:
            url = f"{client.base_url}/v{client.api_version}/containers/{container}/logs"
            query = {"stdout": "1", "stderr": "1", "since": f"{ask.since or 0:.0f}"}
            # The client's own method would look at the container each time, for whether it has a terminal.
            with client.get(url, params=query, stream=True, timeout=self._access.timeout) as response:
                if response.status_code in (404, 409):
                    return b""
                if not response.ok:
                    raise self._refusal(response.status_code, _line(response.text), f"read the log of {container}")
                data, trouble = _unframed(response.raw, ask.limit)
                if trouble and not data:
                    raise self._refusal(500, trouble, f"read the log of {container}")
                return data

    @contextlib.contextmanager
    def archive(self, container: str, path: str) -> Iterator[Iterator[bytes] | None]:
        """Yields a file or folder of a container as pieces of a tar archive; None when it is not there."""
        with self.asking(f"read {path} of container {container}") as client:
            try:
                pieces, _ = client.get_archive(container, path)
            except _errors().NotFound:
                yield None
                return
            with contextlib.closing(pieces):
                yield pieces

    def pull(self, image: str, platform: str | None) -> None:
        """Pulls an image, with the login of the connection.

        Raises:
            SubmitError: It cannot be pulled.
        """
        from docker.utils import parse_repository_tag

        repository, tag = parse_repository_tag(image)
        login = self._login()
        try:
            with self.asking(f"pull {image}", pulling=True) as client:
                for said in client.pull(
                    repository, tag=tag or "latest", stream=True, decode=True, auth_config=login, platform=platform
                ):
                    if error := said.get("error"):
                        raise Refused(500, _line(error), f"pull {image}")
        except Refused as error:
            raise SubmitError(f"image {image} cannot be pulled: {error.reason}", kind=FailureKind.IMAGE) from error

    def info(self) -> JsonObject:
        """Returns what the daemon says of itself."""
        with self.asking("say how it fares") as client:
            return dict(client.info())

    def image_id(self, image: str) -> str:
        """Returns the id of an image; empty where the daemon does not have it."""
        try:
            with self.asking(f"look for image {image}") as client:
                return str(client.inspect_image(image)["Id"])
        except Refused as error:
            if error.code == _NOT_FOUND:
                return ""
            raise

    def close(self) -> None:
        """Closes the connections."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _login(self) -> dict[str, str] | None:
        """Returns the registry's login; Airflow's own hook reads the same fields of the connection."""
        if self._access.conn_id is None:
            return None
        info = connections.get_connection(self._access.conn_id)
        return {
            "username": info.login,
            "password": info.password,
            "email": str(info.extra.get("email") or ""),
            "serveraddress": f"{info.host}:{info.port}" if info.port else info.host,
        }

    @contextlib.contextmanager
    def asking(self, doing: str, *, pulling: bool = False) -> Iterator[APIClient]:
        """Gives the client; its errors become those of this class."""
        errors = _errors()
        from requests import RequestException
        from urllib3.exceptions import HTTPError

        try:
            yield self._connected()
        except errors.APIError as error:
            code, reason = error.response.status_code, _line(error.explanation or error)
            # What a pull calls unreachable is the registry.
            raise (Refused(code, reason, doing) if pulling else self._refusal(code, reason, doing)) from error
        except (errors.DockerException, RequestException, HTTPError, OSError) as error:
            raise BackendUnavailable(f"Docker at {self.url} cannot be reached to {doing}: {_line(error)}") from error

    def _refusal(self, code: int, reason: str, doing: str) -> ExecutorError:
        """Returns what an answer other than success means."""
        if code == 503 or (code == 500 and any(words in reason.lower() for words in _AWAY)):
            return BackendUnavailable(f"Docker at {self.url} cannot {doing} now: {reason}")
        return Refused(code, reason, doing)

    def _connected(self) -> APIClient:
        with self._lock:
            if self._client is None:
                import docker

                access = self._access
                tls = None
                if access.ca_cert or access.client_cert:
                    pair = (access.client_cert, access.client_key) if access.client_cert else None
                    tls = docker.tls.TLSConfig(client_cert=pair, ca_cert=access.ca_cert, verify=access.verify)
                self._client = docker.APIClient(
                    base_url=access.url,
                    version="auto",
                    tls=tls or False,
                    timeout=access.timeout,
                    max_pool_size=_CONNECTIONS,
                )
            return self._client


def _errors() -> Any:
    try:
        import docker.errors
    except ImportError as error:
        raise MissingExtraError("DockerExecutor", "docker") from error
    return docker.errors


def _unframed(raw: Any, limit: int) -> tuple[bytes, str]:
    """Returns the log out of its frames, one that was cut off left out; and what went wrong with it on the way."""
    data = bytearray()
    while len(data) < limit and len(head := _exactly(raw, _FRAME.size)) == _FRAME.size:
        stream, size = _FRAME.unpack(head)
        text = _exactly(raw, size)
        if stream == _DAEMON:
            return bytes(data), _line(text)
        data += text
    return bytes(data), ""


def _exactly(raw: Any, size: int) -> bytes:
    parts = []
    while size > 0 and (part := raw.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _line(error: object) -> str:
    text = error.decode(errors="replace") if isinstance(error, bytes) else str(error)
    with contextlib.suppress(ValueError, TypeError, KeyError):
        text = json.loads(text)["message"]
    return " ".join(text.split())
