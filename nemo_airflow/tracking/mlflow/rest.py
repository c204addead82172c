"""An MLflow tracking server, accessed through its REST API.

MLflow's own client is not used for three reasons. It takes credentials, time limits and
retries from the environment of the process, which a triggerer shares among all connections; it
repeats requests that create a run, which then exists twice; and its import takes seconds of every
task. The REST API is documented and versioned; see "REST API" in MLflow's documentation.
"""

from __future__ import annotations

import concurrent.futures
import math
import mimetypes
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any
from urllib.parse import SplitResult, quote, unquote, unquote_to_bytes, urlsplit

import httpx

from nemo_airflow import tls
from nemo_airflow.exceptions import TrackingError
from nemo_airflow.tracking.base import Metric, RunInput, UploadWatch
from nemo_airflow.tracking.mlflow import fields
from nemo_airflow.tracking.mlflow.files import list_repository, read_repository
from nemo_airflow.tracking.mlflow.lines import LAST_STEP, Line, thin
from nemo_airflow.tracking.mlflow.registered import (
    RegisteredModel,
    RegisteredVersion,
    model_from_json,
    version_from_json,
)
from nemo_airflow.tracking.mlflow.store import (
    NEWEST_END_FIRST,
    NOT_FOUND,
    Credentials,
    LoggedModel,
    Run,
    StoredFile,
    ended_jobs_filter,
    is_transient_answer,
    jobs_filter,
    raise_refused,
    read_from_repository,
    search_filter,
    upload_to_repository,
)

_API = "/api/2.0/mlflow"
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"

_TIMEOUT = httpx.Timeout(20.0, connect=5.0)
_UPLOAD_TIMEOUT = httpx.Timeout(120.0, connect=5.0)
_UPLOADS_AT_ONCE = 4
_SAMPLED = 2500
"""Most points of a run that a server samples."""

_PIECE = 256 << 10
"""Bytes of a file that are read at once."""

_VERIFY_SETTING = (
    "MLFLOW_TRACKING_SERVER_CERT_PATH or REQUESTS_CA_BUNDLE, or the extra field 'verify' of its connection, "
    "to the file of the authority, in the worker and in the triggerer"
)
_CLIENT_CERT_SETTING = "MLFLOW_TRACKING_CLIENT_CERT_PATH, or the extra field 'client_cert' of its connection"

_NAME_BYTES = 255
"""Longest name of a file on common file systems."""

_LONG_NAME = f"the name of the file is too long for the server's disk, which allows {_NAME_BYTES} bytes"

_MODEL_STATUS = "LOGGED_MODEL_"
"""Beginning of the statuses of models."""

_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})

_pause = 0.0
"""Seconds for which a server that did not answer is not asked again."""


def pause_after_silence(seconds: float) -> None:
    """Has this process leave a server alone for so long that could not be reached, or did not answer in time.

    Meanwhile calls fail at once: in a server of many people they would otherwise all wait, each in a thread. After
    that one call tries it again.
    """
    global _pause
    _pause = seconds


class RestStore:
    """A tracking server at an ``http`` or ``https`` address.

    Args:
        uri: Its address, without credentials; may have a path.
        credentials: How to log in.
    """

    def __init__(self, uri: str, credentials: Credentials) -> None:
        self.uri = uri.rstrip("/")
        headers = (
            {"Authorization": f"Bearer {credentials.token}"} if credentials.token and not credentials.username else {}
        )
        auth = httpx.BasicAuth(credentials.username, credentials.password) if credentials.username else None
        self._client = httpx.Client(
            auth=auth,
            headers=headers,
            timeout=_TIMEOUT,
            verify=tls.client_context(credentials.verify, credentials.client_cert),
            follow_redirects=False,
        )
        self._lock = threading.Lock()
        self._silence: tuple[float, str] | None = None
        """Until when the server is left alone, and what was wrong."""

    def experiment(self, name: str) -> str | None:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        try:
            found = self._get("experiments/get-by-name", experiment_name=name)["experiment"]
        except TrackingError as error:
            if error.code == NOT_FOUND:
                return None
            raise
        if found.get("lifecycle_stage") == "deleted":
            raise TrackingError(deleted_experiment(name, self.uri))
        return str(found["experiment_id"])

    def create_experiment(self, name: str, artifact_location: str | None) -> str:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        body = {"name": name, **({"artifact_location": artifact_location} if artifact_location else {})}
        return str(self._post("experiments/create", body)["experiment_id"])

    def create_run(self, experiment_id: str, name: str, tags: Mapping[str, str], start_ms: int) -> Run:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        body = {"experiment_id": experiment_id, "run_name": name, "start_time": start_ms, "tags": _pairs(tags)}
        return _run(self._post("runs/create", body)["run"])

    def search(self, experiment_id: str, tag: str, value: str, *, running: bool = False) -> list[Run]:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        body = {
            "experiment_ids": [experiment_id],
            "filter": search_filter(tag, value, running),
            "run_view_type": "ACTIVE_ONLY",
            "max_results": 1000,
        }
        return [_run(item) for item in self._post("runs/search", body).get("runs", ())]

    def latest_end(self, experiment_id: str, parent_id: str) -> int | None:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        body = {
            "experiment_ids": [experiment_id],
            "filter": ended_jobs_filter(parent_id),
            "run_view_type": "ACTIVE_ONLY",
            "max_results": 1,
            "order_by": [NEWEST_END_FIRST],
        }
        found = self._post("runs/search", body).get("runs", ())
        return _run(found[0]).end_ms if found else None

    def search_jobs(self, which: str, order: Sequence[str], limit: int, page: str = "") -> tuple[list[Run], str]:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        experiments = self._pages("experiments/search", {"view_type": "ACTIVE_ONLY"}, "experiments")
        body = {
            "experiment_ids": [experiment["experiment_id"] for experiment in experiments],
            "filter": jobs_filter(which),
            "run_view_type": "ACTIVE_ONLY",
            "max_results": limit,
            "order_by": list(order),
            **({"page_token": page} if page else {}),
        }
        found = self._post("runs/search", body) if body["experiment_ids"] else {}
        return [_run(item) for item in found.get("runs", ())], found.get("next_page_token", "")

    def tag_values(self, tag: str) -> set[str]:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        found: set[str] = set()
        for experiment in self._pages("experiments/search", {"view_type": "ACTIVE_ONLY"}, "experiments"):
            body = {
                "experiment_ids": [experiment["experiment_id"]],
                "filter": f"tags.`{tag}` LIKE '%'",
                "run_view_type": "ACTIVE_ONLY",
            }
            found.update(_run(item).tags[tag] for item in self._pages("runs/search", body, "runs"))
        return found

    def run(self, run_id: str) -> Run:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        return _run(self._get("runs/get", run_id=run_id)["run"])

    def set_status(self, run_id: str, status: str, end_ms: int | None = None) -> None:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        self._post(
            "runs/update", {"run_id": run_id, "status": status, **({"end_time": end_ms} if end_ms is not None else {})}
        )

    def delete_run(self, run_id: str) -> None:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        self._post("runs/delete", {"run_id": run_id})

    def write_once(self, run_id: str, param: str, value: str) -> None:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        self._post("runs/log-parameter", {"run_id": run_id, "key": param, "value": value})

    def log(
        self,
        run_id: str,
        *,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        points = [
            {"key": m.name, "value": _number(m.value), "timestamp": round(m.timestamp * 1000), "step": m.step}
            for m in metrics
        ]
        self._post(
            "runs/log-batch",
            {"run_id": run_id, "metrics": points, "params": _pairs(params or {}), "tags": _pairs(tags or {})},
        )

    def log_inputs(self, run_id: str, inputs: Sequence[RunInput]) -> None:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        datasets = [
            {
                "dataset": {
                    "name": each.name, "digest": each.digest, "source_type": each.source_type, "source": each.source,
                },
                "tags": _pairs({fields.INPUT_CONTEXT: each.context} if each.context else {}),
            }
            for each in inputs
        ]  # fmt: skip
        self._post("runs/log-inputs", {"run_id": run_id, "datasets": datasets})

    def create_model(self, run: Run, name: str, tags: Mapping[str, str], params: Mapping[str, str]) -> None:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        body = {"experiment_id": run.experiment_id, "name": name, "source_run_id": run.run_id}
        self._post("logged-models", {**body, "tags": _pairs(tags), "params": _pairs(params)})

    def models(self, experiment_id: str, tag: str, value: str) -> list[LoggedModel]:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        body = {"experiment_ids": [experiment_id], "filter": f"tags.`{tag}` = '{value}'"}
        return [_model(item) for item in self._post("logged-models/search", body).get("models", ())]

    def model(self, model_id: str) -> LoggedModel:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        return _model(self._get(f"logged-models/{model_id}")["model"])

    def set_model_ready(self, model_id: str) -> None:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        body = {"model_id": model_id, "status": f"{_MODEL_STATUS}READY"}
        self._request("PATCH", f"{self.uri}{_API}/logged-models/{model_id}", json=body)

    def delete_model(self, model_id: str) -> None:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        self._request("DELETE", f"{self.uri}{_API}/logged-models/{model_id}")

    def add_output(self, run_id: str, model_id: str) -> None:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        self._post("runs/outputs", {"run_id": run_id, "models": [{"model_id": model_id, "step": 0}]})

    def model_versions(self, which: str, limit: int) -> list[RegisteredVersion]:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        order = "creation_timestamp DESC"
        found = self._get("model-versions/search", filter=which, max_results=str(limit), order_by=order)
        return [version_from_json(each) for each in found.get("model_versions", ())]

    def registered_models(self, which: str, limit: int) -> list[RegisteredModel]:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        found = self._get("registered-models/search", filter=which, max_results=str(limit))
        return [model_from_json(each) for each in found.get("registered_models", ())]

    def history(self, run_id: str, metric: str) -> list[Metric]:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        return list(self._history(run_id, metric))

    def _history(self, run_id: str, metric: str) -> Iterator[Metric]:
        page: dict[str, str] = {}
        while True:
            answer = self._get("metrics/get-history", run_id=run_id, metric_key=metric, max_results="25000", **page)
            for point in answer.get("metrics", ()):
                yield Metric(metric, float(point["value"]), int(point.get("step", 0)), int(point["timestamp"]) / 1000)
            if not answer.get("next_page_token"):
                return
            page = {"page_token": answer["next_page_token"]}

    def sampled(self, run_ids: Sequence[str], metric: str, limit: int) -> dict[str, list[Metric]]:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        answer = self._get(
            "metrics/get-history-bulk-interval", run_ids=list(run_ids), metric_key=metric, max_results=str(limit)
        )
        found: dict[str, list[Metric]] = {run_id: [] for run_id in run_ids}
        for point in answer.get("metrics", ()):
            at = int(point.get("step", 0)), int(point["timestamp"]) / 1000
            found[point["run_id"]].append(Metric(metric, float(point.get("value", 0.0)), *at))
        return found

    def line(self, run_id: str, metric: str, limit: int, since: int, until: int) -> Line:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`.

        Of many points the server takes those at equal distances: all would take a request for each 25,000.
        """
        within = {"start_step": str(since), "end_step": str(until)} if since > 0 or until < LAST_STEP else {}
        try:
            answer = self._get(
                "metrics/get-history-bulk-interval",
                run_ids=[run_id], metric_key=metric, max_results=str(_SAMPLED), **within,
            )  # fmt: skip
        except TrackingError as error:
            if error.code != NOT_FOUND and "404" not in str(error):
                raise
            # A server of an earlier release.
            return thin((point for point in self.history(run_id, metric) if since <= point.step <= until), limit)
        points = [
            Metric(metric, float(each.get("value", 0.0)), int(each.get("step", 0)), int(each["timestamp"]) / 1000)
            for each in answer.get("metrics", ())
        ]
        is_all = len(points) < _SAMPLED
        points.sort(key=lambda point: (point.step, point.timestamp))
        return Line(points, len(points) if is_all else None, keeps_extremes=is_all)

    def upload(self, run: Run, files: Mapping[str, Path], watch: UploadWatch) -> None:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        where = urlsplit(run.artifact_uri)
        if where.scheme != "mlflow-artifacts":
            return upload_to_repository(run, files, self.uri, watch)
        base = self._artifact_base(where)

        def put(path: str) -> TrackingError | None:
            try:
                self._put(f"{base}/{quote(fields.clean_path(path))}", files[path], watch)
            except TrackingError as error:
                return error
            watch.stored(path)
            return None

        with concurrent.futures.ThreadPoolExecutor(_UPLOADS_AT_ONCE, thread_name_prefix="nemo-upload") as pool:
            errors = dict(zip(files, pool.map(put, files), strict=True))
        # All are tried: a refused file must not prevent the others, some of which may need a retry.
        refused = {path: error for path, error in errors.items() if error is not None}
        return raise_refused(refused, len(files) - len(refused))

    def read(self, run: Run, path: str) -> bytes | None:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        where = urlsplit(run.artifact_uri)
        if where.scheme != "mlflow-artifacts":
            return read_from_repository(run, path, self.uri)
        try:
            return self._send("GET", f"{self._artifact_base(where)}/{quote(path)}").content
        except TrackingError as error:
            if error.code == NOT_FOUND:
                return None
            raise

    def list_files(self, run: Run, folder: str) -> list[StoredFile]:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        where = urlsplit(run.artifact_uri)
        if where.scheme != "mlflow-artifacts":
            return list_repository(run, folder, self.uri)
        base, _, root = self._artifact_base(where).partition(f"{_ARTIFACTS}/")
        path = "/".join(filter(None, (unquote(root), folder)))
        try:
            found = self._request("GET", f"{base}{_ARTIFACTS}", params={"path": path}).get("files", ())
        except TrackingError as error:
            if error.code == NOT_FOUND:
                return []
            raise
        above = f"{folder}/" if folder else ""
        return [
            StoredFile(above + file["path"], int(file.get("file_size") or 0), bool(file.get("is_dir")))
            for file in found
        ]

    def read_pieces(self, run: Run, path: str) -> Generator[bytes]:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        where = urlsplit(run.artifact_uri)
        if where.scheme != "mlflow-artifacts":
            yield from read_repository(run, path, self.uri)
            return
        url = f"{self._artifact_base(where)}/{quote(path)}"
        self._check_silence()
        try:
            with self._client.stream("GET", url, timeout=_UPLOAD_TIMEOUT) as response:
                self._silence = None
                if not response.is_success:
                    response.read()
                    raise self._refusal(response, url)
                yield from response.iter_bytes(_PIECE)
        except httpx.TransportError as error:
            raise self._note_silence(error, self._unreachable("GET", url, error)) from error

    def delete_tag(self, run_id: str, name: str) -> None:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        self._post("runs/delete-tag", {"run_id": run_id, "key": name})

    def _artifact_base(self, where: SplitResult) -> str:
        server = f"{urlsplit(self.uri).scheme}://{where.netloc}" if where.netloc else self.uri
        return f"{server}{_ARTIFACTS}/{quote(where.path.strip('/'))}"

    def _put(self, url: str, file: Path, watch: UploadWatch) -> None:
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        try:
            with file.open("rb") as content:
                size = str(file.stat().st_size)
                self._request(
                    "PUT",
                    url,
                    content=_pieces(content, watch),
                    headers={"Content-Type": kind, "Content-Length": size},
                    timeout=_UPLOAD_TIMEOUT,
                )
        except OSError as error:
            raise TrackingError(f"cannot read {file.name} to keep it as an artifact: {error.strerror}") from error

    def _pages(self, path: str, body: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
        token = None
        while True:
            page = self._post(path, {**body, "max_results": 1000, **({"page_token": token} if token else {})})
            yield from page.get(name, ())
            token = page.get("next_page_token")
            if not token:
                return

    def _get(self, path: str, **params: str | list[str]) -> dict[str, Any]:
        return self._request("GET", f"{self.uri}{_API}/{path}", params=params)

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._request("POST", f"{self.uri}{_API}/{path}", json=body)

    def _request(self, method: str, url: str, **kwargs: Any) -> dict[str, Any]:
        response = self._send(method, url, **kwargs)
        return _json(response) if method != "PUT" else {}

    def _send(self, method: str, url: str, **kwargs: Any) -> httpx.Response:
        self._check_silence()
        try:
            response = self._client.request(method, url, **kwargs)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise self._note_silence(error, self._unreachable(method, url, error)) from error
        self._silence = None
        if response.is_success:
            return response
        raise self._refusal(response, url)

    def _note_silence(self, error: Exception, refusal: TrackingError) -> TrackingError:
        """Has the server left alone for a while if it was silent; returns what is to be raised."""
        if isinstance(error, (httpx.TimeoutException, httpx.ConnectError)):
            self._silence = (time.monotonic() + _pause, str(refusal))
        return refusal

    def _check_silence(self) -> None:
        """Fails where the server was silent just now; after the pause it lets one call through."""
        if not _pause:
            return
        with self._lock:
            if self._silence is None:
                return
            until, what = self._silence
            if (left := until - time.monotonic()) > 0:
                raise TrackingError(f"{what}; it is asked again in {left:.0f} s", transient=True)
            self._silence = (time.monotonic() + _pause, what)

    def _unreachable(self, method: str, url: str, error: Exception) -> TrackingError:
        if problem := tls.certificate_problem(error, _VERIFY_SETTING, _CLIENT_CERT_SETTING):
            return TrackingError(f"the MLflow server {self.uri} cannot be used: {problem}")
        what = f"{type(error).__name__}: {error}".rstrip(": ")
        cut = isinstance(error, (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError))
        if method == "PUT" and cut and _has_long_name(url):  # the server may not read a file that it refuses
            return TrackingError(f"the MLflow server {self.uri} does not take a file ({what}): {_LONG_NAME}")
        return TrackingError(f"the MLflow server {self.uri} cannot be reached ({what})", transient=True)

    def _refusal(self, response: httpx.Response, url: str) -> TrackingError:
        answer = _json(response, strict=False)
        code, message = str(answer.get("error_code", "")), str(answer.get("message", "")) or response.reason_phrase
        if response.status_code in (401, 403):
            message = (
                f"{message}: check the login of its connection"
                if self._logs_in
                else f"{message}: give a connection with a login as conn_id"
            )
        line = " ".join(message.split())[:1000]
        transient = is_transient_answer(code, line) if code else response.status_code in _TRANSIENT_STATUS
        if response.status_code == 500 and response.request.method == "PUT" and _has_long_name(url):
            transient, line = False, f"{line}: {_LONG_NAME}"
        return TrackingError(
            f"the MLflow server {self.uri} answered {response.status_code} to {urlsplit(url).path}: {line}",
            transient=transient,
            code=code,
        )

    @property
    def _logs_in(self) -> bool:
        return self._client.auth is not None or "Authorization" in self._client.headers


def _pieces(content: IO[bytes], watch: UploadWatch) -> Iterator[bytes]:
    while piece := content.read(_PIECE):
        yield piece
        watch.sent(len(piece))


def _has_long_name(url: str) -> bool:
    return any(len(part) > _NAME_BYTES for part in unquote_to_bytes(urlsplit(url).path).split(b"/"))


def deleted_experiment(name: str, uri: str) -> str:
    """Returns the error message for a deleted experiment."""
    return f"experiment {name!r} was deleted in the MLflow store {uri}: restore it there, or choose another name"


def _json(response: httpx.Response, *, strict: bool = True) -> dict[str, Any]:
    try:
        data = response.json()
    except ValueError as error:
        if not strict:
            return {}
        raise TrackingError(
            f"{response.url.copy_with(query=None)} did not answer in JSON: is it an MLflow server?"
        ) from error
    return data if isinstance(data, dict) else {}


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _number(value: float) -> float | str:
    """Returns a float for JSON; NaN and infinities by their names in protocol buffers."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _model(data: Mapping[str, Any]) -> LoggedModel:
    info = data["info"]
    return LoggedModel(info["model_id"], info["artifact_uri"], info["status"].removeprefix(_MODEL_STATUS))


def _run(data: Mapping[str, Any]) -> Run:
    info, values = data["info"], data.get("data", {})
    return Run(
        run_id=info["run_id"],
        experiment_id=str(info["experiment_id"]),
        status=info["status"],
        name=info.get("run_name", ""),
        start_ms=int(info.get("start_time") or 0),
        end_ms=int(info["end_time"]) if info.get("end_time") else None,
        artifact_uri=info.get("artifact_uri", ""),
        tags={tag["key"]: tag.get("value", "") for tag in values.get("tags", ())},
        params={param["key"]: param.get("value", "") for param in values.get("params", ())},
        models=frozenset(made["model_id"] for made in data.get("outputs", {}).get("model_outputs", ())),
        latest={
            metric["key"]: (int(metric.get("step", 0)), int(metric["timestamp"]))
            for metric in values.get("metrics", ())
        },
        metrics={metric["key"]: float(metric.get("value", 0.0)) for metric in values.get("metrics", ())},
        inputs=tuple(
            RunInput(*(each["dataset"][name] for name in ("name", "digest", "source", "source_type")))
            for each in data.get("inputs", {}).get("dataset_inputs", ())
        ),
    )
