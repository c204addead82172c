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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any
from urllib.parse import SplitResult, quote, unquote_to_bytes, urlsplit

import httpx

from nemo_airflow import tls
from nemo_airflow.exceptions import TrackingError
from nemo_airflow.tracking.base import Metric, RunInput, UploadWatch
from nemo_airflow.tracking.mlflow import fields
from nemo_airflow.tracking.mlflow.store import (
    NEWEST_END_FIRST,
    NOT_FOUND,
    Credentials,
    LoggedModel,
    Run,
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

    def _get(self, path: str, **params: str) -> dict[str, Any]:
        return self._request("GET", f"{self.uri}{_API}/{path}", params=params)

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._request("POST", f"{self.uri}{_API}/{path}", json=body)

    def _request(self, method: str, url: str, **kwargs: Any) -> dict[str, Any]:
        response = self._send(method, url, **kwargs)
        return _json(response) if method != "PUT" else {}

    def _send(self, method: str, url: str, **kwargs: Any) -> httpx.Response:
        try:
            response = self._client.request(method, url, **kwargs)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            if problem := tls.certificate_problem(error, _VERIFY_SETTING, _CLIENT_CERT_SETTING):
                raise TrackingError(f"the MLflow server {self.uri} cannot be used: {problem}") from error
            what = f"{type(error).__name__}: {error}".rstrip(": ")
            cut = isinstance(error, (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError))
            if method == "PUT" and cut and _has_long_name(url):  # the server may not read a file that it refuses
                raise TrackingError(
                    f"the MLflow server {self.uri} does not take a file ({what}): {_LONG_NAME}"
                ) from error
            raise TrackingError(f"the MLflow server {self.uri} cannot be reached ({what})", transient=True) from error
        if response.is_success:
            return response
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
        if response.status_code == 500 and method == "PUT" and _has_long_name(url):
            transient, line = False, f"{line}: {_LONG_NAME}"
        raise TrackingError(
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
