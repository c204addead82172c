"""Where the outputs of a job are kept: in its run and in the shared store, each file once."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient

from nemo_airflow.exceptions import StoreError, TrackingError
from nemo_airflow.job import Job
from nemo_airflow.store.address import open_store
from nemo_airflow.store.trees import get_tree
from nemo_airflow.tracking.artifacts import files_under
from nemo_airflow.tracking.base import OUTPUTS_DIGEST, UNWATCHED, RunRef, UploadWatch
from nemo_airflow.tracking.delivery import deliver_all
from nemo_airflow.tracking.mlflow import MLflowTracker
from nemo_airflow.tracking.outputs import OutputKeeper
from nemo_airflow.tracking.run import TrackedRun
from nemo_airflow.tracking.spool import Spool


@pytest.fixture
def run(database: str, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrackedRun:
    monkeypatch.setenv("NEMO_AIRFLOW_STORE", str(tmp_path / "shared"))
    return TrackedRun(MLflowTracker(tracking_uri=database), job, "kept outputs", shares_filesystem=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "job/outputs/sub").mkdir(parents=True)
    (tmp_path / "job/outputs/model.bin").write_text("weights")
    (tmp_path / "job/outputs/sub/part").write_text("more")
    return tmp_path / "job"


KEPT = {"model.bin": "weights", "sub/part": "more"}


def keep(run: TrackedRun, folder: Path, stall: float = 60) -> tuple[bool, list[str]]:
    said: list[str] = []
    return asyncio.run(OutputKeeper(run, inform=said.append, warn=said.append, stall=stall).keep(folder)), said


def texts(folder: Path) -> dict[str, str]:
    return {path.as_posix(): (folder / path).read_text() for path in files_under(folder)}


def test_outputs_are_in_the_run_and_in_the_shared_store(
    run: TrackedRun, folder: Path, database: str, tmp_path: Path
) -> None:
    opened = run.open()
    assert opened.ref is not None
    assert keep(opened, folder) == (True, [])
    client = MlflowClient(database)
    assert texts(Path(client.download_artifacts(opened.ref.run_id, "", str(tmp_path)))).items() >= KEPT.items()
    digest = client.get_run(opened.ref.run_id).data.tags[OUTPUTS_DIGEST]
    get_tree(open_store(str(tmp_path / "shared")), digest, tmp_path / "again")
    assert texts(tmp_path / "again") == KEPT


def test_run_that_nobody_could_open_before_is_opened_and_has_them(run: TrackedRun, folder: Path, database: str) -> None:
    assert keep(run, folder) == (True, [])
    assert keep(run, folder) == (True, [])  # the same run
    client = MlflowClient(database)
    experiment = client.get_experiment_by_name("kept outputs")
    (found,) = client.search_runs([experiment.experiment_id], f"tags.`nemo_airflow.key` = '{run.job.key}'")
    assert {"model.bin", "sub"} <= {file.path for file in client.list_artifacts(found.info.run_id)}


class Breaking(MLflowTracker):
    """MLflow whose store of files breaks off once, when all but one are sent."""

    sent: list[str] = []  # noqa: RUF012 - set anew by the test

    def artifacts(self, ref: RunRef, files: Mapping[str, Path], watch: UploadWatch = UNWATCHED) -> None:
        whole = not self.sent
        now = dict(list(files.items())[:-1]) if whole else files
        self.sent.extend(now)
        super().artifacts(ref, now, watch)
        if whole:
            raise TrackingError("the connection broke", transient=True)


def test_file_that_is_stored_is_not_sent_again_after_a_cut(
    run: TrackedRun, folder: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        (folder / "outputs" / f"{number:02}").write_text("x")
    monkeypatch.setattr(Breaking, "sent", [])
    opened = TrackedRun(Breaking(tracking_uri=database), run.job, "kept outputs", shares_filesystem=False).open()
    kept, said = keep(opened, folder)
    assert kept
    assert sorted(Breaking.sent) == sorted(path.as_posix() for path in files_under(folder / "outputs"))
    (line,) = said
    assert line == "the outputs are not kept yet, trying again: the connection broke"


def test_outputs_that_the_tracker_refuses_are_not_called_kept(
    run: TrackedRun, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise TrackingError("no room", transient=False)

    monkeypatch.setattr(MLflowTracker, "artifacts", refuse)
    with pytest.raises(TrackingError, match="no room"):
        keep(run.open(), folder, stall=3600)


@pytest.mark.parametrize("away", ["artifacts", "open"])
def test_outputs_wait_on_disk_while_the_tracker_is_away_and_are_delivered_once_it_is_back(
    run: TrackedRun, folder: Path, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, away: str
) -> None:
    def be_away(*_: object, **__: object) -> None:
        raise TrackingError("nobody answers", transient=True)

    opened = run.open() if away == "artifacts" else run
    with monkeypatch.context() as outage:
        outage.setattr(MLflowTracker, away, be_away)
        kept, said = keep(opened, folder, stall=1)
    assert kept
    assert "the tracker is away (nobody answers), so 2 outputs wait in" in said[-1]
    shutil.rmtree(folder)
    (report,) = deliver_all(Spool())
    assert report.problem == ""
    assert list(deliver_all(Spool())) == []
    client = MlflowClient(database)
    assert texts(Path(client.download_artifacts(report.run_id, "", str(tmp_path)))).items() >= KEPT.items()
    get_tree(open_store(str(tmp_path / "shared")), client.get_run(report.run_id).data.tags[OUTPUTS_DIGEST], folder)
    assert texts(folder) == KEPT


def test_outputs_for_which_the_disk_has_no_room_are_not_called_kept(
    run: TrackedRun, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def be_away(*_: object) -> None:
        raise TrackingError("nobody answers", transient=True)

    monkeypatch.setattr(MLflowTracker, "artifacts", be_away)
    monkeypatch.setenv("NEMO_AIRFLOW_SPOOL_LIMIT", "1")
    with pytest.raises(OSError, match="spool"):
        keep(run.open(), folder, stall=1)


def test_shared_store_without_rights_is_an_error_and_nothing_is_called_kept(
    run: TrackedRun, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setenv("NEMO_AIRFLOW_STORE", str(tmp_path / "a file"))
    with pytest.raises(StoreError, match="a file"):
        keep(run.open(), folder, stall=3600)


def test_outputs_are_kept_while_others_hold_all_threads_of_the_event_loop(run: TrackedRun, folder: Path) -> None:
    async def keep_meanwhile() -> bool:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        over = threading.Event()
        try:
            loop.run_in_executor(None, over.wait)  # whatever others wait for
            keeper = OutputKeeper(run.open(), inform=print, warn=pytest.fail)
            return await asyncio.wait_for(keeper.keep(folder), 300)
        finally:
            over.set()

    assert asyncio.run(keep_meanwhile())
