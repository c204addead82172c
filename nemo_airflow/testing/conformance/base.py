"""What all cases of the conformance suite share: the executor under test, its jobs, and following them."""

from __future__ import annotations

import dataclasses
import inspect
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from nemo_airflow import blocking, settings
from nemo_airflow.exceptions import BackendUnavailable
from nemo_airflow.executors.base import Cursor, Driver, Executor, LeaveOut
from nemo_airflow.follow import Follower, Outcome
from nemo_airflow.job import Job, JobHandle, JobStatus, Package
from nemo_airflow.packaging.archive import write_archive
from nemo_airflow.store import PackageStore
from nemo_airflow.testing.conformance import jobs
from nemo_airflow.testing.services import service_of


@dataclasses.dataclass(frozen=True)
class Finished:
    """A job that was followed to its end."""

    handle: JobHandle
    outcome: Outcome
    lines: list[str]
    warnings: list[str]


class ConformanceCases:
    """Cases for one executor. A subclass gives the ``executor`` fixture."""

    timeout: float = 120.0
    """Seconds within which any one job of the suite has to end."""

    _ended: ClassVar[dict[str, JobHandle]] = {}

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
                {"conformance_jobs.py": inspect.getsource(jobs).encode()},
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

    @pytest.fixture
    def ended(self, executor: Executor, run: Callable[..., Finished]) -> JobHandle:
        """A job that has ended well: one for all tests of the same executor."""
        if (name := repr(executor)) not in self._ended:
            self._ended[name] = run("add", a=1, b=1).handle
        return self._ended[name]

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
