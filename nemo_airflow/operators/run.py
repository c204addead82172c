"""The operator that runs a Fiddle config as a job on any back-end."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from types import NoneType
from typing import Any, ClassVar, NoReturn

import jinja2
from airflow.sdk import BaseOperator
from airflow.sdk.definitions.context import Context
from airflow.sdk.exceptions import AirflowFailException

from nemo_airflow import blocking
from nemo_airflow.config import Config, build
from nemo_airflow.config import plan as plans
from nemo_airflow.config.graph import is_template, templates_rendered
from nemo_airflow.config.validation import check_root
from nemo_airflow.connections import redact
from nemo_airflow.exceptions import (
    ConfigError,
    JobFailed,
    MissingExtraError,
    NemoAirflowError,
    PackagingError,
    SettingsError,
    SubmitError,
)
from nemo_airflow.executors.base import Executor
from nemo_airflow.executors.local import LocalExecutor
from nemo_airflow.follow import Follower, Outcome
from nemo_airflow.hooks.packaging import PackagingHook, bundle_folder
from nemo_airflow.job import FailureKind, Job, JobHandle, JobState, Package, without_patch
from nemo_airflow.masking import mark_secrets, masked_executor, masked_job, masked_plan
from nemo_airflow.operators import attempt as attempts
from nemo_airflow.operators.arguments import Argument, by_name, render_as_text, template_error, unwrap, wrap
from nemo_airflow.operators.back_end import BackEnd
from nemo_airflow.operators.links import MLflowRunLink
from nemo_airflow.operators.output_patterns import check_outputs, patterns_of
from nemo_airflow.operators.parse_checks import check_config, check_executor, check_kind
from nemo_airflow.operators.preparation import Overrides, Prepared, prepare
from nemo_airflow.packaging.base import ContentPackager, Packager
from nemo_airflow.registered import named_executor, named_recipe
from nemo_airflow.tracking.base import Tracker
from nemo_airflow.tracking.mlflow import MLflowTracker
from nemo_airflow.tracking.run import TrackedRun, load_collector, open_run
from nemo_airflow.triggers.run import NemoRunTrigger
from nemo_airflow.triggers.task_log import TaskLog
from nemo_airflow.web_address import web_address

_BACKSTOP = timedelta(seconds=60)
"""How long after the deadline Airflow itself ends the deferral, and the runner the job, should the trigger not have."""

_SHOWN_PARAMETERS = 500
"""How many parameters of the config the job's page shows; the tracker has all of them."""

_DEFAULT_TRACKER = MLflowTracker()


class NemoRunOperator(BaseOperator):
    """Runs a config as a job: packaged, submitted once, followed, tracked.

    The task waits in the triggerer, not in a worker, and ends as the job ends: the function's
    return value is the task's XCom, and an error is the task's, with the job's own traceback.

    Args:
        config: What to run: a ``Config``, ``Partial`` or ``Script``, or the name of a recipe that an
            installed distribution registers. Strings in it may be templates, and values may be the
            outputs of other tasks, which then run before.
        job_executor: Where to run it, or a ``Config`` of an executor, or the name of a registered one;
            ``LocalExecutor()`` when None.
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
        allow: Further targets that the job may import, as ``"pkg.mod:name"`` or ``"pkg."``.
        deferrable: Whether the task waits in the triggerer. If not, it keeps a worker's slot.
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
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "config": "py",
        "job_executor": "json",
        "packager": "json",
        "tracker": "json",
        "overrides": "json",
    }
    operator_extra_links = (MLflowRunLink(),)
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
        allow: Sequence[str] = (),
        deferrable: bool = True,
        **kwargs: Any,
    ) -> None:
        if not isinstance(kwargs.get("executor"), (str, NoneType)):
            raise ConfigError(
                "executor=... is Airflow's own argument, the name of an Airflow executor: "
                "give the back-end as job_executor=..."
            )
        config = by_name(config, named_recipe)
        executor = by_name(job_executor, named_executor) if job_executor is not None else LocalExecutor()
        # A task of a mapped operator is made when it runs, where an error of the author must not be retried.
        if not getattr(self, "_BaseOperator__from_mapped", False):
            check_kind("packager", packager, Packager, "GitArchivePackager()")
            check_kind("tracker", tracker, Tracker, "MLflowTracker()")
            check_executor(executor)
            check_config(config, overrides, allow, takes_params=params_prefix is not None)
            check_root(config)
            check_outputs(outputs)
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
        self.allow = allow
        self.deferrable = deferrable
        self._submitted: tuple[BackEnd, JobHandle] | None = None
        self._without_zstd = False

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Renders as Airflow does, but a text without a template stays as it is, and so does what has to be a text.

        Raises:
            AirflowFailException: A template cannot be rendered: trying again would not mend it.
        """
        if isinstance(content, str) and not is_template(content) and not content.endswith(tuple(self.template_ext)):
            return content
        try:
            containers = [field for field in (self.outputs, self.env) if not isinstance(field, str)]
            if any(content is field for field in (self.experiment, *containers)):
                return render_as_text(content, context, seen_oids)
            return super().render_template(content, context, jinja_env, seen_oids)
        except jinja2.TemplateError as error:
            raise AirflowFailException(template_error(content, error)) from None

    def execute(self, context: Context) -> Any:
        """Submits the job, or finds the one that an earlier try submitted, and waits for its end."""
        with _plain_errors():
            prepared = self._prepare(context)
        return self._begin(context, prepared)

    def render(self, context: Context) -> str:
        """Returns what would be sent to the back-end for this task, for people to read."""
        prepared = self._prepare(context)
        return self._executor().render(self._job(prepared, 1, None, {}, context)).to_text()

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Ends the task as its job ended. Called when the trigger has fired."""
        handle = JobHandle.from_json(event["handle"])
        current = attempts.recall(context["task_state_store"])
        if current is not None and current.key != handle.key:
            # The trigger of an earlier try of a task that was cleared: Airflow told them apart too late.
            self.log.warning("Job %s is of an earlier try: going on to follow %s", handle.key, current.key)
            return self.execute(context)
        if "error" in event:  # the trigger could not follow the job
            raise NemoAirflowError(event["error"])
        return self._end(context, handle, Outcome.from_json(event["outcome"]), attached=event["attached"])

    def on_kill(self) -> None:
        """Cancels the job: the task was killed while it was in a worker."""
        if self._submitted is None:
            return
        back_end, handle = self._submitted
        self.log.info("The task was killed: cancelling job %s", handle.key)
        back_end.cancel_at_once(handle)

    def _prepare(self, context: Context) -> Prepared:
        if self.overrides is not None and not isinstance(self.overrides, (Mapping, list, tuple)):
            raise ConfigError(f"overrides is {type(self.overrides).__name__}, not a mapping or a list of texts")
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
            executor = by_name(unwrap(self.job_executor), named_executor)
            executor = build(executor) if isinstance(executor, Config) else executor
        if not isinstance(executor, Executor):
            raise ConfigError(f"job_executor is {type(executor).__name__}, not an executor such as LocalExecutor()")
        return executor

    def _begin(self, context: Context, prepared: Prepared) -> Any:
        back_end = BackEnd(self._executor(), self.log.warning)
        store = context["task_state_store"]
        max_tries = context["ti"].max_tries
        earlier = attempts.recall(store)
        if attempts.continues(earlier, digest=prepared.digest, max_tries=max_tries):
            attempt = earlier
        else:
            number = _next_number(prepared, back_end, earlier)
            attempt = attempts.Attempt(number, prepared.key(number), prepared.digest, max_tries)
            attempts.remember(store, attempt)
        assert attempt is not None  # noqa: S101 - for the type checker: continues() is false for None
        with _plain_errors():
            handle, run, attached = self._attach_or_submit(context, prepared, back_end, attempt)
        return self._wait(context, back_end.executor, handle, run, attached=attached)

    def _attach_or_submit(
        self, context: Context, prepared: Prepared, back_end: BackEnd, attempt: attempts.Attempt
    ) -> tuple[JobHandle, TrackedRun | None, bool]:
        executor = back_end.executor
        handle = back_end.find(attempt.key)
        if handle is not None:
            self._submitted = (back_end, handle)
            self.log.info("Found job %s of an earlier try (%s %s): following it", handle.key, handle.kind, handle.id)
            run = self._open_run(prepared, prepared.job(attempt.number), executor)
            return handle, run.submitted(handle, "") if run else None, True
        self._keep_version(prepared)
        package = self._package(context, back_end)
        job = self._job(prepared, attempt.number, package, {}, context)
        run = self._open_run(prepared, job, executor)
        if run is not None and run.ref is not None:
            job = self._job(prepared, attempt.number, package, run.env_beside(self.env or {}), context)
        handle = self._submit(back_end, job)
        if run is not None:
            run = run.submitted(handle, redact(executor.render(masked_job(job)).to_text()))
        self._announce(context, prepared, handle, run, package)
        return handle, run, False

    def _keep_version(self, prepared: Prepared) -> None:
        """Keeps the config by its digest; a disk that is full keeps no job from running."""
        from nemo_airflow.config.versions import ConfigVersions

        try:
            ConfigVersions().save(masked_plan(prepared.plan))
        except SettingsError as error:
            self.log.warning("%s", error)

    def _submit(self, back_end: BackEnd, job: Job) -> JobHandle:
        # Before it is submitted: a kill at this very moment must find what to cancel.
        self._submitted = (back_end, JobHandle(job.key, back_end.executor.kind, ""))
        handle = back_end.submit(back_end.executor.render(job))
        self._submitted = (back_end, handle)
        self.log.info("Submitted job %s (%s %s)", handle.key, handle.kind, handle.id)
        return handle

    def _open_run(self, prepared: Prepared, job: Job, executor: Executor) -> TrackedRun | None:
        tracker = unwrap(self.tracker)
        if tracker is None:
            return None
        load_collector(self.collector)
        return open_run(
            tracker,
            masked_job(job),
            experiment=self.experiment or prepared.labels["dag_id"],
            shares_filesystem=executor.shares_filesystem,
            collector=self.collector,
            warn=self.log.warning,
        )

    def _package(self, context: Context, back_end: BackEnd) -> Package | None:
        packager = unwrap(self.packager)
        if packager is None:
            return None
        reads_zstd = self._may_choose_zstd() and back_end.reads_zstd()
        return PackagingHook(packager, reads_zstd=reads_zstd).package(context)

    def _may_choose_zstd(self) -> bool:
        packager = unwrap(self.packager)
        return not self._without_zstd and isinstance(packager, ContentPackager) and packager.takes_zstd

    def _job(
        self, prepared: Prepared, number: int, package: Package | None, env: Mapping[str, str], context: Context
    ) -> Job:
        executor = self._executor()
        labels = prepared.labels
        airflow_env = {
            f"AIRFLOW_CTX_{name.upper()}": labels[name] for name in ("dag_id", "run_id", "task_id", "try_number")
        }
        if package is None and executor.shares_filesystem:
            airflow_env["PYTHONPATH"] = str(bundle_folder(context))
        # The trigger holds the deadline; the runner's own limit is for when no triggerer is left.
        backstop = (self.execution_timeout + _BACKSTOP).total_seconds() if self.execution_timeout else None
        limits = [executor.time_limit, backstop]
        job = prepared.job(
            number,
            package=package,
            env={**executor.env, **airflow_env, **env, **(self.env or {})},
            time_limit=min((limit for limit in limits if limit), default=None),
            outputs=patterns_of(self.outputs),
        )
        return mark_secrets(job)

    def _announce(
        self, context: Context, prepared: Prepared, handle: JobHandle, run: TrackedRun | None, package: Package | None
    ) -> None:
        """Pushes what a page or a later task wants to know, before the task waits."""
        ti = context["ti"]
        ref = run.ref if run is not None else None
        plan = masked_plan(prepared.plan)
        record = {
            "key": handle.key,
            "handle": handle.to_json(),
            "plan_digest": plans.digest(plan),
            "config": dict(itertools.islice(plans.flatten(plan).items(), _SHOWN_PARAMETERS)),
            "package": without_patch(package.to_json()) if package else None,
            "run": {**ref.to_json(), "env": {}} if ref else None,
        }
        ti.xcom_push(key="nemo_job", value=record)
        ti.xcom_push(key=MLflowRunLink().xcom_key, value=web_address(ref.url) if ref else "")

    def _wait(
        self, context: Context, executor: Executor, handle: JobHandle, run: TrackedRun | None, *, attached: bool
    ) -> Any:
        deadline = time.time() + self.execution_timeout.total_seconds() if self.execution_timeout else None
        if self.deferrable:
            self._defer(executor, handle, run, deadline, attached=attached)
        follower = Follower(
            executor,
            handle,
            on_line=TaskLog().write,
            warn=self.log.warning,
            inform=self.log.info,
            sink=run.sink(self.log.warning) if run else None,
            deadline=deadline,
        )
        return self._end(context, handle, blocking.run(follower.run()), attached=attached)

    def _defer(
        self, executor: Executor, handle: JobHandle, run: TrackedRun | None, deadline: float | None, *, attached: bool
    ) -> NoReturn:
        trigger = NemoRunTrigger(
            executor=masked_executor(executor),
            handle=handle.to_json(),
            run=run.to_json() if run else None,
            deadline=deadline,
            attached=attached,
        )
        backstop = None if deadline is None else timedelta(seconds=deadline - time.time() + executor.grace) + _BACKSTOP
        # The worker lets go of the job: from here on only the trigger may cancel it.
        self._submitted = None
        self.defer(trigger=trigger, method_name="execute_complete", timeout=backstop)

    def _end(self, context: Context, handle: JobHandle, outcome: Outcome, *, attached: bool) -> Any:
        self._submitted = None
        store = context["task_state_store"]
        if outcome.succeeded:
            return outcome.result
        attempts.consume(store, handle.key)
        if attached and outcome.status.state in (JobState.CANCELLED, JobState.LOST):
            # It was ended on behalf of an earlier try, or died with its machine: this try has run nothing yet.
            self.log.warning(
                "Job %s of an earlier try ended %s: submitting a new one", handle.key, outcome.status.state
            )
            return self.execute(context)
        kind = outcome.status.failure or FailureKind.USER_ERROR
        if kind is FailureKind.PACKAGE and self._may_choose_zstd():
            # Earlier jobs there read it, this one's machine does not. Nothing has run, and it was our choice.
            self.log.warning("Job %s: %s: submitting it again as tar.gz", handle.key, outcome.message)
            self._without_zstd = True
            return self.execute(context)
        raise JobFailed(f"job {handle.key} failed ({kind}): {outcome.message}", kind, outcome.traceback)


def _next_number(prepared: Prepared, back_end: BackEnd, earlier: attempts.Attempt | None) -> int:
    """Returns the number of a new attempt, and ends what may still run of the earlier one."""
    if earlier is not None:
        back_end.end(earlier.key)
        return earlier.number + 1
    # No record, yet a job of that key: the record was dropped when the task was cleared.
    number = 1
    while back_end.end(prepared.key(number)):
        number += 1
    return number


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
    except (ConfigError, PackagingError, MissingExtraError) as error:
        raise AirflowFailException(str(error)) from None
