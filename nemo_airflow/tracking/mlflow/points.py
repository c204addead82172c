"""Writes metric points so that reading a stream again does not duplicate any.

Each batch comes with a mark: the number of recorded bytes of the job's stream. A replayed batch
is recognized by its mark. One gap remains: the points of a batch are stored and the process
dies before the mark is. Databases close it by themselves, since a point (name, step, time, value)
is a key there; other stores would store both, so points that may be there already are
compared with the history of their metric.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence

from nemo_airflow.exceptions import TrackingError
from nemo_airflow.tracking.base import Metric
from nemo_airflow.tracking.mlflow.batches import Refusal, refuse, write_accepted
from nemo_airflow.tracking.mlflow.fields import clean_name, mark_of
from nemo_airflow.tracking.mlflow.store import Store

_AT_ONCE = 900
"""Points in a request: MLflow accepts 1,000 values, including tags, and 1 MB."""

_RUNS_KEPT = 2000

_INTEGERS = 2**63

_Point = tuple[int, int, float | str]


@dataclasses.dataclass
class _Recorded:
    """The state of a run when this process began to write to it.

    Attributes:
        mark: The recorded mark; updated with each batch.
        latest: Step of each metric's newest point then, and its time in milliseconds; see :class:`Run`.
        seen: Points of the metrics whose history was read.
        lock: Held while points are written.
    """

    mark: int = -1
    latest: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    seen: dict[str, set[_Point]] = dataclasses.field(default_factory=dict)
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)


_runs: OrderedDict[tuple[str, str, str], _Recorded] = OrderedDict()
_runs_lock = threading.Lock()


def record(store: Store, run_id: str, metrics: Sequence[Metric], mark: int, attempt: str = "") -> None:
    """Writes points, then the mark; does nothing if the mark is already recorded.

    Args:
        store: The store.
        run_id: The run.
        metrics: The points; names that MLflow refuses are changed.
        mark: Bytes of the stream that are recorded with these points; 0 leaves the mark unchanged.
        attempt: Whose stream that is; see :attr:`RunRef.attempt`.
    """
    recorded, tag = _recorded(store, run_id, attempt), mark_of(attempt)
    with recorded.lock:
        try:
            if recorded.mark < 0:
                run = store.run(run_id)
                recorded.mark, recorded.latest = read_mark(run.tags.get(tag)), dict(run.latest)
            if mark and mark <= recorded.mark:
                return
            refused = [Refusal(metric, reason) for metric in metrics if (reason := _problem_of(metric))]
            points = [
                dataclasses.replace(metric, name=clean_name(metric.name))
                for metric in metrics
                if not _problem_of(metric)
            ]
            fresh = [point for point in points if not _there_already(store, run_id, recorded, point)]
            marked = False
            for start in range(0, len(fresh), _AT_ONCE):
                part = fresh[start : start + _AT_ONCE]
                # The mark of a refused batch is written after its halves.
                with_mark = mark > 0 and start + _AT_ONCE >= len(fresh)
                found = write_accepted(
                    store,
                    run_id,
                    part,
                    functools.partial(_log, store, run_id, {tag: str(mark)} if with_mark else {}, len(part)),
                )
                marked = with_mark and not found
                refused += found
            if mark and not marked:
                store.log(run_id, tags={tag: str(mark)})
            recorded.mark = max(mark, recorded.mark)
        except TrackingError:
            # The request may have succeeded: check before the next batch.
            forget(store, run_id, attempt)
            raise
    refuse(refused, len(metrics), lambda point: f"{point.name!r} at step {point.step}")


def _log(store: Store, run_id: str, mark: dict[str, str], whole: int, points: Sequence[Metric]) -> None:
    """Writes points; with the mark only where they are the whole batch."""
    store.log(run_id, metrics=points, tags=mark if len(points) == whole else {})


def _problem_of(point: Metric) -> str:
    """Returns why MLflow cannot store a point, empty if it can.

    A server does not refuse a step or time of more than 64 bits: it answers that all is well, stores the point
    with step 0, and drops all points behind it in the batch.
    """
    if not -_INTEGERS <= point.step < _INTEGERS:
        return "the step is not a 64-bit integer"
    if not (math.isfinite(point.timestamp) and 0 <= point.timestamp * 1000 < _INTEGERS):
        return f"the time {point.timestamp} is not one in seconds since 1970"
    return ""


def read_mark(tag: str | None) -> int:
    """Returns the mark in a tag; 0 if it is missing or was changed by a person."""
    return int(tag) if tag and tag.isdecimal() else 0


def forget(store: Store, run_id: str, attempt: str = "") -> None:
    """Drops the cached state of a run that ended or has to be read again."""
    with _runs_lock:
        _runs.pop((store.uri, run_id, attempt), None)


def _recorded(store: Store, run_id: str, attempt: str) -> _Recorded:
    with _runs_lock:
        found = _runs.setdefault((store.uri, run_id, attempt), _Recorded())
        _runs.move_to_end((store.uri, run_id, attempt))
        while len(_runs) > _RUNS_KEPT:
            _runs.popitem(last=False)
        return found


def _there_already(store: Store, run_id: str, recorded: _Recorded, point: Metric) -> bool:
    # MLflow orders by step, and by time only within a step.
    if point.name not in recorded.latest or (point.step, _milliseconds(point)) > recorded.latest[point.name]:
        return False
    if point.name not in recorded.seen:
        recorded.seen[point.name] = {_identity(known) for known in store.history(run_id, point.name)}
    return _identity(point) in recorded.seen[point.name]


def _identity(point: Metric) -> _Point:
    return point.step, _milliseconds(point), _comparable(point.value)


def _milliseconds(point: Metric) -> int:
    return round(point.timestamp * 1000)


def _comparable(value: float) -> float | str:
    """Returns a value that equals itself, and infinity as the largest float, as databases store it."""
    if math.isnan(value):
        return "nan"
    return value if math.isfinite(value) else math.copysign(1.7976931348623157e308, value)
