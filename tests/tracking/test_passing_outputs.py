"""Outputs that pass through a worker: never many of them on its disk, each kept once, whatever happens on the way."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from mlflow import MlflowClient

from nemo_airflow.exceptions import BackendUnavailable, StoreError, TrackingError
from nemo_airflow.executors.base import Driver
from nemo_airflow.executors.host import folders
from nemo_airflow.executors.host.driver import HostDriver
from nemo_airflow.executors.ssh import SSHExecutor
from nemo_airflow.executors.ssh.driver import SSHDriver
from nemo_airflow.folders import folder_size
from nemo_airflow.job import Job, JobHandle
from nemo_airflow.jobs.collecting import collect_outputs
from nemo_airflow.progress import Progress
from nemo_airflow.ssh.local import LocalPipe, LocalShell
from nemo_airflow.ssh.shell import Answer
from nemo_airflow.store.address import open_store
from nemo_airflow.store.trees import get_tree
from nemo_airflow.tracking.base import OUTPUTS_DIGEST, UNWATCHED, RunRef, UploadWatch
from nemo_airflow.tracking.delivery import deliver_all
from nemo_airflow.tracking.mlflow import MLflowTracker
from nemo_airflow.tracking.outputs import OutputKeeper
from nemo_airflow.tracking.passage import Passage
from nemo_airflow.tracking.run import TrackedRun
from nemo_airflow.tracking.spool import Spool

MB = 1_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class OverAShell(SSHExecutor):
    """Jobs of a host whose shell is that of this machine."""

    def connect(self) -> Driver:
        return SSHDriver(None, self.root)


class Counting(MLflowTracker):
    """MLflow, with a list of the files that were sent to it."""

    sent: list[str] = []  # noqa: RUF012 - set anew by each test

    def artifacts(self, ref: RunRef, files: Mapping[str, Path], watch: UploadWatch = UNWATCHED) -> None:
        self.sent.extend(files)
        super().artifacts(ref, files, watch)


@pytest.fixture(autouse=True)
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(Counting, "sent", [])
    return Counting.sent


class Case:
    """A job that has ended, and what it has left.

    Attributes:
        outputs: The job's output folder.
        folder: The worker's room.
        said: What was said of the transfer.
        most: Most bytes that were on the worker's disk at one time.
    """

    def __init__(self, run: TrackedRun, tmp_path: Path) -> None:
        self.run = run
        self.executor = OverAShell(root=str(tmp_path / "host"))
        self.outputs = tmp_path / "host/jobs" / run.job.key / "outputs"
        self.outputs.mkdir(parents=True)
        self.folder = tmp_path / "worker"
        self.said: list[str] = []
        self.most = 0

    def write(self, files: Mapping[str, bytes | str]) -> None:
        for name, content in files.items():
            path = self.outputs / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def keep(self, bound: int | None = None, stall: float = 60) -> bool:
        """Fetches the outputs and keeps them, as the job's worker does."""
        self.folder.mkdir(exist_ok=True)
        over = threading.Event()
        watching = threading.Thread(target=self._watch, args=(over,))
        watching.start()
        try:
            return asyncio.run(self._keep(bound, stall))
        finally:
            over.set()
            watching.join()

    async def _keep(self, bound: int | None, stall: float) -> bool:
        keeper = OutputKeeper(self.run, inform=self.said.append, warn=self.said.append, stall=stall)
        passage = Passage(self.folder, Progress("outputs kept", self.said.append), bound=bound)
        handle = JobHandle(self.run.job.key, "ssh", "1", "here", 0.0)
        with keeper.begin(passage) as keepers:
            passage.start()
            await collect_outputs(
                self.executor, handle, passage.into, counts={"files": 1}, inform=self.said.append,
                warn=self.said.append, intake=passage,
            )  # fmt: skip
            return await keeper.finish(keepers)

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(0.005):
            self.most = max(self.most, folder_size(self.folder))


@pytest.fixture
def case(database: str, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setenv("NEMO_AIRFLOW_STORE", str(tmp_path / "shared"))
    run = TrackedRun(Counting(tracking_uri=database), job, "passing", shares_filesystem=False)
    return Case(run.open(), tmp_path)


def of_run(case: Case, into: Path) -> dict[str, bytes]:
    """Returns what MLflow has of the job's outputs, by path."""
    assert case.run.ref is not None
    into.mkdir()
    MlflowClient(case.run.ref.uri).download_artifacts(case.run.ref.run_id, "", str(into))
    found = {path.relative_to(into).as_posix(): path.read_bytes() for path in into.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if not name.startswith("nemo_airflow/")}


def of_store(case: Case, shared: Path, into: Path) -> dict[str, bytes]:
    """Returns what the shared store has of them."""
    assert case.run.ref is not None
    digest = MlflowClient(case.run.ref.uri).get_run(case.run.ref.run_id).data.tags[OUTPUTS_DIGEST]
    return {path.as_posix(): (into / path).read_bytes() for path in get_tree(open_store(str(shared)), digest, into)}


def assert_kept(case: Case, files: Mapping[str, bytes], tmp_path: Path) -> None:
    assert of_run(case, tmp_path / "of run") == files
    assert of_store(case, tmp_path / "shared", tmp_path / "of store") == files


def test_many_more_bytes_than_the_bound_are_never_on_the_disk_at_one_time(case: Case, tmp_path: Path) -> None:
    files = {f"part/{number:02}.bin": os.urandom(MB) for number in range(40)}
    files |= {f"small/{number:03}": os.urandom(100) for number in range(200)}
    case.write(files)
    assert case.keep(bound=4 * MB)
    assert 0 < case.most <= 5 * MB
    assert folder_size(case.folder) == 0
    assert_kept(case, files, tmp_path)


def test_file_that_is_larger_than_the_bound_passes_alone(case: Case, tmp_path: Path) -> None:
    files = {f"{number}.bin": os.urandom((number % 3 * 4 + 1) * MB) for number in range(6)}
    case.write(files)
    assert case.keep(bound=2 * MB)
    assert case.most <= 10 * MB
    assert_kept(case, files, tmp_path)


def test_cut_stream_is_asked_for_again_and_what_is_kept_is_not_sent_again(
    case: Case, tmp_path: Path, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{number:02}.bin": os.urandom(MB) for number in range(20)}
    case.write(files)
    pieces, times = LocalPipe.pieces, []

    async def cut(pipe: LocalPipe) -> AsyncIterator[bytes]:
        times.append(1)
        left = 10.5 * MB if len(times) == 1 else float("inf")
        async for piece in pieces(pipe):
            if (left := left - len(piece)) < 0:
                while len(sent) < 8:  # the files before are on their way
                    await asyncio.sleep(0.01)
                raise BackendUnavailable("cut off")
            yield piece

    monkeypatch.setattr(LocalPipe, "pieces", cut)
    assert case.keep(bound=8 * MB)
    assert "the outputs cannot be fetched now, trying again: cut off" in case.said
    assert sorted(sent) == sorted(files)
    assert_kept(case, files, tmp_path)


def test_file_that_has_changed_before_it_is_asked_for_again_is_sent_again(
    case: Case, tmp_path: Path, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    case.write({"a": "first", "b": os.urandom(MB)})
    pieces = LocalPipe.pieces

    async def cut(pipe: LocalPipe) -> AsyncIterator[bytes]:
        monkeypatch.setattr(LocalPipe, "pieces", pieces)
        came = 0
        async for piece in pieces(pipe):
            came += len(piece)
            if came > MB // 2:
                break
            yield piece
        while "a" not in sent:
            await asyncio.sleep(0.01)
        case.write({"a": "other"})
        raise BackendUnavailable("cut off")

    monkeypatch.setattr(LocalPipe, "pieces", cut)
    assert case.keep()
    assert of_run(case, tmp_path / "of run")["a"] == b"other"
    assert sorted(sent) == ["a", "a", "b"]


def test_of_200_files_of_which_one_is_refused_the_others_are_sent_once(
    case: Case, tmp_path: Path, sent: list[str]
) -> None:
    files = {f"{number:03}": f"content {number}".encode() for number in range(200)}
    case.write({**files, "blocked/x": "refused"})
    assert case.run.ref is not None
    run = MlflowClient(case.run.ref.uri).get_run(case.run.ref.run_id)
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    artifacts.mkdir(parents=True, exist_ok=True)
    (artifacts / "blocked").write_text("a file where a folder should be")
    assert not case.keep()
    assert sorted(name for name in sent if name in files) == sorted(files)
    [warning] = [line for line in case.said if "refused" in line]
    assert warning.startswith("these outputs are refused, all others are kept: blocked/x: ")
    assert {name: data for name, data in of_run(case, tmp_path / "of run").items() if name != "blocked"} == files


def test_outputs_wait_in_the_spool_while_the_tracker_is_away_and_the_disk_has_no_second_copy(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def be_away(*_: object, **__: object) -> None:
        raise TrackingError("nobody answers", transient=True)

    files = {f"{number:02}.bin": os.urandom(MB) for number in range(12)}
    case.write(files)
    with monkeypatch.context() as outage:
        outage.setattr(Counting, "artifacts", be_away)
        assert case.keep(bound=3 * MB, stall=1)
    assert case.most <= 4 * MB
    assert f"the tracker is away (nobody answers), so {len(files)} outputs wait in" in case.said[-1]
    shutil.rmtree(case.outputs)
    (report,) = deliver_all(Spool())
    assert report.problem == ""
    assert_kept(case, files, tmp_path)


def in_order(root: str, key: str) -> str:
    """Returns a command that sends a link where its name comes, as Docker does."""
    return f"exec sh -c 'cd {root}/jobs/{key}/outputs && tar --sort=name -cf - .'"


@pytest.mark.parametrize("links_first", [True, False])
def test_links_are_kept_as_the_files_that_they_stand_for(
    case: Case, tmp_path: Path, sent: list[str], monkeypatch: pytest.MonkeyPatch, links_first: bool
) -> None:
    case.write({"blobs/1": "one", "blobs/2": "two", "z": "last"})
    (case.outputs / "snapshot").mkdir()
    (case.outputs / "snapshot/model").symlink_to("../blobs/1")
    (case.outputs / "a").symlink_to("z")
    (case.outputs / "chain").symlink_to("snapshot/model")
    (case.outputs / "folder").symlink_to("blobs")
    (case.outputs / "through").symlink_to("folder/2")
    os.link(case.outputs / "blobs/2", case.outputs / "hard")
    (case.outputs / "nowhere").symlink_to("gone")
    (case.outputs / "circle").symlink_to("circle")
    if not links_first:
        monkeypatch.setattr(folders, "send_outputs", in_order)
    assert case.keep()
    kept = {
        "blobs/1": b"one", "blobs/2": b"two", "z": b"last", "snapshot/model": b"one", "a": b"last", "chain": b"one",
        "through": b"two", "hard": b"two",
    }  # fmt: skip
    assert_kept(case, kept, tmp_path)
    assert sorted(sent) == sorted(kept)
    [warning] = [line for line in case.said if "cannot be kept" in line]
    assert "nowhere links to gone, which is not there" in warning
    assert "circle" in warning


def test_store_that_refuses_ends_the_transfer_and_nothing_waits_for_ever(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setenv("NEMO_AIRFLOW_STORE", str(tmp_path / "a file"))
    case.write({f"{number:02}.bin": os.urandom(MB) for number in range(20)})
    with pytest.raises(StoreError, match="a file"):
        case.keep(bound=2 * MB)


def test_tracker_that_refuses_all_ends_the_transfer(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise TrackingError("no room", transient=False)

    monkeypatch.setattr(Counting, "artifacts", refuse)
    case.write({f"{number:02}.bin": os.urandom(MB) for number in range(20)})
    with pytest.raises(TrackingError, match="no room"):
        case.keep(bound=2 * MB)


def test_slow_tracker_holds_the_source_back_and_is_not_taken_for_its_silence(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts = Counting.artifacts

    def slowly(*arguments: object) -> None:
        time.sleep(0.3)
        artifacts(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Counting, "artifacts", slowly)
    files = {f"{number}.bin": os.urandom(MB) for number in range(10)}
    case.write(files)
    assert case.keep(bound=MB)
    assert_kept(case, files, tmp_path)


def test_output_with_the_name_of_the_record_is_kept_under_another(case: Case, tmp_path: Path) -> None:
    case.write({"nemo_airflow/plan.json": "mine", "job_nemo_airflow/x": "also mine"})
    assert case.keep()
    kept = of_run(case, tmp_path / "of run")
    assert sorted(kept.values()) == [b"also mine", b"mine"]
    assert all(name.startswith("job_nemo_airflow") for name in kept)


@pytest.fixture(autouse=True)
def disk_of_its_own(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host of most jobs has a disk that the worker does not see."""

    async def find_nothing(driver: HostDriver, key: str) -> None:
        return None

    if "sees" not in request.node.name:
        monkeypatch.setattr(HostDriver, "_find_here", find_nothing)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 20
    while any(thread.name == "nemo-keep" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns the commands whose output was read as a stream."""
    receive, commands = LocalShell.receive, []

    def noted(shell: LocalShell, command: str) -> AbstractAsyncContextManager[LocalPipe]:
        commands.append(command)
        return receive(shell, command)

    monkeypatch.setattr(LocalShell, "receive", noted)
    return commands


def test_worker_that_sees_the_disk_of_the_host_reads_the_outputs_there(
    case: Case, tmp_path: Path, streams: list[str]
) -> None:
    files = {f"part/{number}.bin": os.urandom(MB) for number in range(5)} | {"small": b"x"}
    case.write(files)
    (case.outputs / "latest").symlink_to("part/4.bin")
    assert case.keep(bound=1)
    assert (streams, case.most) == ([], 0)
    assert_kept(case, {**files, "latest": files["part/4.bin"]}, tmp_path)
    assert {path.relative_to(case.outputs).as_posix() for path in case.outputs.rglob("*") if path.is_file()} == {
        *files,
        "latest",
    }
    assert [path.name for path in case.outputs.parent.iterdir()] == ["outputs"]  # the mark is gone


def test_worker_that_sees_another_disk_at_the_same_path_is_not_misled(
    case: Case, tmp_path: Path, streams: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    case.write({"model": "right"})
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "host", other)
    (other / "jobs" / case.run.job.key / "outputs/model").write_text("wrong")
    run = LocalShell.run

    async def on_another_machine(shell: LocalShell, script: str, silence: float = 60) -> Answer:
        answer = await run(shell, script, silence)
        return dataclasses.replace(answer, out=answer.out.replace(bytes(tmp_path / "host"), bytes(other)))

    monkeypatch.setattr(LocalShell, "run", on_another_machine)
    assert case.keep()
    assert len(streams) == 1
    assert of_run(case, tmp_path / "of run") == {"model": b"right"}


def test_worker_that_sees_outputs_but_may_not_read_one_takes_the_stream(
    case: Case, tmp_path: Path, streams: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    case.write({"model": "weights"})
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("/model") and access(path, mode))
    assert case.keep()
    assert len(streams) == 1
    assert of_run(case, tmp_path / "of run") == {"model": b"weights"}
