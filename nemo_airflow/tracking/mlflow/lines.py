"""What a chart needs of a metric: all of few points, and of many those that keep its shape and its extremes."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from nemo_airflow.tracking.base import Metric

_FEW = 4000
"""Points that are read as they are."""

_AT_ONCE = 2
"""Connections by which a file's database is read side by side."""

LAST_STEP = 2**62
"""A step behind all others."""


@dataclasses.dataclass(frozen=True)
class Line:
    """Points of a metric, in the order of their steps.

    Attributes:
        points: The points.
        total: How many the metric has there; None where that is not known.
        keeps_extremes: Whether the smallest and largest values between the points that are left out are among them.
    """

    points: Sequence[Metric]
    total: int | None = None
    keeps_extremes: bool = True


def thin(points: Iterable[Metric], limit: int) -> Line:
    """Returns a line of about so many of the points: first, smallest, largest and last of each part of it."""
    ordered = sorted(points, key=lambda point: (point.step, point.timestamp))
    if len(ordered) <= limit:
        return Line(ordered, len(ordered))
    parts = max(limit // 4, 1)
    ends = [round(number * len(ordered) / parts) for number in range(parts + 1)]
    kept: list[Metric] = []
    for begin, end in itertools.pairwise(ends):
        places = range(begin, end)
        finite = [place for place in places if math.isfinite(ordered[place].value)]
        extremes = {pick(finite, key=lambda place: ordered[place].value) for pick in (min, max)} if finite else set()
        kept += [ordered[place] for place in sorted({begin, end - 1, *extremes})]
    return Line(kept, len(ordered))


def read_database(engine: Any, run_id: str, metric: str, limit: int, since: int, until: int) -> Line:
    """Reads a line from MLflow's database.

    Of many points the database makes the parts. Of each the smallest and the largest value are exact; they stand at the
    part's first and last point, since where they are in it, less than a pixel, would take another pass.

    Args:
        engine: SQLAlchemy's engine.
        run_id: The run.
        metric: The metric.
        limit: How many points, about.
        since: The first step.
        until: The last one.
    """
    from mlflow.store.tracking.dbmodels.models import SqlMetric as Point
    from sqlalchemy import bindparam, case, func, literal_column, select

    where = [Point.run_uuid == run_id, Point.key == metric, Point.step >= since, Point.step <= until]
    value = case((Point.is_nan, None), else_=Point.value)

    def read(query: Any) -> list[Any]:
        with engine.connect() as connection:
            return list(connection.execute(query))

    def metrics(rows: Iterable[Any]) -> Iterator[Metric]:
        for step, at, number in rows:
            yield Metric(metric, math.nan if number is None else number, step, at / 1000)

    found = read(select(Point.step, Point.timestamp, value).where(*where).limit(_FEW + 1))
    if len(found) <= _FEW:
        return thin(metrics(found), max(limit, _FEW))
    column: Any = Point.step
    low, high = _span(read, column, where)
    if high - low < limit:  # many points at few steps, or all at one
        column = Point.timestamp
        low, high = _span(read, column, where)
    width = max((high - low) // (limit // 2) + 1, 1)
    columns = [
        func.min(value), func.max(value), func.min(Point.step), func.max(Point.step), func.min(Point.timestamp),
        func.max(Point.timestamp), func.count(),
    ]  # fmt: skip
    if engine.dialect.name == "sqlite" and column is not Point.timestamp:
        # It would sort all points to group them; by an index a part after the other takes a third of the time. The
        # steps must have no other bounds: it would look from the first of two.
        inside = (column >= bindparam("begin"), column < bindparam("end"))
        one = select(*columns).where(*where[:2], *inside)

        def some(begins: Sequence[int]) -> list[Any]:
            with engine.connect() as connection:
                ranges = ({"begin": each, "end": min(each + width, high + 1)} for each in begins)
                found = (connection.execute(one, range_).one() for range_ in ranges)
                return [row for row in found if row[-1]]

        starts = range(low, high + 1, width)
        middle = -(-len(starts) // _AT_ONCE)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            halves = pool.map(some, (starts[begin : begin + middle] for begin in range(0, len(starts), middle)))
            rows = list(itertools.chain.from_iterable(halves))
    else:
        bucket = ((column - literal_column(str(low))) // literal_column(str(width))).label("bucket")
        grouped = read(select(bucket, *columns).where(*where).group_by(literal_column("bucket")))
        rows = [row[1:] for row in sorted(grouped)]
    ends = (
        read(select(Point.step, Point.timestamp, value).where(*where).order_by(*order).limit(1))
        for order in ((column, Point.value), (column.desc(), Point.value))
    )
    first, last = (list(metrics(each)) for each in ends)
    points = [*first, *(point for row in rows for point in _points_of(metric, row)), *last]
    return Line(sorted(points, key=lambda point: (point.step, point.timestamp)), sum(row[-1] for row in rows))


def _span(read: Any, column: Any, where: Sequence[Any]) -> tuple[int, int]:
    from sqlalchemy import func, select

    # One each: so that an index answers.
    low, high = (select(pick(column)).where(*where).scalar_subquery() for pick in (func.min, func.max))
    [row] = read(select(low, high))
    return row[0], row[1]


def _points_of(metric: str, row: Any) -> Iterator[Metric]:
    smallest, largest, first, last, begin, end, count = row
    if smallest is None:
        yield Metric(metric, math.nan, first, begin / 1000)
        return
    yield Metric(metric, smallest, first, begin / 1000)
    if count > 1:
        yield Metric(metric, largest, last, end / 1000)
