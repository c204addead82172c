"""Runs what MLflow recorded of a run again without a DAG, and reports what came out the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_airflow.exceptions import TrackingError
from nemo_airflow.executors.base import Executor
from nemo_airflow.launch.following import Following
from nemo_airflow.launch.records import Launched, Records
from nemo_airflow.launch.submission import Launch, Options
from nemo_airflow.registered import find_executor
from nemo_airflow.reproduction import reporting
from nemo_airflow.reproduction.report import Report
from nemo_airflow.reproduction.restoring import Restored, Source, restore
from nemo_airflow.tracking.mlflow.tracker import MLflowTracker


def reproduce(
    run: str,
    *,
    on: Executor | str | None = None,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    tolerance: float = 0.0,
    ignore: Sequence[str] = (),
    repositories: Sequence[str | os.PathLike[str]] = (".",),
    tracking_uri: str | None = None,
    conn_id: str | None = None,
    on_line: Callable[[str], None] = print,
    say: Callable[[str], None] = print,
) -> Report:
    """Runs a recorded run again, follows its job to the end, and returns what is the same. Blocks.

    Args:
        run: The run: its id in MLflow, or its job's key or the beginning of that.
        on: Where to run it instead of where it ran: an executor, or a text as for ``nemo-airflow run --executor``.
        overrides: Values by dotted path, or texts as ``"lr=0.1"``: a variation of the run, and reported as one.
        tolerance: The relative difference up to which the last values of a metric count as the same.
        ignore: Patterns of metrics and outputs that are left out of the report.
        repositories: Folders in repositories with the run's code, for a package that no store has any more.
        tracking_uri: MLflow's address; found as for a tracker when None.
        conn_id: An Airflow connection with the address and the login.
        on_line: Called with each line that the job writes.
        say: Called with what people should know, in one line.

    Returns:
        The report, which is also in the new run's artifacts. A job that fails is a part of it that differs.

    Raises:
        NemoAirflowError: The run is not there, or cannot be restored; nothing was submitted. Or its job cannot be
            followed, or its report not be kept.
    """
    source = Source(tracking_uri, conn_id, tuple(os.fspath(folder) for folder in repositories), trusts_overrides=True)
    where = find_executor(on) if isinstance(on, str) else on
    again = Reproduction(run, source, on=where, overrides=overrides, tolerance=tolerance, ignore=ignore, say=say)
    records = Records()
    record = again.submit(records)
    Following(records, record, on_line, say).run()
    return again.report(record)


class Reproduction:
    """One reproduction of a run. What is to run is restored at once; nothing is submitted yet.

    Args:
        run: The run; see :func:`reproduce`, as for the others.
        source: Where it is.
        on: Where to run it; None for where it ran.
        overrides: Changes.
        tolerance: For metrics.
        ignore: Patterns.
        say: Called with what people should know, in one line.

    Raises:
        NemoAirflowError: See :func:`reproduce`.
    """

    def __init__(
        self,
        run: str,
        source: Source,
        *,
        on: Executor | None,
        overrides: Mapping[str, Any] | Sequence[str],
        tolerance: float,
        ignore: Sequence[str],
        say: Callable[[str], None],
    ) -> None:
        reporting.check_tolerance(tolerance)
        self._source, self._tolerance, self._ignore, self._say = source, tolerance, ignore, say
        self.restored = restore(source.find(run), source, on=on, overrides=overrides)

    @property
    def foreseen(self) -> Report:
        """What is known before it runs."""
        return self.restored.report(self._tolerance)

    def submit(self, records: Records) -> Launched:
        """Submits the job, and returns its record; its run and the original name each other.

        Raises:
            NemoAirflowError: See :meth:`.Launch.submit`.
        """
        restored, source = self.restored, self._source
        options = options_of(restored, source, restored.tags, restored.description)
        launch = Launch(restored.plan, restored.executor, options, self._say)
        record = launch.submit(records, launch.package())
        run = record.tracked
        if run is not None and run.ref is not None:
            reporting.link(restored.run, run.ref, record.key, source)
        return record

    def report(self, record: Launched) -> Report:
        """Returns what is the same, once the job has ended; it is kept with the new run.

        Raises:
            TrackingError: The new run is not in MLflow.
        """
        try:
            other = self._source.find(record.key)
        except TrackingError as error:
            raise TrackingError(
                f"the run of job {record.key} is not in MLflow yet, so that it cannot be compared: {error}; after "
                f"'nemo-airflow sync', run 'nemo-airflow reproduce {self.restored.run.run_id} --against {record.key}'"
            ) from error
        report = reporting.compare_runs(
            self.restored.run, other, self._source, tolerance=self._tolerance, ignore=self._ignore
        )
        reporting.keep(report, other, self._source)
        return report


def options_of(restored: Restored, source: Source, tags: Mapping[str, str], description: str) -> Options:
    """Returns what a job is asked for that runs again what was restored.

    Args:
        restored: That.
        source: Where the run is from, and the new one goes.
        tags: Tags of the new run.
        description: What it is, for people.
    """
    return Options(
        name=restored.name,
        packager=restored.packager,
        tracker=MLflowTracker(tracking_uri=source.tracking_uri, conn_id=source.conn_id, tags=tags),
        experiment=restored.experiment,
        collector=restored.collector,
        outputs=restored.outputs,
        env=restored.env,
        folder=Path.cwd(),
        allow=restored.allow,
        description=description,
    )
