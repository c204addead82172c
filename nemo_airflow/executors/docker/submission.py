"""Starts the container of a job: exactly one, whoever else tries at the same moment or was killed at it.

A container's name is unique on its daemon, so creating it decides who starts the job. What is created but
not started belongs to another process, which may have been killed: it is waited for, then taken over. Taking
over is removing it, which the daemon refuses for a container that has been started meanwhile.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from typing import IO, Any

from nemo_airflow.exceptions import BackendUnavailable, SubmitError
from nemo_airflow.executors.base import Request
from nemo_airflow.executors.bundle import write_bundle
from nemo_airflow.executors.docker.api import Docker, Refused
from nemo_airflow.executors.docker.executor import BASE, KEY
from nemo_airflow.job import FailureKind, JsonObject

_PATIENCE = 5.0
"""Seconds after which a container that was created and not started counts as abandoned ..."""

_UPLOAD_SPEED = 5e6
"""... and one more for each so many bytes of package that have to go into it before."""

_ATTEMPTS = 20
_PAUSE = 0.1


def submit(docker: Docker, request: Request) -> JsonObject:
    """Starts the job's container, unless it has been started before; returns what the daemon says of it.

    Raises:
        SubmitError: The daemon refused it; nothing is left behind.
        BackendUnavailable: The daemon cannot be reached.
    """
    payload: Mapping[str, Any] = request.payload
    if payload["pull"] == "always" and docker.inspect(request.key) is None:
        docker.pull(payload["container"]["Image"], payload["platform"])
    for _ in range(_ATTEMPTS):
        own = _create(docker, request)
        known = _start(docker, request, own) if own is not None else _started(docker, request)
        if known is not None:
            return known
    raise BackendUnavailable(
        f"container {request.key} was removed from {docker.url} {_ATTEMPTS} times before it could be started: "
        "look for another program that removes containers there"
    )


def _started(docker: Docker, request: Request) -> JsonObject | None:
    """Returns the job's container once it has been started; None if it does not exist, or was removed."""
    size = sum(archive.size for archive in request.archives)
    deadline = time.monotonic() + _PATIENCE + size / _UPLOAD_SPEED
    while (known := docker.inspect(request.key)) is not None:
        if (known["Config"].get("Labels") or {}).get(KEY) != request.key:
            raise SubmitError(
                f"Docker at {docker.url} has a container named {request.key} of another program: remove it"
            )
        if known["State"]["Status"] != "created":
            return known
        if time.monotonic() > deadline:
            docker.remove(known["Id"])
        time.sleep(_PAUSE)
    return None


def _create(docker: Docker, request: Request) -> str | None:
    """Creates the container and returns its id; None when another process was faster."""
    payload: Mapping[str, Any] = request.payload
    container, platform = payload["container"], payload["platform"]
    try:
        try:
            return docker.create(payload["name"], container, platform)
        except Refused as error:
            if error.code != 404 or "image" not in error.reason.lower():
                raise
            if payload["pull"] == "never":
                raise SubmitError(
                    f"image {container['Image']} is not on {docker.url}, and pull is 'never': load it there, "
                    "or set pull='missing'",
                    kind=FailureKind.IMAGE,
                ) from error
            docker.pull(container["Image"], platform)
            return docker.create(payload["name"], container, platform)
    except Refused as error:
        if error.code == 409:
            return None
        raise _refusal(error) from error


def _start(docker: Docker, request: Request, container: str) -> JsonObject | None:
    """Fills the container and starts it; None when another process has taken it over meanwhile."""
    try:
        with tempfile.TemporaryFile() as file:
            _write(request, file)
            docker.put(container, file)
        docker.start(container)
    except Refused as error:
        if error.code == 404 and "no such container" in error.reason.lower():
            return None
        docker.remove(container)
        raise _refusal(error) from error
    except SubmitError:
        docker.remove(container)
        raise
    return docker.inspect(container)


def _write(request: Request, file: IO[bytes]) -> None:
    try:
        write_bundle(request, file, base=BASE.lstrip("/"), with_secrets=True)
    except OSError as error:
        raise SubmitError(f"cannot write the archive for container {request.key}: {error}") from error
    file.seek(0)


def _refusal(error: Refused) -> SubmitError:
    return SubmitError(f"Docker refused the job: {error.reason}", kind=error.kind)
