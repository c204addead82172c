"""The conformance suite: what the rest of the system expects of every executor.

Subclass :class:`ExecutorConformance` in a test module, and give it an ``executor`` fixture::

    class TestMyExecutor(ExecutorConformance):
        @pytest.fixture
        def executor(self, tmp_path):
            return MyExecutor(...)

The cases need a back-end that can start a process with Python 3.9 or newer, and nothing else there.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import multiprocessing
import os
import resource
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from nemo_airflow import blocking, settings
from nemo_airflow.exceptions import BackendUnavailable, ExecutorError
from nemo_airflow.executors.base import Cursor, Driver, Executor, LeaveOut
from nemo_airflow.executors.seen import Seen
from nemo_airflow.follow import Follower, Outcome
from nemo_airflow.job import FailureKind, Job, JobHandle, JobState, JobStatus, Package
from nemo_airflow.jobs.service import JobService
from nemo_airflow.packaging.archive import write_archive
from nemo_airflow.packaging.pattern import PatternPackager
from nemo_airflow.packaging.store import PackageStore
from nemo_airflow.testing import conformance_jobs
from nemo_airflow.testing.services import service_of

_TRICKY = (
    "a 'quoted' \"text\" with $(echo injected) `id` $HOME ; && | > \\ \n a second line\ttab, ünïcödé → 漢字 🙂 %s {x}"
)


_LARGE = 96_000_000
"""Bytes of a large output: many times what a connection may hold at once."""


@dataclasses.dataclass(frozen=True)
class Finished:
    """A job that was followed to its end."""

    handle: JobHandle
    outcome: Outcome
    lines: list[str]
    warnings: list[str]


class ExecutorConformance:
    """Cases for one executor. A subclass gives the ``executor`` fixture."""

    timeout: float = 120.0
    """Seconds within which any one job of the suite has to end."""

    @pytest.fixture
    def executor(self) -> Executor:
        """The executor under test."""
        raise NotImplementedError("a conformance test class has to define an 'executor' fixture")

    @pytest.fixture
    def driver(self, executor: Executor) -> Iterator[Driver]:
        """A driver of the executor."""
        driver = executor.connect()
        yield driver
        blocking.run(driver.close())

    @pytest.fixture(scope="class")
    @classmethod
    def package(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Package]:
        """The suite's own jobs, as a package in a store of its own."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path_factory.mktemp("home")))
            yield write_archive(
                {"conformance_jobs.py": inspect.getsource(conformance_jobs).encode()},
                PackageStore(settings.packages_folder()),
            )

    @pytest.fixture
    def make(self, package: Package) -> Callable[..., Job]:
        """Makes a job that calls a function of the suite's jobs."""

        def make_job(function: str, *args: Any, job: dict[str, Any] | None = None, **kwargs: Any) -> Job:
            target = f"conformance_jobs:{function}"
            root = {"_target_": target, **({"_args_": list(args)} if args else {}), **kwargs}
            fields: dict[str, Any] = {"package": package, **(job or {})}
            key = fields.pop("key", f"conformance-{uuid.uuid4().hex[:20]}")
            return Job(
                key=key, name=function, plan={"version": 1, "root": root}, allow=("conformance_jobs.",), **fields
            )

        return make_job

    @pytest.fixture
    def run(self, executor: Executor, driver: Driver, make: Callable[..., Job]) -> Callable[..., Finished]:
        """Submits a job of the suite and follows it to its end."""

        def run_job(function: str, *args: Any, **kwargs: Any) -> Finished:
            handle = blocking.run(driver.submit(executor.render(make(function, *args, **kwargs))))
            return self.follow(executor, handle)

        return run_job

    def follow(self, executor: Executor, handle: JobHandle) -> Finished:
        """Follows a job to its end."""
        lines: list[str] = []
        warnings: list[str] = []
        follower = Follower(executor, handle, on_line=lambda line: lines.append(line.text), warn=warnings.append)
        return Finished(handle, blocking.run(follower.run(), self.timeout), lines, warnings)

    def collect(self, driver: Driver, handle: JobHandle, into: Path, leave_out: LeaveOut | None = None) -> list[Path]:
        """Collects a job's outputs; a back-end that cannot answer now is asked again, as whoever follows a job does."""
        patiently = Retrying(
            retry=retry_if_exception_type(BackendUnavailable),
            wait=wait_fixed(1),
            stop=stop_after_attempt(5),
            reraise=True,
        )
        return patiently(lambda: blocking.run(driver.collect(handle, into, leave_out), self.timeout))

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Waits until something has come about."""
        deadline = time.monotonic() + self.timeout
        while not condition():
            assert time.monotonic() < deadline, f"waited {self.timeout:.0f} s for {what}"
            time.sleep(0.05)

    def wait_for_output(self, driver: Driver, handle: JobHandle, text: bytes) -> None:
        """Waits until a job has written something."""

        def written() -> bool:
            return any(text in chunk.data for chunk in blocking.run(driver.read([Cursor(handle)])))

        self.wait_for(written, f"{text!r} on the stream of {handle.key}")

    def status(self, driver: Driver, handle: JobHandle) -> JobStatus:
        """Returns a job's status."""
        return blocking.run(service_of(driver).status([handle]))[handle.key]

    def final_status(self, driver: Driver, handle: JobHandle) -> JobStatus:
        """Returns a job's status once the back-end too has seen its end."""
        self.wait_for(lambda: self.status(driver, handle).state.is_final, f"the end of {handle.key}")
        return self.status(driver, handle)

    # How a job ends

    def test_result_comes_back(self, run: Callable[..., Finished]) -> None:
        finished = run("add", a=20, b=22)
        assert finished.outcome == Outcome(JobStatus(JobState.SUCCEEDED, exit_code=0), result=42)

    def test_failure_brings_the_jobs_own_traceback(self, run: Callable[..., Finished]) -> None:
        finished = run("fail", message="it is broken")
        assert finished.outcome.status.state is JobState.FAILED
        assert finished.outcome.status.failure is FailureKind.USER_ERROR
        assert "ValueError: it is broken" in finished.outcome.message
        assert "in inner" in finished.outcome.traceback
        assert "nemo_airflow" not in finished.outcome.traceback

    @pytest.mark.parametrize("code", [1, 3, 77])
    def test_exit_code_comes_back(self, run: Callable[..., Finished], code: int) -> None:
        status = run("exit_with", code=code).outcome.status
        assert (status.state, status.exit_code) == (JobState.FAILED, code)

    def test_exit_code_zero_is_success(self, run: Callable[..., Finished]) -> None:
        assert run("exit_with", code=0).outcome.succeeded

    def test_death_by_signal_is_a_failure(self, run: Callable[..., Finished]) -> None:
        status = run("kill_self", number=int(signal.SIGSEGV)).outcome.status
        assert (status.state, status.exit_code) == (JobState.FAILED, 128 + signal.SIGSEGV)

    def test_running_out_of_memory_is_named(self, run: Callable[..., Finished]) -> None:
        status = run("allocate", limit=1 << 30, size=4 << 30).outcome.status
        assert (status.state, status.failure) == (JobState.FAILED, FailureKind.OUT_OF_MEMORY)

    # What goes in

    def test_arguments_come_through_unchanged(self, run: Callable[..., Finished]) -> None:
        assert run("echo", value=_TRICKY).outcome.result == _TRICKY

    def test_environment_comes_through_unchanged(self, run: Callable[..., Finished]) -> None:
        finished = run("environment", "TRICKY", "lower_case", job={"env": {"TRICKY": _TRICKY, "lower_case": "kept"}})
        assert finished.outcome.result == {"TRICKY": _TRICKY, "lower_case": "kept"}

    def test_a_job_without_a_package_runs_what_is_there(self, executor: Executor, driver: Driver) -> None:
        plan = {"version": 1, "root": {"_target_": "math:factorial", "_args_": [5]}}
        job = Job(key=f"conformance-{uuid.uuid4().hex[:20]}", name="factorial", plan=plan, allow=("math.",))
        handle = blocking.run(driver.submit(executor.render(job)))
        assert self.follow(executor, handle).outcome.result == 120

    def test_a_package_arrives_also_as_changes_of_another(self, run: Callable[..., Finished], tmp_path: Path) -> None:
        store = PackageStore(settings.packages_folder())
        code = tmp_path / "code"
        (code / "folder").mkdir(parents=True)
        (code / "conformance_jobs.py").write_text(inspect.getsource(conformance_jobs))
        (code / "padding.bin").write_bytes(bytes(1 << 20))
        for name in ("kept.txt", "gone.txt", "changed.txt", "folder/gone.txt"):
            (code / name).write_text(f"{name} {uuid.uuid4()}")
        packager = PatternPackager(path=str(code))
        whole = packager.package(store)
        expected = {name: (code / name).read_text() for name in ("kept.txt", "gone.txt", "changed.txt")}
        expected["folder/gone.txt"] = (code / "folder" / "gone.txt").read_text()
        assert run("read_texts", job={"package": whole}).outcome.result == expected

        (code / "gone.txt").unlink()
        (code / "folder" / "gone.txt").unlink()
        (code / "changed.txt").write_text("changed")
        (code / "folder" / "new.txt").write_text("new")
        changed = packager.package(store)
        assert changed.base == whole.digest
        expected = {"kept.txt": expected["kept.txt"], "changed.txt": "changed", "folder/new.txt": "new"}
        assert run("read_texts", job={"package": changed}).outcome.result == expected

    def test_a_package_is_read_in_the_format_that_the_session_says(
        self, executor: Executor, driver: Driver, run: Callable[..., Finished], tmp_path: Path
    ) -> None:
        assert run("read_texts").outcome.succeeded  # where jobs leave word on what they read, this one has
        (tmp_path / "conformance_jobs.py").write_text(inspect.getsource(conformance_jobs))
        (tmp_path / "new.txt").write_text(f"{uuid.uuid4()}")
        reads_zstd = blocking.run(driver.reads_zstd(executor))
        package = PatternPackager(path=str(tmp_path)).package(
            PackageStore(settings.packages_folder()), reads_zstd=reads_zstd
        )
        assert package.format == ("tar.zst" if reads_zstd else "tar.gz")
        assert run("read_texts", job={"package": package}).outcome.result == {
            "new.txt": (tmp_path / "new.txt").read_text()
        }

    # What comes out

    def test_long_log_is_complete_and_in_order(self, run: Callable[..., Finished]) -> None:
        assert run("print_lines", count=100_000).lines == [f"line {number}" for number in range(100_000)]

    def test_split_utf8_and_a_last_line_without_newline(self, run: Callable[..., Finished]) -> None:
        assert run("print_pieces").lines == ["größer → ok", "no newline"]

    def test_both_streams_and_child_processes_are_logged(self, run: Callable[..., Finished]) -> None:
        assert sorted(run("print_both").lines) == ["from a child", "to stderr", "to stdout"]

    def test_outputs_are_collected(self, run: Callable[..., Finished], driver: Driver, tmp_path: Path) -> None:
        names = ["model.bin", "with space/ünï.txt", *(f"many/{number}.txt" for number in range(200))]
        finished = run("write_outputs", names=names, size=10, job={"outputs": ("in the *.txt",)})
        collected = self.collect(driver, finished.handle, tmp_path)
        assert {str(path) for path in collected} == {*names, "in the working directory.txt"}
        assert (tmp_path / "with space" / "ünï.txt").read_bytes() == b"x" * 10

    def test_large_output_and_many_small_ones_are_collected(
        self, executor: Executor, run: Callable[..., Finished], tmp_path: Path
    ) -> None:
        handle = run("write_large_output", size=_LARGE, others=2000).handle
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            collected, grown = pool.apply(_collect_and_measure, (executor, handle, tmp_path))
        assert collected == 2001
        assert (tmp_path / "large.bin").stat().st_size == _LARGE
        assert (tmp_path / "small" / "1999").read_text() == "1999"
        assert grown < _LARGE * 2 / 3, "a large file is not to be held in memory"

    def test_output_that_links_nowhere_or_outside_is_left_out_and_all_others_are_kept(
        self, run: Callable[..., Finished], driver: Driver, tmp_path: Path
    ) -> None:
        finished = run("write_outputs_and_links")
        left_out: list[str] = []
        collected = self.collect(driver, finished.handle, tmp_path, left_out.append)
        assert {"model.bin", "ckpt/1/weights", "latest.bin"} <= {str(path) for path in collected}
        assert (tmp_path / "latest.bin").read_text() == (tmp_path / "model.bin").read_text() == "model"
        assert (tmp_path / "ckpt" / "last" / "weights").read_text() == "weights"
        assert sorted(text.split()[0] for text in left_out) == ["loop", "nowhere", "passwd", "pipe", "up"]
        assert not any(os.path.lexists(tmp_path / name) for name in ("loop", "nowhere", "passwd", "pipe", "up"))
        assert any("/etc/passwd" in text for text in left_out)

    # Ending early

    def test_time_limit_ends_the_job(self, executor: Executor, driver: Driver, make: Callable[..., Job]) -> None:
        executor = dataclasses.replace(executor, grace=1.0, time=1.0)
        handle = blocking.run(driver.submit(executor.render(make("ignore_sigterm", seconds=600))))
        finished = self.follow(executor, handle)
        assert finished.outcome.status.state is JobState.FAILED
        assert finished.outcome.status.failure is FailureKind.TIMEOUT

    def test_cancel_while_running_and_again(self, executor: Executor, driver: Driver, make: Callable[..., Job]) -> None:
        executor = dataclasses.replace(executor, grace=1.0)
        handle = blocking.run(driver.submit(executor.render(make("ignore_sigterm", seconds=600))))
        self.wait_for_output(driver, handle, b"started")
        blocking.run(driver.cancel([handle]))
        blocking.run(driver.cancel([handle]))
        finished = self.follow(executor, handle)
        assert finished.outcome.status.state is JobState.CANCELLED
        assert finished.outcome.status.failure is FailureKind.CANCELLED
        blocking.run(driver.cancel([handle]))
        assert self.status(driver, handle).state is JobState.CANCELLED

    def test_cancel_of_an_ended_job_changes_nothing(self, run: Callable[..., Finished], driver: Driver) -> None:
        handle = run("add", a=1, b=1).handle
        assert self.final_status(driver, handle).state is JobState.SUCCEEDED
        blocking.run(driver.cancel([handle]))
        assert self.status(driver, handle).state is JobState.SUCCEEDED

    def test_cancel_right_after_submitting(self, executor: Executor, driver: Driver, make: Callable[..., Job]) -> None:
        executor = dataclasses.replace(executor, grace=1.0)
        handle = blocking.run(driver.submit(executor.render(make("ignore_sigterm", seconds=600))))
        blocking.run(driver.cancel([handle]))
        assert self.follow(executor, handle).outcome.status.state is JobState.CANCELLED

    # One key, one job

    def test_submitting_again_gives_the_same_job(
        self, executor: Executor, driver: Driver, make: Callable[..., Job], tmp_path: Path
    ) -> None:
        request = executor.render(make("print_lines", count=3))
        first = blocking.run(driver.submit(request))
        assert blocking.run(driver.submit(request)) == first
        assert self.follow(executor, first).lines == ["line 0", "line 1", "line 2"]
        assert blocking.run(driver.submit(request)) == first
        assert self.follow(executor, first).lines == ["line 0", "line 1", "line 2"]

    def test_submitting_at_the_same_moment_from_several_processes_starts_one_job(
        self, executor: Executor, driver: Driver, make: Callable[..., Job]
    ) -> None:
        request = executor.render(make("print_lines", count=3))
        spawn = multiprocessing.get_context("spawn")
        with spawn.Pool(4) as pool:
            handles = pool.map(_submit, [(executor, request)] * 4)
        assert len(set(handles)) == 1
        assert self.follow(executor, handles[0]).lines == ["line 0", "line 1", "line 2"]

    @pytest.mark.parametrize("delay", [0.0, 0.3])
    def test_submit_that_is_killed_and_done_again_starts_one_job(
        self, executor: Executor, driver: Driver, make: Callable[..., Job], delay: float
    ) -> None:
        request = executor.render(make("print_lines", count=3))
        spawn = multiprocessing.get_context("spawn")
        begun = spawn.Event()
        process = spawn.Process(target=_submit_and_say, args=(begun, executor, request))
        process.start()
        assert begun.wait(self.timeout)
        time.sleep(delay)
        process.kill()
        process.join()
        handle = blocking.run(driver.submit(request), self.timeout)
        assert self.follow(executor, handle).lines == ["line 0", "line 1", "line 2"]
        assert blocking.run(driver.find([handle.key])) == {handle.key: handle}

    def test_find_knows_running_and_ended_jobs(self, run: Callable[..., Finished], driver: Driver) -> None:
        handle = run("add", a=1, b=1).handle
        assert blocking.run(driver.find([handle.key, "never-submitted"])) == {handle.key: handle}

    def test_unknown_job_is_unknown_and_not_failed(self, driver: Driver, executor: Executor) -> None:
        nobody = JobHandle("never-submitted", executor.kind, "999999999", submitted_at=time.time())
        assert self.status(driver, nobody).state is JobState.UNKNOWN
        assert blocking.run(driver.read([Cursor(nobody)])) == []
        blocking.run(driver.cancel([nobody]))

    def test_recycled_id_is_not_taken_for_the_job(self, run: Callable[..., Finished], driver: Driver) -> None:
        handle = run("add", a=1, b=1).handle
        other = dataclasses.replace(handle, key="another-job")
        assert self.status(driver, other).state is JobState.UNKNOWN

    def test_id_of_another_cluster_is_not_taken_for_the_job(self, run: Callable[..., Finished], driver: Driver) -> None:
        handle = run("add", a=1, b=1).handle
        other = dataclasses.replace(handle, key="another-job", cluster="another-cluster")
        statuses = blocking.run(service_of(driver).status([other, handle]))
        assert statuses[other.key].state is JobState.UNKNOWN
        assert statuses[handle.key].state is not JobState.UNKNOWN

    # A back-end that fails for a moment

    def test_answer_that_knows_no_job_once_loses_none(
        self, executor: Executor, driver: Driver, make: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        handle = blocking.run(driver.submit(executor.render(make("print_slowly", count=8, pause=1.0))))
        asked = blocking.run(_disturb(executor, monkeypatch, _know_nothing))
        finished = self.follow(executor, handle)
        assert asked[0] > 2
        assert finished.outcome.succeeded
        assert finished.lines == [f"line {number}" for number in range(8)]

    def test_back_end_that_is_away_for_a_moment_loses_and_doubles_nothing(
        self, executor: Executor, driver: Driver, make: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        handle = blocking.run(driver.submit(executor.render(make("print_slowly", count=8, pause=1.0))))
        asked = blocking.run(_disturb(executor, monkeypatch, _be_away))
        finished = self.follow(executor, handle)
        assert asked[0] > 2
        assert finished.outcome.succeeded
        assert finished.lines == [f"line {number}" for number in range(8)]
        assert [text for text in finished.warnings if "the job goes on" in text], finished.warnings

    # Reading

    def test_a_stream_can_be_read_from_any_offset(self, run: Callable[..., Finished], driver: Driver) -> None:
        handle = run("print_lines", count=1000).handle
        whole = blocking.run(_read_all(driver, handle, 0))
        assert blocking.run(_read_all(driver, handle, 1234)) == whole[1234:]

    def test_many_jobs_are_polled_in_one_call(
        self, executor: Executor, driver: Driver, make: Callable[..., Job]
    ) -> None:
        handles = [blocking.run(driver.submit(executor.render(make("add", a=n, b=1)))) for n in range(5)]
        results = [self.follow(executor, handle).outcome.result for handle in handles]
        assert results == [1, 2, 3, 4, 5]
        assert {self.final_status(driver, handle).state for handle in handles} == {JobState.SUCCEEDED}
        assert set(blocking.run(service_of(driver).status(handles))) == {handle.key for handle in handles}

    # Afterwards

    def test_ended_job_can_be_removed_and_a_running_one_not(
        self, executor: Executor, driver: Driver, make: Callable[..., Job], tmp_path: Path
    ) -> None:
        handle = blocking.run(driver.submit(executor.render(make("mark_and_wait", marker="marker", seconds=600))))
        self.wait_for_output(driver, handle, b"started")
        with pytest.raises(ExecutorError, match=handle.key):
            blocking.run(driver.remove([handle]))
        blocking.run(driver.cancel([handle]))
        self.follow(executor, handle)
        blocking.run(driver.remove([handle]))
        assert blocking.run(driver.find([handle.key])) == {}

    def test_render_is_pure_and_shows_what_is_sent(self, executor: Executor, make: Callable[..., Job]) -> None:
        job = make("add", a=1, b=1)
        request = executor.render(job)
        assert request == executor.render(job)
        assert job.key in request.to_text()


def _submit(arguments: tuple[Executor, Any]) -> JobHandle:
    executor, request = arguments
    return asyncio.run(executor.connect().submit(request))


def _collect_and_measure(executor: Executor, handle: JobHandle, into: Path) -> tuple[int, int]:
    """Collects a job's outputs; returns their count and by how many bytes this process has grown meanwhile."""

    async def collect() -> tuple[int, int]:
        driver = executor.connect()
        await service_of(driver).status([handle])  # loads the client
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        count = len(await driver.collect(handle, into))
        return count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024

    return asyncio.run(collect())


def _submit_and_say(begun: Any, executor: Executor, request: Any) -> None:
    async def submit() -> None:
        driver = executor.connect()
        begun.set()
        await driver.submit(request)

    asyncio.run(submit())


async def _disturb(executor: Executor, patch: pytest.MonkeyPatch, disturbed: Callable[..., Any]) -> list[int]:
    """Makes the second answer to ``look`` a bad one, and returns the count of calls."""
    driver = JobService.shared(executor).driver
    look, asked = driver.look, [0]

    async def look_badly_once(handles: Sequence[JobHandle]) -> dict[str, Seen]:
        asked[0] += 1
        seen = await look(handles)
        return dict(disturbed(seen)) if asked[0] == 2 else seen

    patch.setattr(driver, "look", look_badly_once)
    return asked


def _know_nothing(seen: dict[str, Seen]) -> dict[str, Seen]:
    return {key: Seen(each.at) for key, each in seen.items()}


def _be_away(seen: dict[str, Seen]) -> dict[str, JobStatus]:
    raise BackendUnavailable("away for a moment")


async def _read_all(driver: Driver, handle: JobHandle, offset: int) -> bytes:
    data = b""
    while chunks := await driver.read([Cursor(handle, offset + len(data))]):
        data += chunks[0].data
    return data
