"""Brings an experiment to its end: submits each job when those before it have succeeded, and follows all of them."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any

from nemo_airflow import settings
from nemo_airflow.exceptions import BackendUnavailable, JobFailed, NemoAirflowError, SettingsError
from nemo_airflow.experiment.order import Standing, next_steps, standing_of_group
from nemo_airflow.experiment.records import ExperimentRecords, RecordedExperiment, RecordedJob, RecordedTask
from nemo_airflow.experiment.tasks import Task, recorded_packager, recorded_task, recorded_tracker
from nemo_airflow.follow import Outcome
from nemo_airflow.job import FailureKind, JobState
from nemo_airflow.launch.following import Following
from nemo_airflow.launch.records import Launched, Records
from nemo_airflow.launch.said import Said
from nemo_airflow.operators.back_end import BackEnd
from nemo_airflow.store import PackageStore

_SUBMITTED_AT_ONCE = 8

_LONGEST_WAIT = 1.0
"""Seconds after which a wait for the next end begins anew."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """How one job ended for who follows it here.

    Attributes:
        state: Its state; UNKNOWN if it cannot be followed now, None if it was not submitted and never will be.
        error: Why it did not succeed, in one line.
        kind: The kind of its failure, or empty.
        result: What its function returned.
    """

    state: JobState | None
    error: str = ""
    kind: str = ""
    result: Any = None


class Running:
    """Brings an experiment to its end, from wherever it stands.

    Args:
        records: The experiments.
        experiment_id: Which.
        tasks: Tasks by their names, whose configs may hold secrets that are not recorded; the others are read from the
            record.
        tail_logs: Whether to print the lines of all jobs, and not only of those that were added so.
        on_line: Called with each line that is printed, with the name of its job where there are several.
        say: Called with what people should know, in one line.
    """

    def __init__(
        self,
        records: ExperimentRecords,
        experiment_id: str,
        tasks: Mapping[str, Task],
        *,
        tail_logs: bool,
        on_line: Callable[[str], None],
        say: Callable[[str], None],
    ) -> None:
        self._records = records
        self._launched = Records()
        self._id = experiment_id
        self._tasks = tasks
        self._tail_logs = tail_logs
        self._on_line = on_line
        self._say = say
        self._ends: queue.Queue[tuple[str, str, Ended | Exception]] = queue.Queue()
        self._submitting = threading.Semaphore(_SUBMITTED_AT_ONCE)
        self._followed: dict[str, Following] = {}
        self._given_up: set[str] = set()
        """Groups of which a job has failed."""
        self._is_interrupted = False

    def run(self) -> dict[str, Any]:
        """Returns what the functions returned, by the ids of the jobs; of a group a list. Blocks until all have ended.

        Raises:
            SettingsError: There is no such experiment, or another process brings it to its end.
            JobFailed: A job has not succeeded.
            BackendUnavailable: A job cannot be followed now.
        """
        self._records.load(self._id)
        with self._records.bringing(self._id) as is_ours:
            if not is_ours:
                raise SettingsError(
                    f"another process on this machine runs experiment {self._id}: 'nemo-airflow experiment status "
                    f"{self._id}' shows how it stands"
                )
            try:
                ends = self._bring()
            except KeyboardInterrupt:
                self._is_interrupted = True  # the threads of jobs that are followed may outlive it
                self._say(
                    f"jobs of experiment {self._id} that were submitted go on: 'nemo-airflow experiment attach "
                    f"{self._id}' goes on with all, 'nemo-airflow experiment cancel {self._id}' ends all"
                )
                raise
        return self._results(ends)

    def _bring(self) -> dict[str, dict[str, Ended]]:
        """Returns how each job ended, by the ids of the jobs and the names of their tasks."""
        ends = {job.id: _refused(job) for job in self._records.load(self._id).jobs}
        begun: set[str] = set()
        open_tasks = 0
        while True:
            record = self._records.load(self._id)
            standings = {job.id: self._standing(job, ends[job.id], begun) for job in record.jobs}
            errors = {name: _error_of(found) for name, found in ends.items()}
            steps = next_steps(record.jobs, standings, errors)
            for name, why in steps.refuse.items():
                self._say(f"{name} is not started: {why}")
                ends[name] = _refused(self._refuse(name, why).job(name))
            for job in record.jobs:
                if job.id in steps.start or (job.id not in begun and _is_begun(job)):
                    begun.add(job.id)
                    open_tasks += len(job.tasks)
                    for task in job.tasks:
                        self._begin(record, job, task)
            if not open_tasks:
                return ends
            job_id, name, end = self._await_end()
            if isinstance(end, Exception):
                raise end
            open_tasks -= 1
            ends[job_id][name] = end
            self._say(f"{name} {_describe(end)}")
            if end.state not in (JobState.SUCCEEDED, JobState.UNKNOWN):
                self._give_up_group(record.job(job_id), ends[job_id])

    def _await_end(self) -> tuple[str, str, Ended | Exception]:
        """Returns the next job that has ended, with how it has."""
        while True:
            with contextlib.suppress(queue.Empty):  # looked at again, since a wait may miss a Ctrl-C as it begins
                return self._ends.get(timeout=_LONGEST_WAIT)

    def _standing(self, job: RecordedJob, ends: Mapping[str, Ended], begun: set[str]) -> Standing:
        if job.refusal or any(end.state is None for end in ends.values()):
            return Standing.NOT_STARTED
        if job.id in begun or _is_begun(job):
            found = [ends[task.name].state if task.name in ends else JobState.RUNNING for task in job.tasks]
            return standing_of_group(found)
        return Standing.WAITING

    def _begin(self, record: RecordedExperiment, job: RecordedJob, task: RecordedTask) -> None:
        def bring() -> None:
            end: Ended | Exception
            try:
                end = self._bring_task(record, job, task)
            except Exception as error:  # noqa: BLE001 - a fault of ours: who waits for this thread has to know
                end = error
            self._ends.put((job.id, task.name, end))

        # A daemon: who interrupts this process does not wait for its jobs.
        threading.Thread(target=bring, name=f"nemo-experiment-{task.name}", daemon=True).start()

    def _bring_task(self, record: RecordedExperiment, job: RecordedJob, task: RecordedTask) -> Ended:
        """Submits a job, if that is not done yet, and follows it to its end."""
        try:
            with self._submitting:
                launched = self._find(task) or self._submit(record, job, task)
        except BackendUnavailable as error:
            return Ended(JobState.UNKNOWN, str(error))
        except NemoAirflowError as error:
            why = f"it cannot be submitted: {error}"
            self._refuse(job.id, why)
            return Ended(None, f"is not started: {why}", getattr(error, "kind", ""))
        if launched is None:
            return Ended(JobState.CANCELLED, "was cancelled before it was submitted", FailureKind.CANCELLED)
        if (known := launched.end) is not None:
            return _ended(known)
        following = Following(self._launched, launched, self._printer(record, job, task), self._say)
        self._followed[task.name] = following
        try:
            if self._is_cancelled(job.id):  # while it was submitted
                following.cancel()
            outcome = following.run()
        except JobFailed as error:
            return Ended(JobState.FAILED, str(error).splitlines()[0], error.kind)
        except (NemoAirflowError, TimeoutError) as error:
            return Ended(JobState.UNKNOWN, str(error) or "its back-end does not answer")
        return _ended(outcome)

    def _find(self, task: RecordedTask) -> Launched | None:
        """Returns the job of a task that an earlier process has submitted, or None."""
        if not task.key:
            return None
        launched = self._launched.get(task.key)
        if launched is None or launched.handle is not None:
            return launched
        # That process has died at it.
        is_there = BackEnd(launched.where, Said(self._say).warning).find(task.key) is not None
        return launched if is_there else None

    def _submit(self, record: RecordedExperiment, job: RecordedJob, task: RecordedTask) -> Launched | None:
        """Submits the job of a task; returns its record, or None where it was cancelled meanwhile."""
        live = self._tasks.get(task.name) or recorded_task(record, task)
        packager = recorded_packager(record, task)
        package = packager.package(PackageStore(settings.packages_folder())) if packager is not None else None
        launch = live.launch(record.title, record.id, recorded_tracker(record), self._say)
        if self._is_cancelled(job.id):
            return None
        # Noted before it is submitted, so that no process that goes on submits it once more.
        self._records.change(self._id, lambda now: now.with_key(job.id, task.name, launch.key))
        launched = launch.submit(self._launched, package)
        page = f", run {launched.run_page}" if launched.run_page else ""
        self._say(f"{task.name} is job {launched.key} on {launched.job.kind} ({launched.job.id}){page}")
        return launched

    def _is_cancelled(self, job_id: str) -> bool:
        return job_id in self._given_up or self._records.load(self._id).job(job_id).is_cancelled

    def _give_up_group(self, job: RecordedJob, ends: Mapping[str, Ended]) -> None:
        """Cancels the other jobs of a group of which one has not succeeded."""
        if job.id in self._given_up or len(ends) == len(job.tasks):
            return
        self._given_up.add(job.id)
        for task in job.tasks:
            if task.name not in ends and task.name in self._followed:
                try:
                    self._followed[task.name].cancel()
                except (NemoAirflowError, TimeoutError) as error:
                    self._say(f"{task.name} of the same group cannot be cancelled now: {error or 'no answer'}")

    def _refuse(self, job_id: str, why: str) -> RecordedExperiment:
        def refuse(record: RecordedExperiment) -> RecordedExperiment:
            return record.with_job(dataclasses.replace(record.job(job_id), refusal=why))

        return self._records.change(self._id, refuse)

    def _printer(self, record: RecordedExperiment, job: RecordedJob, task: RecordedTask) -> Callable[[str], None]:
        if not (self._tail_logs or job.tail_logs):
            return lambda line: None
        label = f"{task.name}: " if sum(len(each.tasks) for each in record.jobs) > 1 else ""

        def print_line(line: str) -> None:
            if not self._is_interrupted:
                self._on_line(f"{label}{line}")

        return print_line

    def _results(self, ends: Mapping[str, Mapping[str, Ended]]) -> dict[str, Any]:
        every = [(name, end) for found in ends.values() for name, end in found.items()]
        unknown = [f"{name}: {end.error}" for name, end in every if end.state is JobState.UNKNOWN]
        if unknown:
            raise BackendUnavailable(
                f"experiment {self._id} has jobs that cannot be followed now: {'; '.join(unknown)}; 'nemo-airflow "
                f"experiment attach {self._id}' goes on with it"
            )
        wrong = [(name, end) for name, end in every if end.state is not JobState.SUCCEEDED]
        if wrong:
            kind = next((end.kind for _, end in wrong if end.kind), str(FailureKind.USER_ERROR))
            said = "; ".join(f"{name} {_describe(end)}" for name, end in wrong)
            raise JobFailed(f"experiment {self._id}: {said}", kind)
        jobs = self._records.load(self._id).jobs
        results = {job.id: [ends[job.id][task.name].result for task in job.tasks] for job in jobs}
        return {job.id: results[job.id] if job.is_group else results[job.id][0] for job in jobs}


def _is_begun(job: RecordedJob) -> bool:
    """Returns whether an earlier process has begun to submit a job that may be submitted still."""
    return not job.refusal and any(task.key for task in job.tasks)


def _refused(job: RecordedJob) -> dict[str, Ended]:
    """Returns how the tasks of a job have ended that will not be started; nothing of another one."""
    return {task.name: Ended(None, f"is not started: {job.refusal}") for task in job.tasks if job.refusal}


def _ended(outcome: Outcome) -> Ended:
    return Ended(outcome.status.state, outcome.message, str(outcome.status.failure or ""), outcome.result)


def _describe(end: Ended) -> str:
    if end.state is JobState.SUCCEEDED:
        return "has succeeded"
    if end.state is JobState.UNKNOWN:
        return f"cannot be followed now: {end.error}"
    if end.state is None:
        return end.error
    if end.state is JobState.CANCELLED:
        return "was cancelled"
    return f"has failed{f' ({end.kind})' if end.kind else ''}: {end.error}"


def _error_of(ends: Mapping[str, Ended]) -> str:
    """Returns why a job, or the first of a group, failed."""
    failed = (end for end in ends.values() if end.state in (JobState.FAILED, JobState.LOST))
    return next((end.error for end in failed), "")
