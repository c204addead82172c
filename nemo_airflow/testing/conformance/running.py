"""How a job ends, and what goes into it."""

from __future__ import annotations

import inspect
import signal
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from nemo_airflow import blocking, settings
from nemo_airflow.executors.base import Driver, Executor
from nemo_airflow.follow import Outcome
from nemo_airflow.job import FailureKind, Job, JobState, JobStatus
from nemo_airflow.packaging.pattern import PatternPackager
from nemo_airflow.store import PackageStore
from nemo_airflow.testing.conformance import jobs
from nemo_airflow.testing.conformance.base import ConformanceCases, Finished

_TRICKY = (
    "a 'quoted' \"text\" with $(echo injected) `id` $HOME ; && | > \\ \n a second line\ttab, ünïcödé → 漢字 🙂 %s {x}"
)


class RunningCases(ConformanceCases):
    """A job gets what was given, and its end is told as it was."""

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

    @pytest.mark.parametrize("code", [1, 77])
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
        (code / "conformance_jobs.py").write_text(inspect.getsource(jobs))
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
        (tmp_path / "conformance_jobs.py").write_text(inspect.getsource(jobs))
        new = tmp_path / f"{uuid.uuid4()}.txt"
        new.write_text(new.name)
        reads_zstd = blocking.run(driver.reads_zstd(executor))
        # With options of its own: what is a later version of other code has the format of the earlier one.
        package = PatternPackager(path=str(tmp_path), include=["/*.py", f"/{new.name}"]).package(
            PackageStore(settings.packages_folder()), reads_zstd=reads_zstd
        )
        assert package.format == ("tar.zst" if reads_zstd else "tar.gz")
        assert run("read_texts", job={"package": package}).outcome.result == {new.name: new.name}
