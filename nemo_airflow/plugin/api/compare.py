"""Compares up to 50 runs: what they were made of, their metrics, and curves of a metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Query

from nemo_airflow.comparison.tables import Row, make_rows
from nemo_airflow.exceptions import NemoAirflowError
from nemo_airflow.plugin.api.answers import Answer, JobPlace, Number, TrackerState, to_number
from nemo_airflow.plugin.api.found import Source, default_source, place_of
from nemo_airflow.plugin.api.rights import Rights, RightsDep
from nemo_airflow.plugin.api.shared_answers import SharedAnswers
from nemo_airflow.reproduction.facts import SECTIONS
from nemo_airflow.tracking.base import Metric
from nemo_airflow.tracking.mlflow.address import resolve
from nemo_airflow.tracking.mlflow.fields import cut_text
from nemo_airflow.tracking.mlflow.jobs import JobRun
from nemo_airflow.tracking.mlflow.recorded import RunsTogether
from nemo_airflow.tracking.mlflow.runs import STANDS_FOR

router = APIRouter(tags=["compare"])

_MOST_RUNS = 50
_MOST_POINTS = 6000
"""Points of a metric that an answer has of all runs together."""

_KEPT_SECONDS, _KEPT_SECONDS_ENDED = 5.0, 60.0
_KEPT = 8
"""How long, and of how many pages, what was found of runs is kept: a page asks for several parts of it at once.

It takes MLflow most of a second to write down 50 runs. Those that have all ended hardly change.
"""

_TEXT_LENGTH = 1000
"""Characters of a value that an answer has."""

_SHOWN_AXES = 1000
"""Parameters that an answer has, to choose axes from."""

RunIds = Annotated[list[str], Query(description="The runs in MLflow, in the order in which they are shown.")]


class ComparedRun(Answer):
    """A run that is compared.

    Attributes:
        mlflow_run_id: Its run in MLflow.
        key: The job's key.
        name: Its name, for people.
        place: Its task instance.
        state: How it ended, or ``running``.
        why: Why it failed, in one line.
        back_end: The kind of its executor.
        cluster: Which back-end of this kind.
        user: Who started it.
        started: When it began, in seconds since the epoch.
        seconds: How long it ran; None while it runs.
    """

    mlflow_run_id: str
    key: str
    name: str
    place: JobPlace
    state: str
    why: str = ""
    back_end: str = ""
    cluster: str = ""
    user: str = ""
    started: float
    seconds: float | None = None


class ComparedValue(Answer):
    """A value of all runs.

    Attributes:
        name: What it is.
        values: Its different values.
        of: For each run the place of its value in these; -1 if it has none, -2 if that is not recorded.
    """

    name: str
    values: list[str]
    of: list[int]


class ComparedMetric(Answer):
    """A metric of all runs.

    Attributes:
        name: Its name.
        values: For each run a value; None if it has none.
    """

    name: str
    values: list[Number | None]


class Comparison(Answer):
    """Runs side by side.

    Attributes:
        runs: The runs, in the order in which they were asked for.
        missing: How many of those asked for are gone, or may not be read.
        metrics: The newest values of their metrics.
        params: Those of their parameters that differ.
        tracker: The MLflow that they are from.
    """

    runs: list[ComparedRun]
    missing: int
    metrics: list[ComparedMetric]
    params: list[ComparedValue]
    tracker: TrackerState


class ComparedSection(Answer):
    """One kind of what runs were made of.

    Attributes:
        runs: The runs that the values are of.
        rows: The values.
        same: How many others are the same in all runs, and left out.
        more: How many there are besides these.
    """

    runs: list[str]
    rows: list[ComparedValue]
    same: int
    more: int


class Curve(Answer):
    """Points of a metric in one run, in the order of their steps.

    Attributes:
        mlflow_run_id: The run.
        steps: The steps.
        times: When each was written, in seconds since the run began.
        values: The values.
    """

    mlflow_run_id: str
    steps: list[int]
    times: list[float]
    values: list[Number]


class Curves(Answer):
    """A metric in several runs.

    Attributes:
        metric: The metric.
        curves: Its points, as many as a chart needs; of runs that have any.
    """

    metric: str
    curves: list[Curve]


class Extremes(Answer):
    """The smallest and the largest values of a metric, by all of its points.

    Attributes:
        metric: The metric.
        runs: The runs.
        smallest: For each run its smallest value; None if it has none.
        largest: For each run its largest one.
    """

    metric: str
    runs: list[str]
    smallest: list[Number | None]
    largest: list[Number | None]


@router.get("/compare")
def compare_runs(rights: RightsDep, mlflow_run_id: RunIds) -> Comparison:
    """Returns runs side by side, with their metrics."""
    together, runs = _runs(rights, mlflow_run_id)
    names = sorted({name for run in runs for name in run.metrics}, key=lambda name: (name.startswith("system/"), name))
    own = [{name: value for name, value in run.params.items() if name != STANDS_FOR} for run in runs]
    params = [row for row in make_rows(own) if row.differs]
    return Comparison(
        runs=[_compared(run) for run in runs],
        missing=len(set(mlflow_run_id)) - len(runs),
        metrics=[
            ComparedMetric(
                name=name, values=[to_number(run.metrics[name]) if name in run.metrics else None for run in runs]
            )
            for name in names
        ],
        params=[_value(row) for row in params[:_SHOWN_AXES]],
        tracker=TrackerState(uri=together.uri),
    )


@router.get("/compare/points")
def compare_points(rights: RightsDep, mlflow_run_id: RunIds, metric: str, limit: int = 500) -> Curves:
    """Returns the curves of a metric: of a long one a sample."""
    together, runs = _runs(rights, mlflow_run_id)
    by_id = {run.run_id: run for run in runs}
    with _Answering():
        found = together.sampled(by_id, metric, max(2, min(limit, _MOST_POINTS // len(runs))))
    return Curves(metric=metric, curves=[_curve(by_id[run_id], points) for run_id, points in found.items()])


@router.get("/compare/extremes")
def compare_extremes(rights: RightsDep, mlflow_run_id: RunIds, metric: str) -> Extremes:
    """Returns the smallest and the largest value of a metric in each run: all of its points are read."""
    together, runs = _runs(rights, mlflow_run_id)
    with _Answering():
        found = together.histories([run.run_id for run in runs], metric)
    values = [[point.value for point in found[run.run_id] if not math.isnan(point.value)] for run in runs]
    return Extremes(
        metric=metric,
        runs=[run.run_id for run in runs],
        smallest=[to_number(min(each)) if each else None for each in values],
        largest=[to_number(max(each)) if each else None for each in values],
    )


@router.get("/compare/made")
def compare_section(
    rights: RightsDep,
    mlflow_run_id: RunIds,
    section: Literal["config", "code", "environment", "inputs", "asked"],
    same: Annotated[bool, Query(description="Whether what is the same in all runs is returned as well.")] = False,
    search: Annotated[str, Query(description="A part of the names that are returned.")] = "",
    limit: Annotated[int, Query(ge=1, le=5000)] = 500,
) -> ComparedSection:
    """Returns one kind of what the runs were made of: what differs, or all."""
    make, files = SECTIONS[section]
    together, jobs = _runs(rights, mlflow_run_id)
    with _Answering():
        runs = together.recorded([job.run_id for job in jobs], files)
    sides = [make(run) if run is not None else None for run in runs.values()]
    if section != "inputs":  # a job may be given nothing, but it has all the others
        sides = [side or None for side in sides]
    rows = [row for row in make_rows(sides) if search.lower() in row.name.lower()]
    shown = rows if same else [row for row in rows if row.differs]
    return ComparedSection(
        runs=list(runs),
        rows=[_value(row) for row in shown[:limit]],
        same=len(rows) - len(shown),
        more=max(0, len(shown) - limit),
    )


def _seconds_kept(together: RunsTogether) -> float:
    runs = together.jobs.values()
    return _KEPT_SECONDS_ENDED if runs and all(run.ended for run in runs) else _KEPT_SECONDS


kept_runs = SharedAnswers(_KEPT, _seconds_kept)
"""What was found of runs."""


def _runs(rights: Rights, run_ids: Sequence[str]) -> tuple[RunsTogether, list[JobRun]]:
    """Returns the runs, and those of them that the user may read."""
    wanted = tuple(dict.fromkeys(run_ids))
    if len(wanted) > _MOST_RUNS:
        raise HTTPException(422, f"{len(wanted)} runs are too many to compare: choose at most {_MOST_RUNS}")
    with _Answering():
        together = _together(default_source(), wanted)
    readable = [run for run in together.jobs.values() if rights.may_read(place_of(run).dag_id)]
    if not readable:
        rights.need(rights.may_read(""))  # who may not see all jobs is not told which ones there are
        raise HTTPException(404, "MLflow has none of these runs: they were deleted, or are in another MLflow")
    return together, readable


def _together(source: Source, run_ids: tuple[str, ...]) -> RunsTogether:
    key = (resolve(source.tracking_uri, source.conn_id), run_ids)
    return kept_runs.get(key, lambda: RunsTogether(run_ids, source.tracking_uri, source.conn_id))


class _Answering:
    """Makes of an MLflow that does not answer an answer of ours."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, NemoAirflowError):
            raise HTTPException(503, f"MLflow does not answer: {error}") from error


def _compared(run: JobRun) -> ComparedRun:
    return ComparedRun(
        mlflow_run_id=run.run_id,
        key=run.key,
        name=run.name,
        place=place_of(run),
        state=run.state,
        why=run.reason,
        back_end=run.kind,
        cluster=run.cluster,
        user=run.user,
        started=run.began,
        seconds=run.seconds,
    )


def _value(row: Row) -> ComparedValue:
    return ComparedValue(name=row.name, values=[cut_text(text, _TEXT_LENGTH) for text in row.values], of=list(row.of))


def _curve(run: JobRun, points: Sequence[Metric]) -> Curve:
    return Curve(
        mlflow_run_id=run.run_id,
        steps=[point.step for point in points],
        times=[round(point.timestamp - run.began, 3) for point in points],
        values=[to_number(point.value) for point in points],
    )
