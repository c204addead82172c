"""From what a task runs to its submitted job: which attempt it is, the package, the run, the request, the handle."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from airflow.sdk.definitions.context import Context
from airflow.sdk.exceptions import AirflowFailException

from nemo_airflow import blocking
from nemo_airflow.artifacts.keeping import archives_for
from nemo_airflow.config import plan as plans
from nemo_airflow.exceptions import BackendUnavailable, NemoAirflowError, NotStarted, SettingsError, TrackingError
from nemo_airflow.executors.base import Executor
from nemo_airflow.executors.machines import machines_of
from nemo_airflow.executors.registry import executor_from_json
from nemo_airflow.executors.secret import read_secrets, show_secrets
from nemo_airflow.hooks.packaging import PackagingHook, bundle_folder
from nemo_airflow.job import Archive, FailureKind, Job, JobHandle, JobState, JobStatus, Package, without_patch
from nemo_airflow.language.artifact import Artifact
from nemo_airflow.masking import mark_secrets, masked_executor, masked_plan
from nemo_airflow.operators import attempt as attempts
from nemo_airflow.operators.back_end import BackEnd
from nemo_airflow.operators.checkpoints import artifact_of, find_checkpoint
from nemo_airflow.operators.direct import Fetching, let_fetch
from nemo_airflow.operators.equipping import Equipped, Tracking, equip
from nemo_airflow.operators.links import BackEndLink, MLflowRunLink, console_page
from nemo_airflow.operators.output_patterns import patterns_of
from nemo_airflow.operators.preparation import Prepared
from nemo_airflow.operators.reuse import identify, tags_of
from nemo_airflow.operators.tracing import trace_env
from nemo_airflow.packaging.base import ContentPackager, Packager
from nemo_airflow.runner.inputs import artifacts_in
from nemo_airflow.tracking.base import RunRef, Tracker
from nemo_airflow.tracking.reuse import EarlierRun, Identity
from nemo_airflow.tracking.run import ENDED_BY_USER, TrackedRun, record_end, status_of_refusal
from nemo_airflow.web_address import web_address

_SHOWN_PARAMETERS = 500
"""How many parameters of the config the job's page shows; the tracker has all of them."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What a task asks for besides what it runs and where; rendered values of the operator's arguments.

    Attributes:
        packager: How the code is shipped, or None.
        tracker: What remembers the run, or None.
        experiment: The tracker's experiment, or empty for the DAG id.
        collector: Which outputs the tracker keeps, as ``"pkg.mod:Class"``; empty for all.
        outputs: Patterns of files to keep.
        env: Environment variables of the job.
        time_limit: Seconds after which the job's runner ends it if nothing else has; None for never.
        reuse: How old a run may be that is reused, in seconds; None where none is.
    """

    packager: Packager | None
    tracker: Tracker | None
    experiment: str
    collector: str
    outputs: Any
    env: Mapping[str, str]
    time_limit: float | None
    reuse: float | None = None

    @property
    def may_choose_zstd(self) -> bool:
        """Whether the format of the package is not the author's choice."""
        return isinstance(self.packager, ContentPackager) and self.packager.takes_zstd


@dataclasses.dataclass(frozen=True)
class Submitted:
    """A task's job, which has to be followed.

    Attributes:
        handle: The job.
        run: Its run in the tracker, or None.
        attached: Whether an earlier try of the task has submitted it.
        complete: Whether the job has all it needs; if not, it is submitted again when it has started.
    """

    handle: JobHandle
    run: TrackedRun | None
    attached: bool
    complete: bool = True


def status_after_last_try(ti: Any, error: NemoAirflowError) -> JobStatus | None:
    """Returns how a run ends whose job this try could not follow to its end; None where another try may."""
    if ti.try_number <= ti.max_tries:
        return None
    reason = f"{error}; no try of its task is left that would follow it"
    return JobStatus(JobState.LOST, failure=FailureKind.LOST, reason=reason)


class Submission:
    """Submits the job of a task, or finds the one that an earlier try has submitted.

    Args:
        prepared: What runs.
        executor: Where.
        options: What else the task asks for.
        context: Airflow's context of the task.
        log: The task's logger.
        without_zstd: Whether the package must not be in ``tar.zst``.
        by_worker: Whether package and artifacts are sent from here: the job cannot fetch them.
        waits: Whether to wait until a job that needs its package from here has started.
        check: Called right before and after a job is submitted; raises AirflowFailException if none is to run.
    """

    def __init__(
        self,
        prepared: Prepared,
        executor: Executor,
        options: Options,
        context: Context,
        log: Any,
        *,
        without_zstd: bool = False,
        by_worker: bool = False,
        waits: bool = True,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.back_end = BackEnd(executor, log.warning)
        self.to_cancel: JobHandle | None = None
        """The job that this process is to cancel should its task be ended by a user."""
        self.run: TrackedRun | None = None
        """The run of that job, which this process then ends."""
        self._prepared = prepared
        self._executor = executor
        self._options = options
        self._context = context
        self._log = log
        self._reads_zstd = options.may_choose_zstd and not without_zstd
        self._by_worker = by_worker
        self._waits = waits
        self._check = check

    @property
    def continues(self) -> bool:
        """Whether an earlier try of the task has begun what this one goes on with."""
        return self._continues(attempts.recall(self._context["task_state_store"]))

    def _continues(self, earlier: attempts.Attempt | None) -> bool:
        return attempts.continues(earlier, digest=self._prepared.digest, max_tries=self._context["ti"].max_tries)

    def identify(self) -> Identity | None:
        """Returns what is compared with earlier runs; see :func:`.reuse.identify`. The back-end is not asked."""
        return self._identify(self._package(reads_zstd=True))

    def _identify(self, package: Package | None) -> Identity | None:
        return identify(self._prepared, self._executor, self._options.env, package)

    def announce_reused(self, run: EarlierRun) -> None:
        """Pushes what a page or a later task wants to know of a run that is reused."""
        self._announce(run.handle, run.ref, None, reused_at=time.time())

    def submit(self) -> Submitted:
        """Returns the job of this try, submitted if it is not there."""
        earlier = attempts.recall(self._context["task_state_store"])
        begun = earlier if self._continues(earlier) else None
        try:
            return self._find_or_submit(begun) if begun is not None else self._submit(self._new_attempt(earlier))
        except BackendUnavailable as error:  # it may have the job, so that the next try looks for it
            self.end_last_try(error, begun)
            raise

    def _new_attempt(self, earlier: attempts.Attempt | None) -> attempts.Attempt:
        max_tries = self._context["ti"].max_tries
        number = self._next_number(earlier)
        executor = masked_executor(self._executor)
        new = attempts.Attempt(
            number,
            self._prepared.key(number),
            self._prepared.digest,
            max_tries,
            executor=executor,
            plan=plans.digest(self._prepared.plan),
        )
        return attempts.take_over(new, earlier)

    def end_last_try(self, error: NemoAirflowError, begun: attempts.Attempt | None = None) -> None:
        """Ends the run where no try follows this one, which could not reach or follow its job."""
        if (status := status_after_last_try(self._context["ti"], error)) is None:
            return
        if self.run is None and begun is not None:
            self.run = self._open_run(begun)
        self.record_end(status)

    def render(self) -> str:
        """Returns what would be sent to the back-end, for people to read."""
        example = attempts.Attempt(1, self._prepared.key(1), self._prepared.digest, 0)
        return self._executor.render(self._job(example, None)).to_text()

    def cancel(self) -> None:
        """Cancels the job, if there is one and no other process has taken it over."""
        if self.to_cancel is None:
            return
        handle, self.to_cancel = self.to_cancel, None
        self._log.info("The task was ended: cancelling job %s", handle.key)
        try:
            self.back_end.cancel_at_once(handle)
        except (NemoAirflowError, TimeoutError) as error:
            reason = str(error) or "it did not answer in time"
            self._log.error("Job %s could not be cancelled, run 'nemo-airflow reap' later: %s", handle.key, reason)

    def record_end(self, status: JobStatus) -> None:
        """Ends the run, if there is one that only this process can end. Nobody may follow the job any more."""
        run, self.run = self.run, None
        if run is not None:
            blocking.run(record_end(run, status, self._log.warning))

    def _next_number(self, earlier: attempts.Attempt | None) -> int:
        """Returns the number of a new attempt, and ends what may still run of the earlier one."""
        if earlier is not None:
            self._end_earlier(earlier)
            return earlier.number + 1
        # No record, yet a job of that key: the record was dropped when the task was cleared.
        number = 1
        while self.back_end.end(self._prepared.key(number)):
            number += 1
        return number

    def _end_earlier(self, earlier: attempts.Attempt) -> None:
        """Ends the job of an earlier attempt on the back-end where it is, which may be another than now."""
        there = self._earlier_executor(earlier)
        if there is None:
            return
        if there.connection_key() == self._executor.connection_key():
            self.back_end.end(earlier.key)
            return
        try:
            BackEnd(there, self._log.warning).end(earlier.key)
        except NemoAirflowError as error:
            # The task was moved, perhaps because of that: whoever moved it has to know, but need not wait.
            self._log.warning(
                "Job %s of an earlier attempt may still run where the task ran before (%s), which cannot be reached: "
                "%s; run 'nemo-airflow reap' for it later",
                earlier.key, there.kind, error,
            )  # fmt: skip

    def _earlier_executor(self, earlier: attempts.Attempt) -> Executor | None:
        if earlier.executor is None:
            return self._executor
        try:
            return executor_from_json(earlier.executor)
        except NemoAirflowError as error:  # of a release that had other fields, or of a back-end that is uninstalled
            self._log.warning("Job %s of an earlier attempt is not looked for: %s", earlier.key, error)
            return None

    def _find_or_submit(self, attempt: attempts.Attempt) -> Submitted:
        """Returns the job that an earlier try has submitted in this attempt, submitted if it did not come to that."""
        handle = self.back_end.find(attempt.key)
        if handle is None:
            return self._submit(attempt)
        self.to_cancel = handle
        self._log.info("Found job %s of an earlier try (%s %s): following it", handle.key, handle.kind, handle.id)
        opened = self._open_run(attempt)
        run = self.run = opened.submitted(handle, "") if opened else None
        self._announce(
            handle, run.ref if run else None, attempt.package
        )  # again: Airflow drops what an earlier try has pushed
        return Submitted(handle, run, attached=True)

    def _open_run(self, attempt: attempts.Attempt) -> TrackedRun | None:
        """Opens the run of an attempt that an earlier try has begun."""
        tracking = self._tracking
        job = self._prepared.job(attempt.number, earlier=attempt.earlier, run_key=attempt.run_key)
        return tracking.open_run(job, self._executor, self._log.warning) if tracking else None

    def _submit(self, attempt: attempts.Attempt) -> Submitted:
        self._keep_version()
        # First: what Airflow knows to be a secret is kept out of the patch, marked in the job, and masked in its run.
        values = read_secrets(self._executor.secrets)
        package = self._package(reads_zstd=self._reads_zstd and self.back_end.reads_zstd())
        announced = without_patch(package.to_json()) if package else None
        attempts.remember(self._context["task_state_store"], dataclasses.replace(attempt, package=announced))
        checkpoint = find_checkpoint(self.back_end, attempt.earlier, self._log.warning)
        also = artifact_of(checkpoint)
        fetching = self._fetching(package, also)
        inputs = self._inputs(fetching.archives, also)
        job = self._job(attempt, fetching.package, inputs, fetching.executor, checkpoint)
        env, warn = self._options.env, self._log.warning
        equipped = equip(
            job, fetching.executor, {**values, **fetching.values}, self._tracking, env=env, warn=warn
        )  # fmt: skip
        self.run = equipped.run
        self._note_identity(equipped.run, package)
        complete = True
        try:
            handle = self._send(equipped)
        except NotStarted as queued:
            handle, complete = queued.handle, False
        except AirflowFailException:
            self.record_end(ENDED_BY_USER)
            raise
        except NemoAirflowError as error:
            if not isinstance(error, BackendUnavailable):  # which :meth:`submit` sees to
                self.record_end(status_of_refusal(error))
            raise
        run = self.run = equipped.submitted_run(handle)
        self._announce(handle, run.ref if run else None, announced)
        return Submitted(handle, run, attached=False, complete=complete)

    def _note_identity(self, run: TrackedRun | None, package: Package | None) -> None:
        """Records by what a later task finds the run, if it wants to reuse it."""
        tags = tags_of(self._identify(package), self._options.reuse)
        if run is None or run.ref is None or not tags:
            return
        try:
            run.tracker.tag(run.ref, tags)
        except TrackingError as error:
            self._log.warning("Run %s cannot be reused later: %s", run.ref.run_id, error)

    def _keep_version(self) -> None:
        """Keeps the config by its digest; a disk that is full keeps no job from running."""
        from nemo_airflow.config.plan.versions import ConfigVersions

        try:
            ConfigVersions().save(masked_plan(self._prepared.plan))
        except SettingsError as error:
            self._log.warning("%s", error)

    def _send(self, equipped: Equipped) -> JobHandle:
        self._check()
        # Before it is submitted: a kill at this very moment must find what to cancel.
        self.to_cancel = JobHandle(equipped.job.key, self._executor.kind, "")
        handle = self.back_end.submit(equipped.request(self._log.warning, waits=self._waits))
        self.to_cancel = handle
        self._log.info("Submitted job %s (%s %s)", handle.key, handle.kind, handle.id)
        try:
            self._check()  # a user may have ended the task meanwhile, when there was no job to cancel yet
        except AirflowFailException:
            self.cancel()
            raise
        return handle

    @property
    def _connection_of_tracker(self) -> str | None:
        """By which others may read the run: an address alone tells of no login."""
        return getattr(self._options.tracker, "conn_id", None)

    @property
    def _tracking(self) -> Tracking | None:
        if self._options.tracker is None:
            return None
        experiment = self._options.experiment or self._prepared.labels["dag_id"]
        return Tracking(self._options.tracker, experiment, self._options.collector)

    def _package(self, *, reads_zstd: bool) -> Package | None:
        if self._options.packager is None:
            return None
        return PackagingHook(self._options.packager, reads_zstd=reads_zstd).package(self._context)

    def _fetching(self, package: Package | None, also: Sequence[Artifact]) -> Fetching[Executor]:
        if self._by_worker:
            return Fetching(self._executor, package)
        return let_fetch(self._executor, self._prepared.plan, package, self._time_limit, self._log.warning, also)

    def _inputs(self, fetched: Mapping[str, Archive], also: Sequence[Artifact]) -> tuple[Archive, ...]:
        """Returns the archives of the artifacts that the job is given: on this machine then, or fetched by the job."""
        for given in (*artifacts_in(self._prepared.plan), *also):
            self._log.info("The job is given %s", given)
        return archives_for(self._prepared.plan, fetched, also=also)

    @property
    def _time_limit(self) -> float | None:
        limits = [self._executor.time_limit, self._options.time_limit]
        return min((limit for limit in limits if limit), default=None)

    def _job(
        self,
        attempt: attempts.Attempt,
        package: Package | None,
        inputs: tuple[Archive, ...] = (),
        executor: Executor | None = None,
        checkpoint: Mapping[str, Any] | None = None,
    ) -> Job:
        labels = self._prepared.labels
        airflow_env = {
            f"AIRFLOW_CTX_{name.upper()}": labels[name] for name in ("dag_id", "run_id", "task_id", "try_number")
        }
        if package is None and self._executor.shares_filesystem:
            airflow_env["PYTHONPATH"] = str(bundle_folder(self._context))
        job = self._prepared.job(
            attempt.number,
            earlier=attempt.earlier,
            run_key=attempt.run_key,
            checkpoint=checkpoint,
            package=package,
            inputs=inputs,
            env={**trace_env(), **self._executor.env, **airflow_env, **self._options.env},
            secret_env=show_secrets((executor or self._executor).secrets),
            time_limit=self._time_limit,
            outputs=patterns_of(self._options.outputs),
            asked={
                "executor": masked_executor(self._executor),
                "collector": self._options.collector,
                **({"set_by": self._prepared.set_by} if self._prepared.set_by else {}),
            },
        )
        return mark_secrets(job)

    def _announce(
        self, handle: JobHandle, ref: RunRef | None, package: Mapping[str, Any] | None, *, reused_at: float = 0.0
    ) -> None:
        """Pushes what a page or a later task wants to know, before the task waits."""
        ti = self._context["ti"]
        plan = masked_plan(self._prepared.plan)
        record = {
            "key": handle.key,
            "handle": handle.to_json(),
            "plan_digest": plans.digest(plan),
            "inputs": [given.to_json() for given in artifacts_in(plan)],
            "config": dict(itertools.islice(plans.flatten(plan).items(), _SHOWN_PARAMETERS)),
            "package": package,
            "machines": machines_of(self._executor).to_json(),
            "run": {**ref.to_json(), "env": {}, "conn_id": self._connection_of_tracker} if ref else None,
            **({"reused_at": reused_at} if reused_at else {}),
        }
        ti.xcom_push(key="nemo_job", value=record)
        if ref is not None:
            ti.xcom_push(key=MLflowRunLink().xcom_key, value=web_address(ref.url))
        if page := console_page(handle, self._log.warning):
            ti.xcom_push(key=BackEndLink().xcom_key, value=page)
