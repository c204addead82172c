"""The metrics of a job: their newest values, lines of them for charts, and what its executor was asked for."""

from __future__ import annotations

import json
import math
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query

from nemo_airflow.exceptions import NemoAirflowError
from nemo_airflow.executors.machines import machines_asked
from nemo_airflow.plugin.api.answers import Answer, Number, TrackerState, to_number
from nemo_airflow.plugin.api.found import FoundJobDep
from nemo_airflow.tracking.mlflow.address import resolve
from nemo_airflow.tracking.mlflow.jobs import JobRuns
from nemo_airflow.tracking.mlflow.lines import LAST_STEP, Line
from nemo_airflow.tracking.mlflow.store import open_store

router = APIRouter(tags=["metrics"])

_MOST_METRICS = 50
_AT_ONCE = 4
_KEPT = 500

_CPUS = ("cpus", "ncpus", "cpus_per_task", "entrypoint_num_cpus")
_MEMORY = ("memory", "mem", "h_vmem", "entrypoint_memory", "vmem")
_BINARY = frozenset(("slurm", "pbs", "gridengine", "docker"))
"""Back-ends for which a G is 2**30 bytes."""

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


class NewestValue(Answer):
    """The newest point of a metric.

    Attributes:
        name: The metric.
        value: Its value.
        step: Its step; None where that is not known.
        at: When it was written, in seconds since the epoch; likewise.
    """

    name: str
    value: Number
    step: int | None = None
    at: float | None = None


class NewestValues(Answer):
    """The metrics of a job.

    Attributes:
        metrics: By name.
        from_follower: Whether they are what the job's follower tells, while MLflow does not answer.
        tracker: The MLflow that has them.
    """

    metrics: list[NewestValue]
    from_follower: bool
    tracker: TrackerState


class MetricLine(Answer):
    """A metric's points as a chart needs them, in the order of their steps.

    Attributes:
        name: The metric.
        steps: The steps.
        times: When each was written, in seconds since the job began.
        values: The values.
        total: How many points the metric has there; None where that is not known.
        keeps_extremes: Whether the smallest and largest values between the points that are left out are among them.
    """

    name: str
    steps: list[int]
    times: list[float]
    values: list[Number]
    total: int | None
    keeps_extremes: bool


class MetricLines(Answer):
    """Lines of a job's metrics.

    Attributes:
        began: When the job began, in seconds since the epoch.
        lines: The lines, of metrics that have points.
        tracker: The MLflow that has them.
    """

    began: float
    lines: list[MetricLine]
    tracker: TrackerState


class AskedField(Answer):
    """A field of the executor.

    Attributes:
        name: Its name.
        value: Its value.
    """

    name: str
    value: str


class Asked(Answer):
    """What a job's executor was asked for.

    Attributes:
        nodes: Machines.
        gpus: GPUs of all of them.
        cpus: Processors of each process or machine, as the back-end counts; None where that is not said.
        memory_bytes: Memory of each machine; likewise.
        fields: Its fields that have to do with machines.
        tracker: The MLflow that has it.
    """

    nodes: int = 1
    gpus: int = 0
    cpus: float | None = None
    memory_bytes: float | None = None
    fields: list[AskedField]
    tracker: TrackerState


@router.get("/job/metrics")
def get_metrics(found: FoundJobDep) -> NewestValues:
    """Returns the newest values of a job's metrics: of MLflow, or else what its follower has told."""
    if found.run is None:
        told = found.live.get("metrics")
        return NewestValues(
            metrics=sorted(_read_values(told) if isinstance(told, Mapping) else (), key=lambda each: each.name),
            from_follower=True,
            tracker=found.tracker,
        )
    latest = found.run.latest
    return NewestValues(
        metrics=[
            NewestValue(
                name=name,
                value=_wire(value),
                step=latest[name][0] if name in latest else None,
                at=latest[name][1] / 1000 if name in latest else None,
            )
            for name, value in sorted(found.run.metrics.items())
        ],
        from_follower=False,
        tracker=found.tracker,
    )


@router.get("/job/points")
def get_points(
    found: FoundJobDep,
    metric: Annotated[list[str], Query(description="The metrics.")],
    points: Annotated[int, Query(ge=10, le=10_000, description="How many points of each, about.")] = 1200,
    since: Annotated[Sequence[int], Query(description="The first step of each metric, in their order.")] = (),
    until: Annotated[int, Query(description="The last step of all of them.")] = LAST_STEP,
) -> MetricLines:
    """Returns lines of a job's metrics: all of few points, and of many those that keep the shape."""
    if len(metric) > _MOST_METRICS:
        raise HTTPException(422, f"{len(metric)} metrics are too many for one request: ask for {_MOST_METRICS} at most")
    run, source = found.run, found.source
    if run is None or source is None:
        return MetricLines(began=0.0, lines=[], tracker=found.tracker)
    first = {name: int(step) for name, step in zip(metric, since, strict=False)}
    wanted = [name for name in dict.fromkeys(metric) if name in run.metrics]
    try:
        store = source.runs()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            lines = list(
                pool.map(
                    lambda name: _line(
                        store, run.run_id, name, points, first.get(name, 0), until, run.latest.get(name)
                    ),
                    wanted,
                )
            )
    except NemoAirflowError as error:
        return MetricLines(began=run.began, lines=[], tracker=TrackerState(uri=found.tracker.uri, away=str(error)))
    return MetricLines(
        began=run.began,
        lines=[_answer(name, line, run.began) for name, line in zip(wanted, lines, strict=True)],
        tracker=found.tracker,
    )


@router.get("/job/asked")
def get_asked(found: FoundJobDep) -> Asked:
    """Returns what the job's executor was asked for."""
    if found.run is None or found.source is None:
        return Asked(fields=[], tracker=found.tracker)
    try:
        store = open_store(*resolve(found.source.tracking_uri, found.source.conn_id))
        data = store.read(store.run(found.run.run_id), "nemo_airflow/job.json")
        asked = json.loads(data or b"{}")
    except (NemoAirflowError, ValueError) as error:
        return Asked(fields=[], tracker=TrackerState(uri=found.tracker.uri, away=str(error)))
    told = asked.get("executor") if isinstance(asked, Mapping) else None
    executor = told if isinstance(told, Mapping) else {}
    machines = machines_asked(executor)
    binary = executor.get("kind") in _BINARY
    return Asked(
        nodes=machines.nodes,
        gpus=machines.gpus,
        cpus=next((number for name in _CPUS if (number := _number(executor.get(name))) is not None), None),
        memory_bytes=next((size for name in _MEMORY if (size := _size(executor.get(name), binary)) is not None), None),
        fields=[
            AskedField(name=name, value=str(value))
            for name, value in executor.items()
            if isinstance(value, (int, float, str))
            and not isinstance(value, bool)
            and value not in ("", 0)
            and any(word in name for word in ("cpu", "mem", "gpu", "nodes", "ntasks", "partition", "instance", "time"))
        ],
        tracker=found.tracker,
    )


def _read_values(values: Mapping[str, Any]) -> list[NewestValue]:
    found = []
    for name, value in values.items():
        try:
            found.append(NewestValue(name=str(name), value=to_number(float(value))))
        except (TypeError, ValueError):  # any task may write an XCom
            continue
    return found


def _wire(value: float) -> Number:
    """Returns a value for an answer: MLflow's databases keep an infinity as the largest number."""
    return to_number(math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else value)


def _answer(name: str, line: Line, began: float) -> MetricLine:
    return MetricLine(
        name=name,
        steps=[point.step for point in line.points],
        times=[round(point.timestamp - began, 3) for point in line.points],
        values=[_wire(point.value) for point in line.points],
        total=line.total,
        keeps_extremes=line.keeps_extremes,
    )


_lines: OrderedDict[tuple[Any, ...], Line] = OrderedDict()
_lock = threading.Lock()


def _line(
    store: JobRuns, run_id: str, name: str, points: int, since: int, until: int, latest: tuple[int, int] | None
) -> Line:
    """Returns a line. Those that were read last are kept: they are the same until the metric has a newer point."""
    key = (store.uri, run_id, name, points, since, until, latest)
    with _lock:
        if key in _lines:
            _lines.move_to_end(key)
            return _lines[key]
    line = store.line(run_id, name, points, since, until)
    with _lock:
        _lines[key] = line
        while len(_lines) > _KEPT:
            _lines.popitem(last=False)
    return line


def _number(value: Any) -> float | None:
    try:
        number = float(str(value).removesuffix("+"))
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def _size(value: Any, binary: bool) -> float | None:
    """Returns bytes: of ``4G``, ``4GB``, ``4Gi``, or of a number as the back-end counts it; None where it is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if value > 10**6 else None  # in units that only the back-end knows
    text = str(value or "").strip().lower().removesuffix("b")
    binary = binary or text.endswith("i")
    number, unit = text.removesuffix("i").rstrip("kmgt"), text.removesuffix("i")[-1:]
    factor = _UNITS.get(unit if unit.isalpha() else "")
    if factor is None or (amount := _number(number)) is None or not unit.isalpha():
        return None
    return amount * (1.024 ** (len(str(factor)) // 3) * factor if binary else factor)
