"""Reports on two runs that MLflow has, links them, and keeps the report with the newer one."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from nemo_airflow.exceptions import SettingsError
from nemo_airflow.reproduction.comparing import compare
from nemo_airflow.reproduction.outputs import output_digests
from nemo_airflow.reproduction.report import Report
from nemo_airflow.reproduction.restoring import Source
from nemo_airflow.tracking.base import REPRODUCED_BY, REPRODUCES, REPRODUCTION, VARIATION, RunRef
from nemo_airflow.tracking.mlflow import address
from nemo_airflow.tracking.mlflow.recorded import RecordedRun
from nemo_airflow.tracking.mlflow.tracker import MLflowTracker

FILE = "nemo_airflow/reproduction"
"""Path of the report in a run, without its ending."""


def compare_runs(
    run: RecordedRun, other: RecordedRun, source: Source, *, tolerance: float = 0.0, ignore: Sequence[str] = ()
) -> Report:
    """Returns how a run differs from another one. Blocks.

    Args:
        run: The original.
        other: The other one.
        source: Where they are.
        tolerance: The relative difference up to which the last values of a metric count as the same.
        ignore: Patterns of metrics and outputs that are left out.

    Raises:
        SettingsError: The tolerance is none.
        ArtifactError: Outputs cannot be read.
    """
    check_tolerance(tolerance)
    outputs = output_digests(run, other, source.tracking_uri, source.conn_id)
    parts = compare(run, other, tolerance=tolerance, ignore=ignore, outputs=outputs)
    varied = other.tags.get(VARIATION, "") if other.tags.get(REPRODUCES) == run.run_id else ""
    return Report(
        run.run_id, run.key, other.run_id, other.key, tolerance, parts, (varied,) if varied else (), tuple(ignore)
    )


def check_tolerance(tolerance: float) -> None:
    """Refuses what is no relative difference.

    Raises:
        SettingsError: It is negative, or not a number.
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise SettingsError(
            f"tolerance {tolerance:g} is no relative difference: give 0 for equal to the last digit, or such as 1e-6"
        )


def link(run: RecordedRun, ref: RunRef, key: str, source: Source) -> None:
    """Notes in a run by which other one it is reproduced. Blocks.

    Raises:
        TrackingError: MLflow is away, or refuses.
    """
    _tracker(source).tag(_ref(run, source), {f"{REPRODUCED_BY}{ref.run_id}": key})


def keep(report: Report, other: RecordedRun, source: Source) -> None:
    """Keeps a report with the newer run: as files, and in one line as a tag. Blocks.

    Raises:
        TrackingError: MLflow is away, or refuses.
    """
    tracker, ref = _tracker(source), _ref(other, source)
    texts = {f"{FILE}.json": json.dumps(report.to_json(), indent=2, allow_nan=False), f"{FILE}.txt": report.to_text()}
    tracker.documents(ref, texts)
    tracker.tag(ref, {REPRODUCTION: report.summary})


def _tracker(source: Source) -> MLflowTracker:
    return MLflowTracker(tracking_uri=source.tracking_uri, conn_id=source.conn_id)


def _ref(run: RecordedRun, source: Source) -> RunRef:
    uri, _ = address.resolve(source.tracking_uri, source.conn_id)
    return RunRef(address.hide_login(uri), run.experiment_id, run.run_id)
