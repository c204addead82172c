"""The operator that runs a Fiddle config as a job on any back-end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from datetime import timedelta
from types import NoneType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import jinja2
from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.definitions.context import Context
from airflow.sdk.exceptions import AirflowFailException, AirflowTaskTimeout

from nemo_airflow import blocking, settings
from nemo_airflow.config import Config, build
from nemo_airflow.config.objects.faults import noting
from nemo_airflow.config.objects.validation import check_root
from nemo_airflow.config.types.graph import is_template, templates_rendered
from nemo_airflow.exceptions import (
    ArtifactError,
    ConfigError,
    JobFailed,
    MissingExtraError,
    NemoAirflowError,
    NotDefinedError,
    PackagingError,
    SubmitError,
)
from nemo_airflow.executors.base import Executor
from nemo_airflow.executors.local import LocalExecutor
from nemo_airflow.executors.registry import executor_from_json
from nemo_airflow.executors.secret import Secret, give_secrets
from nemo_airflow.follow import Follower, Outcome
from nemo_airflow.job import FailureKind, JobHandle, JobState, JobStatus
from nemo_airflow.masking import masked_executor
from nemo_airflow.operators import attempt as attempts
from nemo_airflow.operators.arguments import Argument, by_name, render_as_text, template_error, unwrap, wrap
from nemo_airflow.operators.direct import note_unreached
from nemo_airflow.operators.ending import needs_no_worker, push_artifacts
from nemo_airflow.operators.keeping import Keeping
from nemo_airflow.operators.lineage import EmitsLineage
from nemo_airflow.operators.links import BackEndLink, ComparisonLink, JobLink, MLflowRunLink, console_page
from nemo_airflow.operators.output_patterns import check_outputs
from nemo_airflow.operators.parse_checks import (
    alert_settings,
    check_alerts,
    check_config,
    check_defer_after,
    check_executor,
    check_given_secrets,
    check_kind,
    check_max_chain,
)
from nemo_airflow.operators.preparation import Overrides, Prepared, labels_of, prepare
from nemo_airflow.operators.reuse import (
    LONGEST_WAIT,
    Reuse,
    asker_of,
    begin_reuse,
    check_reuse,
    describe_reuse,
    end_claim,
    parse_reuse,
)
from nemo_airflow.operators.submission import Options, Submission, Submitted, status_after_last_try
from nemo_airflow.operators.termination import Termination
from nemo_airflow.operators.worker_phase import follow_for
from nemo_airflow.packaging.base import ContentPackager, Packager
from nemo_airflow.phases import JobView
from nemo_airflow.registered import find_executor, named_recipe
from nemo_airflow.tracking.base import Tracker
from nemo_airflow.tracking.mlflow import MLflowTracker
from nemo_airflow.tracking.reuse import Claim, EarlierRun
from nemo_airflow.tracking.run import ENDED_BY_USER, TrackedRun, record_end
from nemo_airflow.triggers import metrics
from nemo_airflow.triggers.alerting import Alerting
from nemo_airflow.triggers.live import LiveXCom, ids_of
from nemo_airflow.triggers.reuse import NemoReuseTrigger
from nemo_airflow.triggers.run import NemoRunTrigger
from nemo_airflow.triggers.task_log import TaskLog

_BACKSTOP = timedelta(seconds=60)
"""How long after the deadline Airflow itself ends the deferral, and the runner the job, should the trigger not have."""

_LOOK_AGAIN = 2.0
"""Seconds between two looks of a worker at another task that runs the same."""

_TIMED_OUT = JobStatus(
    JobState.FAILED, failure=FailureKind.TIMEOUT, reason="the job did not end before the task's execution_timeout"
)

_DEFAULT_TRACKER = MLflowTracker()


class NemoRunOperator(EmitsLineage, BaseOperator):
    """Runs a config as a job: packaged, submitted once, followed, tracked.

    A worker follows the job for some seconds; a task whose job takes longer waits in the triggerer. The task ends
    as the job ends: the function's return value is its XCom, and an error is the job's own, with its traceback.

    Args:
        config: What to run: a ``Config``, ``Partial`` or ``Script``, or the name of a recipe that an
            installed distribution registers. Strings in it may be templates, and values may be the
            outputs of other tasks, which then run before.
        job_executor: Where to run it, or a ``Config`` of an executor, or the name of a registered one, or a text with
            the fields of one as YAML or JSON, ``kind: local``; ``LocalExecutor()`` when None.
            (``executor`` is Airflow's own: the name of the Airflow executor that runs the task.)
        packager: How to ship the code, or None: a job on this machine then imports from the DAG
            bundle's folder, and others from their image.
        tracker: What remembers the run, or None.
        experiment: The tracker's experiment; the DAG id when None.
        overrides: Values by dotted path into the config, or texts as ``"model.hidden=64"``.
        params_prefix: Takes the DAG's params that begin with this prefix as overrides; see
            :func:`nemo_airflow.params_from`.
        collector: Which of the outputs the tracker keeps, as ``"pkg.mod:Class"`` of an
            :class:`~nemo_airflow.tracking.ArtifactCollector`; all when empty.
        outputs: Patterns, relative to the job's working directory, of files to keep besides those
            that the job writes into its output directory.
        env: Environment variables for the job.
        secrets: Environment variables whose values are secrets, by their names: ``{"TOKEN": Secret(conn_id="hf")}``.
            They are added to those of the executor.
        allow: Further targets that the job may import, as ``"pkg.mod:name"`` or ``"pkg."``.
        deferrable: Whether the task waits in the triggerer. If not, it keeps a worker's slot.
        defer_after: Seconds for which the worker follows the job before the task is deferred; a job that ends in that
            time needs neither the triggerer nor a second worker, and one that is queued is deferred sooner. 0 defers at
            once; None takes ``$NEMO_AIRFLOW_DEFER_AFTER``, which is 10 unless set.
        alert_if: A condition on a metric of the running job, or a list of them: ``"loss > 10 for 5 steps"``, ``"loss is
            nan"``, ``"system/gpu_util < 5 for 10 minutes"``. Each is told once: in the log, and as a tag of the run.
        on_alert_callback: What else tells of it: ``AsyncCallback(NemoRunNotifier, {"conn_id": "chat"})`` of
            ``airflow.sdk``, or a list of such; any callback or notifier that Airflow can run in the triggerer. For a
            mapped task, ``AsyncCallback(...).serialize()``.
        reuse: Whether a run that succeeded with the same config, package, inputs, environment variables and image is
            taken for this task's own, and nothing submitted: ``True``, or how old it may be: ``"7d"``, ``"12h"``,
            ``"90m"``, or a timedelta.
        max_chain: How many attempts may follow each other in one try of the task: one that was preempted, or has
            reached its time limit, and has saved a checkpoint is continued by the next, in the same log and run.
    """

    template_fields: Sequence[str] = (
        "config",
        "job_executor",
        "packager",
        "tracker",
        "experiment",
        "overrides",
        "outputs",
        "env",
        "secrets",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "config": "py",
        "job_executor": "json",
        "packager": "json",
        "tracker": "json",
        "overrides": "json",
        "secrets": "json",
    }
    takes_config: ClassVar[bool] = True
    """Whether a config is given; a subclass that finds one when it runs says no."""
    operator_extra_links: Sequence[BaseOperatorLink] = (MLflowRunLink(), JobLink(), ComparisonLink(), BackEndLink())
    ui_color = "#d5e8c8"

    def __init__(
        self,
        *,
        config: Any,
        job_executor: Any = None,
        packager: Packager | None = None,
        tracker: Tracker | None = _DEFAULT_TRACKER,
        experiment: str | None = None,
        overrides: Overrides | None = None,
        params_prefix: str | None = None,
        collector: str = "",
        outputs: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        secrets: Mapping[str, Secret] | None = None,
        allow: Sequence[str] = (),
        deferrable: bool = True,
        defer_after: float | None = None,
        alert_if: str | Sequence[str] = (),
        on_alert_callback: Any = (),
        reuse: bool | str | timedelta | None = None,
        max_chain: int = 20,
        **kwargs: Any,
    ) -> None:
        if not isinstance(kwargs.get("executor"), (str, NoneType)):
            raise ConfigError(
                "executor=... is Airflow's own argument, the name of an Airflow executor: "
                "give the back-end as job_executor=..."
            )
        config = by_name(config, named_recipe)
        executor = by_name(job_executor, find_executor) if job_executor is not None else LocalExecutor()
        # A task of a mapped operator is made when it runs, where an error of the author must not be retried.
        if not getattr(self, "_BaseOperator__from_mapped", False):
            of_config: tuple[Callable[[], None], ...] = (
                lambda: check_config(config, overrides, allow, takes_params=params_prefix is not None),
                lambda: check_root(config),
            )
            checks: tuple[Callable[[], None], ...] = (
                lambda: check_kind("packager", packager, Packager, "GitArchivePackager()"),
                lambda: check_kind("tracker", tracker, Tracker, "MLflowTracker()"),
                lambda: check_executor(executor),
                *(of_config if self.takes_config else ()),
                lambda: check_outputs(outputs),
                lambda: check_given_secrets(executor, secrets, env),
                lambda: check_defer_after(defer_after),
                lambda: check_max_chain(max_chain),
                lambda: check_alerts(alert_if, on_alert_callback),
                lambda: check_reuse(reuse, tracker, packager, executor),
            )
            for check in checks:
                with noting(config):
                    check()
        super().__init__(**kwargs)
        self.config = wrap(config)
        self.job_executor = wrap(executor)
        self.packager = wrap(packager)
        self.tracker = wrap(tracker)
        self.experiment = experiment
        self.overrides = overrides
        self.params_prefix = params_prefix
        self.collector = collector
        self.outputs = outputs
        self.env = env
        self.secrets = wrap(secrets)
        self.allow = allow
        self.deferrable = deferrable
        self.defer_after = defer_after
        self.alerts = alert_settings(alert_if, on_alert_callback)
        self.reuse = reuse
        self.max_chain = max_chain
        self.run_page: str | None = None
        """Address of the run's page in the tracker, once this process knows it; empty for none."""
        self.console_page: str | None = None
        """The same of the job in its back-end's console."""
        if tracker is None:
            links = self.operator_extra_links
            self.operator_extra_links = [link for link in links if not isinstance(link, MLflowRunLink)]
        self._submission: Submission | None = None
        self._termination: Termination | None = None
        self._without_zstd = False
        self._by_worker = False
        self._reuse: Reuse | None = None
        self._waits_since: float | None = None
        """When this task began to wait for another one that runs the same, by ``time.time()``."""
        self._begun = 0.0
        """When this process began to execute the task, by ``time.time()``."""
        self._live: LiveXCom | None = None
        """Shows how the job fares that is followed now, or was in this try before."""
        self._deadline: float | None = None
        """When the job of this try is cancelled, in seconds since the epoch, once that is settled."""

    if TYPE_CHECKING:

        @property
        def output(self) -> Any:  # it becomes the result, which fits where a config has it
            """What the job's function will have returned."""

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Renders as Airflow does, but a text without a template stays as it is, and fields of texts stay texts.

        Raises:
            AirflowFailException: A template cannot be rendered; not retryable.
        """
        if isinstance(content, str) and not is_template(content) and not content.endswith(tuple(self.template_ext)):
            return content
        if "failures" not in context and (store := context.get("task_state_store")) is not None:
            # Which a template reads to ask for more memory after an attempt that ran out of it.
            context["failures"] = attempts.failures_before(store, context["ti"].max_tries)  # type: ignore[typeddict-unknown-key]
        try:
            containers = [field for field in (self.outputs, self.env) if not isinstance(field, str)]
            if any(content is field for field in (self.experiment, *containers)):
                return render_as_text(content, context, seen_oids)
            return super().render_template(content, context, jinja_env, seen_oids)
        except jinja2.TemplateError as error:
            raise AirflowFailException(template_error(content, error)) from None

    def execute(self, context: Context) -> Any:
        """Submits the job, or finds the one that an earlier try submitted, and waits for its end."""
        self._begun, self._deadline, self._live = time.time(), None, None
        return self._submit_and_wait(context)

    def _submit_and_wait(self, context: Context) -> Any:
        self._termination = Termination(context["ti"], self.log.warning)
        with _plain_errors():
            prepared = self._prepare(context)
        try:
            return self._run(context, prepared)
        except AirflowTaskTimeout:
            self._cancel()
            self._record_end(_TIMED_OUT)
            raise

    def render(self, context: Context) -> str:
        """Returns what would be sent to the back-end for this task, for people to read."""
        return self._new_submission(context, self._prepare(context)).render()

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Ends the task as its job ended. Called when the trigger has fired."""
        self._begun, self._deadline = time.time(), None
        handle = JobHandle.from_json(event["handle"])
        current = attempts.recall(context["task_state_store"])
        if current is not None and current.key != handle.key:
            # The trigger of an earlier try of a task that was cleared: Airflow told them apart too late.
            self.log.warning(
                "The event is that of job %s of an earlier try and is ignored: following job %s",
                handle.key,
                current.key,
            )
            return self._submit_and_wait(context)
        self._live = LiveXCom(JobView(handle, resumes=True), ids_of(context["ti"]), self.log.warning)
        self._live.reopen()
        # Whatever is submitted from here on is for the same try, whose time runs since it was begun.
        self._deadline = event.get("deadline")
        if "error" in event:  # the trigger could not follow the job
            error = (NotDefinedError if event.get("is_undefined") else NemoAirflowError)(event["error"])
            status = status_after_last_try(context["ti"], error)
            if status is not None and event.get("run"):
                blocking.run(record_end(TrackedRun.from_json(event["run"]), status, self.log.warning))
            raise error
        if event.get("started"):
            self.log.info("Job %s has started and waits for its package", handle.key)
            return self._submit_and_wait(context)
        outcome = Outcome.from_json(event["outcome"])
        if keep := event.get("keep"):
            run = TrackedRun.from_json(keep["run"]) if keep["run"] else None
            outcome = self._keep_outputs(context, executor_from_json(keep["executor"]), handle, run, outcome)
        return self._end(context, handle, outcome, attached=event["attached"])

    def look_again(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Looks again for a run to reuse. Called when the task that ran the same has ended, or was waited for long."""
        self._waits_since = event["since"]
        return self.execute(context)

    def on_kill(self) -> None:
        """Cancels the job if a user has ended the task; a job whose worker has to go is left to the triggerer.

        Airflow calls this in the handler of SIGTERM, and goes on with the task.
        """
        if self._termination is not None:
            self._termination.look_why(self._cancel)

    def _cancel(self) -> None:
        if self._submission is not None:
            self._submission.cancel()
        self._end_claim()

    def _record_end(self, status: JobStatus) -> None:
        if self._submission is not None:
            self._submission.record_end(status)

    def _end_claim(self) -> None:
        if self._reuse is not None:
            end_claim(unwrap(self.tracker), self._reuse.asker, self.log)

    def _go_on_unless_ended(self) -> None:
        """Airflow lets a task whose user has ended it run on until it kills the process, some seconds later."""
        if self._termination is not None and self._termination.by_user.is_set():
            raise AirflowFailException("the task was ended by a user")

    def _prepare(self, context: Context) -> Prepared:
        if self.overrides is not None and not isinstance(self.overrides, (Mapping, list, tuple)):
            raise ConfigError(
                f"overrides is {type(self.overrides).__name__}, not a mapping or a list of texts such as "
                "'model.hidden=64'"
            )
        with _values_of(self.config):
            return prepare(
                by_name(unwrap(self.config), named_recipe),
                self._executor(),
                context,
                overrides=self.overrides or (),
                params_prefix=self.params_prefix,
                allow=self.allow,
            )

    def _executor(self) -> Executor:
        with _values_of(self.job_executor):
            executor = by_name(unwrap(self.job_executor), find_executor)
            executor = build(executor) if isinstance(executor, Config) else executor
        if not isinstance(executor, Executor):
            raise ConfigError(f"job_executor is {type(executor).__name__}, not an executor such as LocalExecutor()")
        with _values_of(self.secrets):
            return give_secrets(executor, unwrap(self.secrets) or {}, self.env or {})

    def _new_submission(self, context: Context, prepared: Prepared) -> Submission:
        # The trigger holds the deadline; the runner's own limit is for when no triggerer is left.
        backstop = (self.execution_timeout + _BACKSTOP).total_seconds() if self.execution_timeout else None
        options = Options(
            packager=unwrap(self.packager),
            tracker=unwrap(self.tracker),
            experiment=self.experiment or "",
            collector=self.collector,
            outputs=self.outputs,
            env=self.env or {},
            time_limit=backstop,
            reuse=parse_reuse(self.reuse),
        )
        return Submission(
            prepared,
            self._executor(),
            options,
            context,
            self.log,
            without_zstd=self._without_zstd,
            by_worker=self._by_worker,
            waits=not self.deferrable,
            check=self._go_on_unless_ended,
        )

    def _run(self, context: Context, prepared: Prepared) -> Any:
        submission = self._submission = self._new_submission(context, prepared)
        in_worker = settings.defer_after() if self.defer_after is None else self.defer_after
        self._reuse = None
        with _plain_errors():
            check_reuse(self.reuse, unwrap(self.tracker), unwrap(self.packager), submission.back_end.executor)
            if (within := parse_reuse(self.reuse)) is not None and not submission.continues:
                self._reuse = begin_reuse(submission.identify(), within, prepared, unwrap(self.tracker), self.log)
        if self._reuse is not None and (earlier := self._find_earlier(self._reuse)) is not None:
            return self._end_reused(context, submission, self._reuse, earlier)
        try:
            with _plain_errors():
                submitted = submission.submit()
        except BaseException:
            self._end_claim()
            raise
        metrics.count_submission(submitted.handle)
        ref = submitted.run.ref if submitted.run is not None else None
        self.run_page = ref.url if ref is not None else ""
        self.console_page = console_page(submitted.handle, self.log.warning)
        return self._wait(context, submission.back_end.executor, submitted, in_worker)

    def _find_earlier(self, reuse: Reuse) -> EarlierRun | None:
        """Returns the run to reuse, or None where the job is to run; waits while another task runs the same."""
        while True:
            found = reuse.look()
            if not isinstance(found, Claim):
                return found
            if self._waits_since is None:
                self._waits_since = time.time()
                self.log.info("%s runs the same now: waiting for it", found.who)
            if time.time() - self._waits_since > LONGEST_WAIT:
                self.log.warning("%s has not ended for long: this task runs the same", found.who)
                return None
            self._go_on_unless_ended()
            if self.deferrable:
                tracker = unwrap(self.tracker).pin().to_json()
                self.defer(trigger=NemoReuseTrigger(tracker, found, self._waits_since), method_name="look_again")
            time.sleep(_LOOK_AGAIN)

    def _end_reused(self, context: Context, submission: Submission, reuse: Reuse, run: EarlierRun) -> Any:
        self.log.info("%s", describe_reuse(run))
        self.run_page = run.ref.url
        self.console_page = console_page(run.handle, self.log.warning)
        submission.announce_reused(run)
        reuse.note(run)
        self._note_lineage(context["ti"], Outcome(JobStatus(JobState.SUCCEEDED), run.result))
        push_artifacts(context["ti"], run.result)
        return run.result

    def _wait(self, context: Context, executor: Executor, job: Submitted, in_worker: float) -> Any:
        if self._deadline is None and self.execution_timeout:
            self._deadline = time.time() + self.execution_timeout.total_seconds()
        log = TaskLog()
        alerting = None
        if self.alerts is not None:
            alerting = Alerting(self.alerts.of_task(context["ti"]), job.handle.key, self.log.warning)
        view = JobView(job.handle, self._live.view.phases if self._live is not None else None)
        live = self._live = LiveXCom(view, ids_of(context["ti"]), self.log.warning)
        live.write()
        follower = Follower(
            executor,
            job.handle,
            on_line=log.write,
            warn=self.log.warning,
            inform=self.log.info,
            sink=job.run.sink(self.log.warning) if job.run else None,
            deadline=self._deadline,
            watch=alerting.take if alerting is not None else None,
            view=view,
        )
        outcome = None
        if job.complete:
            try:
                outcome = blocking.run(live.during(self._follow(follower, in_worker, attached=job.attached)))
            except NemoAirflowError as error:
                if self._submission is not None:
                    self._submission.end_last_try(error)
                raise
            if alerting is not None:
                blocking.run(alerting.settle(ended=outcome is not None))
        if outcome is None:
            alerts = alerting.settings.to_json() if alerting is not None else None
            self._defer(executor, job, log, alerts, ids_of(context["ti"]))
        self._let_go()
        metrics.count_end(job.handle, outcome, in_triggerer=False)
        if outcome.has_to_be_kept(tracked=job.run is not None):
            outcome = self._keep_outputs(context, executor, job.handle, job.run, outcome)
        return self._end(context, job.handle, outcome, attached=job.attached)

    def _keep_outputs(
        self, context: Context, executor: Executor, handle: JobHandle, run: TrackedRun | None, outcome: Outcome
    ) -> Outcome:
        view = None
        if self._live is not None:
            view = self._live.view
            view.on_change = self._live.write
        with metrics.time_keeping(handle):
            return Keeping(executor, handle, run, outcome, context["task_state_store"], self.log, view).keep()

    def _follow(self, follower: Follower, seconds: float, *, attached: bool) -> Coroutine[Any, Any, Outcome | None]:
        assert self._termination is not None  # noqa: S101 - for the type checker: execute() has made it
        if not self.deferrable:
            return follow_for(follower, None, self._termination)
        if self.execution_timeout is not None:
            # So long after it has begun to execute this Airflow ends the process; the trigger lets the job end, and
            # says why.
            left = self._begun + self.execution_timeout.total_seconds() - time.time()
            seconds = min(seconds, left / 2)
        return follow_for(follower, seconds, self._termination, attached=attached)

    def _defer(
        self,
        executor: Executor,
        job: Submitted,
        log: TaskLog,
        alerts: Mapping[str, Any] | None,
        task: Mapping[str, Any],
    ) -> NoReturn:
        try:
            self._go_on_unless_ended()
        except AirflowFailException:
            self._record_end(ENDED_BY_USER)
            raise
        trigger = NemoRunTrigger(
            executor=masked_executor(executor),
            handle=job.handle.to_json(),
            run=job.run.to_json() if job.run else None,
            deadline=self._deadline,
            attached=job.attached,
            complete=job.complete,
            logged=log.mark,
            deferred_at=time.time(),
            # A worker ends the claim of a task that may be reused.
            may_end_task=self._may_end_in_triggerer() and not self.reuse and needs_no_worker(self),
            pushes_result=self.do_xcom_push,
            alerts=alerts,
            task=task,
        )
        left = None if self._deadline is None else max(self._deadline - time.time(), 0)
        backstop = None if left is None else timedelta(seconds=left + executor.grace) + _BACKSTOP
        # The worker lets go of the job: from here on only the trigger may cancel it.
        self._let_go()
        self.defer(trigger=trigger, method_name="execute_complete", timeout=backstop)

    @classmethod
    def _may_end_in_triggerer(cls) -> bool:
        """Returns whether a worker does nothing at the end of the task but return the job's result."""
        ours = (NemoRunOperator.execute_complete, NemoRunOperator._end)
        return (cls.execute_complete, cls._end) == ours

    def _let_go(self) -> None:
        if self._submission is not None:
            self._submission.to_cancel = self._submission.run = None

    def _chose_format(self) -> bool:
        packager = unwrap(self.packager)
        return not self._without_zstd and isinstance(packager, ContentPackager) and packager.takes_zstd

    def _end(self, context: Context, handle: JobHandle, outcome: Outcome, *, attached: bool) -> Any:
        if parse_reuse(self.reuse) is not None:
            end_claim(unwrap(self.tracker), asker_of(labels_of(context)), self.log)
        if not outcome.succeeded:
            self._go_on_unless_ended()
        store = context["task_state_store"]
        self._note_lineage(context["ti"], outcome)
        if outcome.succeeded:
            push_artifacts(context["ti"], outcome.result)
            return outcome.result
        goes_on = self._goes_on(attempts.recall(store), outcome)
        attempts.consume(store, handle.key, outcome.status.failure or FailureKind.USER_ERROR, goes_on=goes_on)
        if goes_on:
            return self._submit_and_wait(context)
        if attached and outcome.status.state in (JobState.CANCELLED, JobState.LOST):
            # It was ended on behalf of an earlier try, or died with its machine: this try has run nothing yet.
            self.log.warning(
                "Job %s of an earlier try ended %s: submitting a new one", handle.key, outcome.status.state
            )
            return self._submit_and_wait(context)
        kind = outcome.status.failure or FailureKind.USER_ERROR
        if kind is FailureKind.PACKAGE and self._chose_format():
            # Earlier jobs there read it, this one's machine does not. Nothing has run, and it was our choice.
            self.log.warning("Job %s: %s: submitting it again as tar.gz", handle.key, outcome.message)
            self._without_zstd = True
            return self._submit_and_wait(context)
        if kind is FailureKind.FETCH:
            self.log.warning(
                "Job %s: %s: submitting it again with what it is given sent from here; outputs_route='worker' on the "
                "executor does so from the start",
                handle.key, outcome.message,
            )  # fmt: skip
            self._by_worker = True
            note_unreached(self._executor())
            return self._submit_and_wait(context)
        raise JobFailed(f"job {handle.key} failed ({kind}): {outcome.message}", kind, outcome.traceback)

    def _goes_on(self, attempt: attempts.Attempt | None, outcome: Outcome) -> bool:
        """Returns whether the job has stopped before it was done, and another attempt continues it now; says so."""
        if self._deadline is not None and time.time() >= self._deadline:  # the task's own time is over
            return False
        if attempts.may_go_on(attempt, outcome, self.max_chain):
            assert attempt is not None  # noqa: S101 - for the type checker
            self.log.info(
                "Job %s has stopped before it was done (%s: %s): attempt %d of at most %d goes on from checkpoint %s",
                attempt.key, outcome.status.failure, outcome.message, attempt.chained + 2, self.max_chain,
                outcome.checkpoint,
            )  # fmt: skip
            return True
        if attempts.may_go_on(attempt, outcome, self.max_chain + 1) and self.max_chain > 1:
            self.log.warning(
                "The job was continued max_chain=%d times and is not done: raise max_chain, or continue it with "
                "'nemo-airflow resume %s'",
                self.max_chain, attempt.key if attempt is not None else "",
            )  # fmt: skip
        return False


def _values_of(argument: Any) -> contextlib.AbstractContextManager[None]:
    """Takes texts for values where the argument was rendered: then no text is a template any more."""
    return contextlib.nullcontext() if isinstance(argument, Argument) else templates_rendered()


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """Fails the task for good where the author is at fault; all else is left to the task's retries and retry policy."""
    try:
        yield
    except SubmitError as error:
        if error.kind != FailureKind.USER_ERROR:
            raise
        raise AirflowFailException(str(error)) from None
    except (ConfigError, PackagingError, ArtifactError, MissingExtraError) as error:
        raise AirflowFailException(str(error)) from None
