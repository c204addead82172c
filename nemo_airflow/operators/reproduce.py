"""The operator that runs what MLflow recorded of a run again, and reports what came out the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, NoReturn

from airflow.sdk.definitions.context import Context
from airflow.sdk.exceptions import AirflowFailException

from nemo_airflow.config import Config, build
from nemo_airflow.exceptions import BackendUnavailable, ConfigError, ExecutorError, JobFailed, TrackingError
from nemo_airflow.executors.base import Executor
from nemo_airflow.follow import Outcome
from nemo_airflow.hooks.packaging import bundle_folder
from nemo_airflow.job import JobHandle
from nemo_airflow.operators.arguments import by_name, unwrap, wrap
from nemo_airflow.operators.parse_checks import check_executor, check_kind
from nemo_airflow.operators.preparation import Overrides, Prepared, prepare_plan
from nemo_airflow.operators.run import NemoRunOperator
from nemo_airflow.operators.submission import Submitted
from nemo_airflow.registered import find_executor
from nemo_airflow.reproduction import reporting
from nemo_airflow.reproduction.report import PARTS, Report
from nemo_airflow.reproduction.restoring import Source, restore
from nemo_airflow.tracking.mlflow.tracker import MLflowTracker

REPORT = "reproduction"
"""Key of the XCom with the report."""

_DEFAULT_TRACKER = MLflowTracker()


class NemoReproduceOperator(NemoRunOperator):
    """Runs a recorded run again, from its plan, package, inputs and executor, and reports what is the same.

    The task ends as its job ends, and returns what that returned; the report is in the XCom ``reproduction`` and in
    the new run's artifacts. Each run names the other in its tags.

    Args:
        run: The run: its id in MLflow, or its job's key or the beginning of that.
        on: Where to run it instead of where it ran: as ``job_executor`` of :class:`NemoRunOperator`.
        overrides: Values by dotted path, or texts as ``"lr=0.1"``: a variation of the run, and reported as one.
        tolerance: The relative difference up to which the last values of a metric count as the same.
        ignore: Patterns of metrics and outputs that are left out of the report, such as ``"*seconds"``.
        require: Parts that have to be the same for the task to succeed, such as ``("metrics", "outputs")``.
        repositories: Folders in repositories with the run's code, besides the DAG bundle's; for a package that no
            store has any more.
        tracker: The MLflow that has the run, and gets the new one.
        kwargs: ``experiment``, ``deferrable``, ``defer_after``, ``alert_if`` and ``on_alert_callback`` of
            :class:`NemoRunOperator`, and the arguments of any operator.
    """

    takes_config: ClassVar[bool] = False
    template_fields: Sequence[str] = ("run", "on", "overrides", "tracker", "experiment")
    template_fields_renderers: ClassVar[dict[str, str]] = {"on": "json", "overrides": "json", "tracker": "json"}

    def __init__(
        self,
        *,
        run: str,
        on: Any = None,
        overrides: Overrides | None = None,
        tolerance: float = 0.0,
        ignore: Sequence[str] = (),
        require: Sequence[str] = (),
        repositories: Sequence[str] = (),
        tracker: MLflowTracker = _DEFAULT_TRACKER,
        **kwargs: Any,
    ) -> None:
        if unknown := sorted(set(require) - set(PARTS)):
            raise ConfigError(f"require={unknown[0]!r} is no part of a report; one is {', '.join(PARTS)}")
        if tracker is None:
            raise ConfigError("tracker=None: what is reproduced is read from MLflow, so give MLflowTracker()")
        reporting.check_tolerance(tolerance)
        check_kind("tracker", tracker, MLflowTracker, "MLflowTracker()")
        executor = by_name(on, find_executor) if on else None
        if executor is not None:
            check_executor(executor)
        super().__init__(config=None, tracker=tracker, **kwargs)
        self.run = run
        self.on = wrap(executor)
        self.overrides = overrides
        self.tolerance = tolerance
        self.ignore = ignore
        self.require = require
        self.repositories = repositories
        self._is_reported = False

    def _prepare(self, context: Context) -> Prepared:
        """Restores what is to run; what the other methods take from the operator's arguments comes from the run."""
        try:
            run = self._source(context).find(self.run)
            restored = restore(run, self._source(context), on=self._given_executor(), overrides=self.overrides or ())
        except (TrackingError, ExecutorError) as error:
            _raise_for_good(error)
        for part in restored.parts:
            self.log.info("%s: %s%s", part.name, part.verdict, f": {part.detail}" if part.detail else "")
        tracker = unwrap(self.tracker)
        self.job_executor = restored.executor
        self.packager = wrap(restored.packager)
        self.tracker = wrap(dataclasses.replace(tracker, tags={**tracker.tags, **restored.tags}))
        self.experiment = self.experiment or restored.experiment
        self.env, self.outputs, self.collector = restored.env, restored.outputs, restored.collector
        return prepare_plan(restored.plan, restored.allow, restored.executor, context, restored.description)

    def _given_executor(self) -> Executor | None:
        given = by_name(unwrap(self.on), find_executor) if unwrap(self.on) else None
        return build(given) if isinstance(given, Config) else given

    def _source(self, context: Context) -> Source:
        tracker = unwrap(self.tracker)
        folders = (*map(str, self.repositories), str(bundle_folder(context)))
        return Source(tracker.tracking_uri, tracker.conn_id, folders)

    def _wait(self, context: Context, executor: Executor, job: Submitted, in_worker: float) -> Any:
        ref = job.run.ref if job.run is not None else None
        if ref is not None:
            source = self._source(context)
            try:
                reporting.link(source.find(self.run), ref, job.handle.key, source)
            except TrackingError as error:
                self.log.warning("Run %s does not name the run that reproduces it: %s", self.run, error)
        return super()._wait(context, executor, job, in_worker)

    def _end(self, context: Context, handle: JobHandle, outcome: Outcome, *, attached: bool) -> Any:
        try:
            result = super()._end(context, handle, outcome, attached=attached)
        except JobFailed:
            if not self._is_reported:
                self._report(context, handle)
            raise
        if outcome.succeeded:  # else another job was submitted and has ended meanwhile, with its own report
            self._judge(self._report(context, handle))
        return result

    def _report(self, context: Context, handle: JobHandle) -> Report:
        source = self._source(context)
        run, other = source.find(self.run), source.find(handle.key)
        report = reporting.compare_runs(run, other, source, tolerance=self.tolerance, ignore=self.ignore)
        reporting.keep(report, other, source)
        context["ti"].xcom_push(key=REPORT, value=report.to_json())
        for line in report.to_text().splitlines():
            self.log.info("%s", line)
        self._is_reported = True
        return report

    def _judge(self, report: Report) -> None:
        required = [report.part(name) for name in self.require]
        wrong = [f"{part.name} {part.verdict}" for part in required if not part.is_same]
        if wrong:
            raise AirflowFailException(
                f"run {report.run_id} was not reproduced by run {report.other_id}: {'; '.join(wrong)}; "
                f"'nemo-airflow reproduce {report.run_id} --against {report.other_id}' shows how"
            )


def _raise_for_good(error: TrackingError | ExecutorError) -> NoReturn:
    """Fails the task without a retry where another try would find the same."""
    if isinstance(error, BackendUnavailable) or (isinstance(error, TrackingError) and error.transient):
        raise error
    raise AirflowFailException(str(error)) from None
