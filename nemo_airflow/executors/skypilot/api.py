"""SkyPilot's SDK, in threads: its answers as plain data, and its errors as ours."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from nemo_airflow.exceptions import BackendUnavailable, ExecutorError, MissingExtraError, NemoAirflowError, SubmitError
from nemo_airflow.job import FailureKind, JsonObject

_AWAY = (
    "ApiServerConnectionError", "ServerTemporarilyUnavailableError", "RequestInterruptedError", "NetworkError",
    "ExecutionRetryableError", "ExecutionPoolFullError", "ClusterStatusFetchingError", "FetchClusterInfoError",
    "CachedClusterUnavailable",
)  # fmt: skip
_NOT_THERE = ("ClusterDoesNotExist", "ClusterNotUpError")
_QUOTA = ("ResourcesUnavailableError", "ManagedJobReachedMaxRetriesError", "ProvisionPrechecksError")

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class NotThere(ExecutorError):
    """A cluster is not there, or not up."""


def launch(payload: Mapping[str, Any], secrets: Mapping[str, str]) -> str:
    """Asks for a task to be run; returns the id of the request, which lasts until the clouds have given the machines.

    Args:
        payload: The task, and how it is launched.
        secrets: Values of the job's secrets, which SkyPilot keeps apart from the task's other variables.

    Raises:
        SubmitError: The task is not valid.
        BackendUnavailable: The API server cannot be reached.
    """
    sky = _sky()
    with _errors("launch the job", refusal=True):
        task = sky.Task.from_yaml_config(dict(payload["task"]))
        if secrets:
            task.update_secrets(dict(secrets))
        if payload["managed"]:
            return str(sky.jobs.launch(task, name=payload["task"]["name"]))
        return str(sky.launch(task, payload["cluster_name"], retry_until_up=payload["retry_until_up"]))


class Launch(NamedTuple):
    """A request for a launch: its id, and the cluster that it is for; an empty text for a managed job."""

    request: str
    cluster: str


def launches() -> dict[str, Launch]:
    """Returns the requests for launches that have not ended, by the names of their tasks."""
    with _errors("list its requests"):
        requests = [request for request in _sky().api_status() if request.name.endswith(".launch")]
    found = {}
    for request in requests:
        names, cluster = _read_launch(request.request_body)
        found.update(dict.fromkeys(names, Launch(request.request_id, cluster)))
    return found


def launch_state(request: str) -> str:
    """Returns the state of a request, such as ``RUNNING``; an empty text for one that the server does not know."""
    with _errors(f"look at request {request}"):
        return next((str(found.status) for found in _sky().api_status([request])), "")


def end_launch(request: str) -> None:
    """Waits for the end of a request for a launch.

    Raises:
        SubmitError: No cloud gives the machines, or the launch is refused otherwise.
        BackendUnavailable: The API server, or what it needs, cannot be reached.
    """
    sky = _sky()
    with _errors("launch the job", refusal=True):
        sky.get(request)


def cancel_launch(request: str) -> None:
    """Ends a request for a launch, unless it has ended."""
    sky = _sky()
    with _errors(f"cancel request {request}"):
        sky.get(sky.api_cancel([request], silent=True))


def validate(payload: Mapping[str, Any]) -> None:
    """Has the SDK check a task, without an API server.

    Raises:
        SubmitError: It is not valid.
    """
    with _errors("check the task", refusal=True):
        _sky().Task.from_yaml_config(dict(payload["task"]))


def managed_jobs(unended: bool = False) -> list[JsonObject]:
    """Returns all managed jobs that the controller remembers, newest first."""
    with _errors("list the managed jobs"):
        try:
            sky = _sky()
            found = sky.get(sky.jobs.queue(refresh=False, skip_finished=unended))
        except Exception as error:
            if type(error).__name__ in _NOT_THERE:  # no controller: no job was ever launched
                return []
            raise
    return [_job(job["job_id"], job["job_name"], job["status"], job["submitted_at"], "") for job in found]


def cluster_jobs(cluster: str) -> list[JsonObject]:
    """Returns the jobs in a cluster's queue.

    Raises:
        NotThere: The cluster is not there, or not up.
    """
    with _errors(f"list the jobs of cluster {cluster}"):
        sky = _sky()
        found = sky.get(sky.queue(cluster))
    return [_job(job["job_id"], job["job_name"], job["status"], job["submitted_at"], cluster) for job in found]


def clusters(names: Sequence[str] | None = None) -> dict[str, str]:
    """Returns the states of clusters, by their names."""
    with _errors("list the clusters"):
        sky = _sky()
        found = sky.get(sky.status(list(names) if names is not None else None))
    return {cluster["name"]: str(getattr(cluster["status"], "value", cluster["status"])) for cluster in found}


def log(job: Mapping[str, Any], lines: int = 0) -> str:
    """Returns the last lines of a job's log, as SkyPilot shows it; all of it for 0."""
    sky = _sky()
    with _errors(f"read the log of job {job['name']}"):
        if not job["cluster"]:
            sink = _Text()
            sky.jobs.tail_logs(job_id=job["id"], follow=False, tail=lines, output_stream=sink)
            return "".join(sink.parts)
        pieces = sky.tail_logs(job["cluster"], job["id"], follow=False, tail=lines, preload_content=False)
        return "".join(piece for piece in pieces if piece is not None)


def cancel(job: Mapping[str, Any]) -> None:
    """Ends a job."""
    sky = _sky()
    with _errors(f"cancel job {job['name']}"):
        if job["cluster"]:
            sky.get(sky.cancel(job["cluster"], job_ids=[job["id"]]))
        else:
            sky.get(sky.jobs.cancel(job_ids=[job["id"]]))


def down(cluster: str) -> None:
    """Removes a cluster, and ends what runs or is being prepared on it; one that is gone already stays so."""
    sky = _sky()
    with contextlib.suppress(NotThere), _errors(f"remove cluster {cluster}"):
        sky.get(sky.down(cluster))


def _read_launch(body: str) -> tuple[list[str], str]:
    """Returns the names of the tasks in the body of a request for a launch, and the cluster that it is for."""
    try:
        data = json.loads(body)
        parts = list(yaml.safe_load_all(data.get("task") or ""))
    except (ValueError, AttributeError, yaml.YAMLError):  # of another release
        return [], ""
    names = [str(part["name"]) for part in parts if isinstance(part, dict) and part.get("name")]
    return names, data.get("cluster_name") or ""


class _Text:
    """What the SDK writes a log into."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def write(self, text: str) -> int:
        self.parts.append(text)
        return len(text)

    def flush(self) -> None:
        """Has nothing to do."""


def _job(number: int, name: str, status: Any, submitted_at: float | None, cluster: str) -> JsonObject:
    state = str(getattr(status, "value", status))
    return {"id": number, "name": name, "status": state, "submitted_at": submitted_at or 0.0, "cluster": cluster}


def _sky() -> Any:
    # The client reports its use to its makers unless told not to; a job's config is nobody's business.
    os.environ.setdefault("SKYPILOT_DISABLE_USAGE_COLLECTION", "1")
    try:
        import sky
    except ImportError as error:
        raise MissingExtraError("SkypilotExecutor", "skypilot") from error
    return sky


@contextlib.contextmanager
def _errors(doing: str, *, refusal: bool = False) -> Iterator[None]:
    """Turns what the SDK raises, which is of many families, into our errors."""
    try:
        yield
    except NemoAirflowError:
        raise
    except Exception as error:
        from requests import RequestException

        names = {cls.__name__ for cls in type(error).__mro__}
        said = " ".join(_COLOUR.sub("", str(error)).split()) or type(error).__name__
        if isinstance(error, RequestException) or names.intersection(_AWAY):
            raise BackendUnavailable(f"SkyPilot cannot {doing} now: {said}") from error
        if refusal:
            kind = FailureKind.QUOTA if names.intersection(_QUOTA) else FailureKind.USER_ERROR
            raise SubmitError(f"SkyPilot refused the job: {said}", kind=kind) from error
        if names.intersection(_NOT_THERE):
            raise NotThere(f"SkyPilot cannot {doing}: {said}") from error
        raise ExecutorError(f"SkyPilot cannot {doing}: {said}") from error
