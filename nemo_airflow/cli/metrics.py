"""Shows the metrics of a job, as they are in MLflow: each with its course, its newest value and its limits."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nemo_airflow.cli.output import JSON, console, print_json, width
from nemo_airflow.cli.terminal import keep_output_clean, say
from nemo_airflow.exceptions import SettingsError
from nemo_airflow.launch.records import Records
from nemo_airflow.progress import size_text
from nemo_airflow.tracking.base import Metric
from nemo_airflow.tracking.mlflow import MLflowTracker
from nemo_airflow.tracking.mlflow.jobs import JobRun, JobRuns

_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = "_.-=+*#@"
_LONGEST, _SHORTEST = 40, 8
"""Characters of a course."""

_NARROW = 80
"""Columns below which a metric takes two lines."""

_AGAIN = 2.0
"""Seconds between two looks."""


def run(
    key: str, names: Sequence[str], *, watch: bool, output: str, tracking_uri: str | None, conn_id: str | None
) -> int:
    """Prints the metrics of a job; returns 1 if it has none so far.

    Args:
        key: The job's key, the beginning of it, the name of a launched job, ``last``, or the id of a run.
        names: Beginnings of the names of metrics; all when empty.
        watch: Whether to print them again and again until the run ends.
        output: ``text`` or ``json``.
        tracking_uri: MLflow's address; where the job is recorded when None.
        conn_id: An Airflow connection with MLflow's address and login.

    Raises:
        SettingsError: The job is not tracked in MLflow.
        TrackingError: There is no such run, or MLflow is away.
    """
    keep_output_clean()
    runs, found = _find(key, tracking_uri, conn_id)
    points = _points(runs, found, names)
    if output == JSON:
        print_json(
            {"run_id": found.run_id, "key": found.key, "state": found.state}
            | {"metrics": {name: _to_json(history) for name, history in points.items()}}
        )
        return 0 if points else 1
    if watch and sys.stdout.isatty():
        points = _watch(runs, found, names)
    else:
        console().print(_Shown(points), end="")
    if not points:
        wanted = f" that begins with {' or '.join(names)}" if names else ""
        so_far = "" if found.ended else " so far"
        say(f"run {found.run_id} of job {found.key} has no metric{wanted}{so_far}")
        return 1
    return 0


def _find(key: str, tracking_uri: str | None, conn_id: str | None) -> tuple[JobRuns, JobRun]:
    record = Records().look_up(key) if not (tracking_uri or conn_id) else None
    if record is None:
        runs = JobRuns(tracking_uri, conn_id)
        return runs, runs.find(key)
    run = record.tracked
    if run is None or not isinstance(run.tracker, MLflowTracker):
        raise SettingsError(
            f"job {record.key} is not tracked in MLflow: it was launched with --no-track, or with another tracker"
        )
    if run.ref is None:
        raise SettingsError(
            f"job {record.key} has no run yet: MLflow was away when it was launched; 'nemo-airflow attach "
            f"{record.key}' records it"
        )
    runs = JobRuns(run.tracker.tracking_uri, run.tracker.conn_id)
    return runs, runs.find(run.ref.run_id)


def _points(runs: JobRuns, run: JobRun, names: Sequence[str]) -> dict[str, list[Metric]]:
    """Returns the points of the metrics that are wanted: the user's before the samples of machines."""
    found = runs.points(run.run_id)
    wanted = [name for name in found if not names or name.startswith(tuple(names))]
    return {name: found[name] for name in sorted(wanted, key=lambda name: (name.startswith("system/"), name))}


def _watch(runs: JobRuns, run: JobRun, names: Sequence[str]) -> dict[str, list[Metric]]:
    from rich.live import Live

    with Live(console=console(), auto_refresh=False) as live:
        while True:
            ended = runs.find(run.run_id).ended
            points = _points(runs, run, names)
            live.update(_Shown(points), refresh=True)
            if ended:
                return points
            time.sleep(_AGAIN)


class _Shown:
    """Metrics as lines of a terminal.

    Args:
        points: Their points by name.
    """

    def __init__(self, points: Mapping[str, Sequence[Metric]]) -> None:
        self._points = points

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.text import Text

        bars = _bars()
        rows = [(name, _numbers(name, history), history) for name, history in self._points.items()]
        longest = max((len(name) for name, *_ in rows), default=0)
        figures = [max((len(row[1][column]) for row in rows), default=0) for column in range(4)]
        room = min(width(), 200) - longest - sum(figures) - len(" min ") - len(" max ") - len(" step ") - 9
        for name, numbers, history in rows:
            newest, least, most, step = numbers
            if width() < _NARROW or room < _SHORTEST:
                yield Text.assemble((name, "bold"), overflow="fold")
                course = spark(history, min(_LONGEST, max(width() - len(newest) - 4, _SHORTEST)), bars)
                yield Text.assemble("  ", (course, "cyan"), f"  {newest}", overflow="fold")
                yield Text(f"  min {least}, max {most}, step {step}", style="dim", overflow="fold")
                continue
            course = spark(history, min(_LONGEST, room), bars)
            newest, least, most, step = (text.rjust(size) for text, size in zip(numbers, figures, strict=True))
            yield Text.assemble(
                (name.ljust(longest), "bold"),
                "  ",
                (course.ljust(min(_LONGEST, room)), "cyan"),
                f"  {newest}  ",
                (f"min {least}  max {most}  step {step}", "dim"),
                no_wrap=True,
            )


def spark(history: Sequence[Metric], length: int, bars: str = _BARS) -> str:
    """Returns the course of a metric as a line of bars, at most so long; a blank stands for what is no number."""
    groups = _groups([point.value for point in history], length)
    means = [sum(group) / len(group) if group else math.nan for group in groups]
    known = [mean for mean in means if not math.isnan(mean)]
    if not known:
        return " " * len(means)
    least, span = min(known), max(known) - min(known)

    def bar(mean: float) -> str:
        if math.isnan(mean):
            return " "
        return bars[min(int((mean - least) / span * len(bars)), len(bars) - 1)] if span else bars[len(bars) // 2]

    return "".join(map(bar, means))


def _groups(values: Sequence[float], length: int) -> list[list[float]]:
    """Returns the finite values in at most so many groups of neighbours."""
    count = min(len(values), length)
    parts = [values[len(values) * each // count : len(values) * (each + 1) // count] for each in range(count)]
    return [[value for value in part if math.isfinite(value)] for part in parts]


def _bars() -> str:
    try:
        _BARS.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return _ASCII_BARS
    return _BARS


def _numbers(name: str, history: Sequence[Metric]) -> tuple[str, str, str, str]:
    def text(value: float) -> str:
        return size_text(value) if name.endswith("_bytes") and math.isfinite(value) else f"{value:.5g}"

    least, most = _limits(history)
    return text(history[-1].value), text(least), text(most), str(history[-1].step)


def _limits(history: Sequence[Metric]) -> tuple[float, float]:
    known = [point.value for point in history if not math.isnan(point.value)] or [math.nan]
    return min(known), max(known)


def _to_json(history: Sequence[Metric]) -> dict[str, Any]:
    def number(value: float) -> float | str:
        return value if math.isfinite(value) else str(value)  # JSON has no word for these

    least, most = _limits(history)
    return {
        "value": number(history[-1].value),
        "step": history[-1].step,
        "min": number(least),
        "max": number(most),
        "points": [[point.step, number(point.value), point.timestamp] for point in history],
    }
