"""Models that a job logs: created once, filled from its outputs, and read by MLflow itself."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import mlflow
import numpy
import pandas
import pytest
from mlflow import MlflowClient
from mlflow.models import ModelSignature
from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema
from tracking_cases import make_job, open_run

from nemo_airflow.job import Job
from nemo_airflow.runner import log_model
from nemo_airflow.stream import Record
from nemo_airflow.tracking import calls
from nemo_airflow.tracking.artifacts import files_under
from nemo_airflow.tracking.delivery import deliver_all
from nemo_airflow.tracking.mlflow import MLflowTracker
from nemo_airflow.tracking.mlflow.store import Store
from nemo_airflow.tracking.outbox import Outbox
from nemo_airflow.tracking.outputs import OutputKeeper
from nemo_airflow.tracking.run import RunSink, TrackedRun
from nemo_airflow.tracking.spool import Spool
from nemo_airflow.tracking.undelivered import Undelivered

pytestmark = pytest.mark.stores("sqlite", "server", "postgres")

SIGNATURE = {
    "inputs": [{"name": "width", "type": "double"}],
    "outputs": [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1]}}],
    "params": [{"name": "beam", "type": "long", "default": 3}],
}


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a job's process finds itself; returns the folder of its outputs."""
    monkeypatch.setenv("NEMO_AIRFLOW_EVENTS", str(tmp_path / "events"))
    monkeypatch.setenv("NEMO_AIRFLOW_OUTPUT_DIR", str(tmp_path / "job" / "outputs"))
    return tmp_path / "job" / "outputs"


def write(path: Path, text: str = "weights") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def opened_run(tracker: MLflowTracker, job: Job) -> TrackedRun:
    return TrackedRun(tracker, job, "tests", shares_filesystem=True, ref=open_run(tracker, job))


def keep(run: TrackedRun, folder: Path) -> list[str]:
    warnings: list[str] = []
    assert asyncio.run(OutputKeeper(run, inform=lambda line: None, warn=warnings.append).keep(folder))
    return warnings


def models_of(uri: str, run_id: str) -> list[Any]:
    client = MlflowClient(uri)
    made = client.get_run(run_id).outputs.model_outputs
    return [client.get_logged_model(each.model_id) for each in made]


def test_a_model_is_pending_once_and_ready_when_its_files_are_kept(
    tracker: MLflowTracker, uri: str, job: Job, outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_model(write(tmp_path / "net.bin"), "net", signature=SIGNATURE, input_example={"width": [1.5, 2.0]})
    write(outputs / "curve.txt", "a curve")
    run = opened_run(tracker, job)
    assert run.ref is not None
    for _ in range(2):
        calls.model("net", "models/net").make(tracker, run.ref)
    [model] = models_of(uri, run.ref.run_id)
    assert (model.name, str(model.status), model.source_run_id) == ("net", "PENDING", run.ref.run_id)
    assert model.params["lr"] == "0.1"
    assert model.tags["mlflow.source.name"] == "retrain.train"

    assert keep(run, tmp_path / "job") == []
    [model] = models_of(uri, run.ref.run_id)
    assert str(model.status) == "READY"
    client = MlflowClient(uri)
    assert {file.path for file in client.list_artifacts(run.ref.run_id)} == {"curve.txt", "nemo_airflow"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    info = mlflow.models.get_model_info(f"models:/{model.model_id}")
    assert (info.run_id, info.model_id, list(info.flavors)) == (run.ref.run_id, model.model_id, ["nemo_airflow"])
    assert info.signature == ModelSignature(
        Schema([ColSpec("double", "width")]),
        Schema.from_json(json.dumps(SIGNATURE["outputs"])),
        ParamSchema([ParamSpec("beam", "long", 3)]),
    )
    folder = mlflow.artifacts.download_artifacts(f"models:/{model.model_id}", dst_path=str(tmp_path))
    assert mlflow.models.Model.load(folder).load_input_example(folder) == {"width": [1.5, 2.0]}
    assert Path(folder, info.flavors["nemo_airflow"]["data"]).read_text() == "weights"


def test_a_model_that_mlflow_has_saved_is_logged_as_it_is_and_can_be_called(
    tracker: MLflowTracker, uri: str, job: Job, outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Double(mlflow.pyfunc.PythonModel):
        def predict(self, model_input: list[int], params: Any = None) -> list[int]:
            return [2 * each for each in model_input]

    mlflow.pyfunc.save_model(tmp_path / "saved", python_model=Double(), pip_requirements=["mlflow"])
    log_model(tmp_path / "saved", "double")
    run = opened_run(tracker, job)
    assert run.ref is not None
    calls.model("double", "models/double").make(tracker, run.ref)
    keep(run, tmp_path / "job")
    [model] = models_of(uri, run.ref.run_id)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    loaded = mlflow.pyfunc.load_model(f"models:/{model.model_id}")
    assert loaded.predict([1, 2]) == [2, 4]
    assert loaded.metadata.model_id == model.model_id


@pytest.mark.parametrize(
    ("example", "kind", "read"),
    [
        (pandas.DataFrame({"a": [1, 2], "b": [0.5, 1.0]}), "dataframe", {"a": {0: 1, 1: 2}, "b": {0: 0.5, 1: 1.0}}),
        (numpy.arange(6).reshape(2, 3), "ndarray", [[0, 1, 2], [3, 4, 5]]),
        ({"x": numpy.ones(2)}, "ndarray", {"x": [1.0, 1.0]}),
        (["Größe", "a 😀"], "json_object", ["Größe", "a 😀"]),
    ],
    ids=["table", "array", "arrays", "json"],
)
def test_mlflow_reads_any_input_example(example: Any, kind: str, read: Any, outputs: Path, tmp_path: Path) -> None:
    log_model(write(tmp_path / "m.bin"), input_example=example, metadata={"note": "a 😀"})
    folder = str(outputs / "models" / "m")
    model = mlflow.models.Model.load(folder)
    assert model.saved_input_example_info["type"] == kind
    assert model.metadata == {"note": "a 😀"}
    found = model.load_input_example(folder)
    if isinstance(found, pandas.DataFrame):
        found = found.to_dict()
    elif isinstance(found, dict):
        found = {name: numpy.asarray(value).tolist() for name, value in found.items()}
    elif not isinstance(found, list):
        found = found.tolist()
    assert found == read
    assert model.get_serving_input(folder)


def test_a_signature_of_mlflow_itself_is_taken(outputs: Path, tmp_path: Path) -> None:
    signature = ModelSignature(Schema([ColSpec("long")]), None, ParamSchema([ParamSpec("t", "double", 0.5)]))
    log_model(write(tmp_path / "m.bin"), signature=signature)  # type: ignore[arg-type]
    assert mlflow.models.Model.load(str(outputs / "models" / "m")).signature == signature


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"name": "a/b"}, ValueError, "MLflow allows no / : . % and quotes"),
        ({"name": ""}, ValueError, "is no name for a model"),
        ({"signature": {"in": []}}, ValueError, "is not a dict with the lists inputs, outputs, params"),
        ({"signature": {"inputs": [{"name": "x", "type": "f64"}]}}, ValueError, "the types are any, array, binary"),
        ({"signature": {"inputs": [{"type": "tensor"}]}}, ValueError, "tensor-spec"),
        ({"input_example": object()}, TypeError, "input_example is not JSON"),
        ({"metadata": {"x": {1}}}, TypeError, "flavors or metadata is not JSON"),
    ],
)
def test_what_mlflow_could_not_read_is_refused_in_the_job(
    given: dict[str, Any], error: type[Exception], says: str, outputs: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=says):
        log_model(write(tmp_path / "m.bin"), **given)
    assert not outputs.exists()


def test_models_of_one_name_have_folders_of_their_own(outputs: Path, tmp_path: Path) -> None:
    for number in range(2):
        log_model(write(tmp_path / str(number) / "net.bin", str(number)))
    assert sorted(os.listdir(outputs / "models")) == ["net", "net-2"]
    assert (outputs / "models" / "net-2" / "net.bin").read_text() == "1"


def test_two_models_from_a_lost_answer_become_one(
    tracker: MLflowTracker, uri: str, store: Store, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = open_run(tracker, job)
    create = type(store).create_model

    def create_twice(self: Store, *arguments: Any) -> None:
        create(self, *arguments)
        create(self, *arguments)

    monkeypatch.setattr(type(store), "create_model", create_twice)
    calls.model("net", "models/net").make(tracker, ref)
    [model] = models_of(uri, ref.run_id)
    assert [each.model_id for each in MlflowClient(uri).search_logged_models([ref.experiment_id]) if
            each.source_run_id == ref.run_id] == [model.model_id]  # fmt: skip


def test_a_sink_records_a_model_that_the_job_says_it_has_logged(database: str, job: Job) -> None:
    run = opened_run(MLflowTracker(tracking_uri=database), job)
    assert run.ref is not None
    sink = RunSink(run, print)
    call = sink._call_of(Record("model", {"name": "net", "path": "models/net"}, 1.0, 100))
    assert call == calls.model("net", "models/net")
    assert calls.Call.from_json(call.to_json()).what == "model 'net'"


def test_a_model_whose_records_and_files_waited_on_disk_is_ready_when_both_are_delivered(
    database: str, job: Job, outputs: Path, tmp_path: Path
) -> None:
    log_model(write(tmp_path / "net.bin"), "net")
    run = opened_run(MLflowTracker(tracking_uri=database), job)
    assert run.ref is not None
    files = {path.as_posix(): outputs / path for path in files_under(outputs)}
    records, kept = Outbox(), Outbox()
    records.put(calls.model("net", "models/net"))
    kept.file_calls += (calls.files(files), calls.outputs_kept())
    for outbox in (records, kept):
        assert not Undelivered(job.key, 1_700_000_000.0).keep(run, outbox, "").lost
    assert [report.problem for report in deliver_all(Spool())] == ["", ""]
    [model] = models_of(database, run.ref.run_id)
    assert str(model.status) == "READY"
    assert {file.path for file in MlflowClient(database).list_logged_model_artifacts(model.model_id)} == {
        "MLmodel",
        "net.bin",
    }


def test_a_run_without_models_keeps_its_outputs_as_before(
    tracker: MLflowTracker, uri: str, job: Job, outputs: Path, tmp_path: Path
) -> None:
    write(outputs / "models" / "net" / "net.bin")
    run = opened_run(tracker, make_job("no-models"))
    assert run.ref is not None
    keep(run, tmp_path / "job")
    assert [file.path for file in MlflowClient(uri).list_artifacts(run.ref.run_id, "models/net")] == [
        "models/net/net.bin"
    ]
