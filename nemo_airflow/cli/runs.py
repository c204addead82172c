"""Lists the runs of jobs that MLflow has: those that are looked for, in an order, with the columns that are wanted."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nemo_airflow.cli.output import JSON, print_json, print_table, time_text
from nemo_airflow.cli.terminal import keep_output_clean
from nemo_airflow.cli.times import parse_time
from nemo_airflow.exceptions import SettingsError
from nemo_airflow.tracking.mlflow.jobs import JobRun, JobRuns
from nemo_airflow.tracking.mlflow.queries import Comparison, RunQuery, parse_pairs

_KINDS = ("metrics", "params", "tags")


def run(
    query: RunQuery,
    columns: Sequence[str],
    *,
    limit: int,
    page: str,
    output: str,
    tracking_uri: str | None,
    conn_id: str | None,
) -> int:
    """Prints a page of runs; returns 0, also where there is none.

    Args:
        query: Which runs, and in which order.
        columns: Metrics, parameters and tags to show: ``metrics.NAME``, ``params.PATH``, ``tags.NAME``, or a name
            alone, which is a metric where the run has one, else a parameter.
        limit: How many at most.
        page: What the page before has said; the first one when empty.
        output: ``text`` or ``json``.
        tracking_uri: MLflow's address, or None.
        conn_id: An Airflow connection with MLflow's address and login, or None.

    Raises:
        SettingsError: The limit is none.
        TrackingError: MLflow is away, or refuses.
    """
    keep_output_clean()
    if not 0 < limit <= 50_000:
        raise SettingsError(f"--limit {limit}: a page of runs has 1 to 50000")
    store = JobRuns(tracking_uri, conn_id)
    found, following = store.search(query, limit, page)
    if output == JSON:
        print_json({"runs": [_to_json(each) for each in found], "next_page": following or None})
        return 0
    names = ["KEY", "NAME", "STATE", "BACK-END", "STARTED", "TOOK", "USER", *columns]
    if found:
        print_table(names, [[*_cells(each), *(_cell(each, column) for column in columns)] for each in found])
    else:
        print(f"no run of {store.uri} is like that", file=sys.stderr)
    if following:
        print(f"there are more: add --page {shlex.quote(following)}", file=sys.stderr)
    return 0


def read_query(options: argparse.Namespace) -> RunQuery:
    """Returns the runs that the options of the command select.

    Raises:
        SettingsError: One of them cannot be read.
    """
    return RunQuery(
        **{name: getattr(options, name) for name in ("dag", "task", "state", "back_end", "user", "sort")},
        tags=parse_pairs(options.tag, "--tag"),
        config=parse_pairs(options.config, "--config"),
        metrics=[Comparison.parse(text) for text in options.metric],
        since=parse_time(options.since) if options.since else None,
        until=parse_time(options.until) if options.until else None,
    )


def _cells(found: JobRun) -> Iterator[Any]:
    yield found.key
    yield found.name
    yield f"{found.state} ({found.failure})" if found.failure else found.state
    yield found.kind
    yield time_text(found.began)
    yield "" if found.seconds is None else f"{found.seconds:.0f} s"
    yield found.user


def _cell(found: JobRun, column: str) -> Any:
    kind, dot, name = column.partition(".")
    if dot and kind in _KINDS:
        value = getattr(found, kind).get(name)
    else:
        value = found.metrics.get(column, found.params.get(column))
    return f"{value:.6g}" if isinstance(value, float) else value


def _to_json(found: JobRun) -> Mapping[str, Any]:
    return {
        "run_id": found.run_id,
        "key": found.key,
        "name": found.name,
        "dag_id": found.dag_id,
        "task_id": found.task_id,
        "state": found.state,
        "failure": found.failure,
        "reason": found.reason,
        "back_end": found.kind,
        "cluster": found.cluster,
        "job_id": found.job_id,
        "user": found.user,
        "started": found.began,
        "seconds": found.seconds,
        # JSON has no NaN, and no program reads what Python writes for one.
        "metrics": {name: value if math.isfinite(value) else str(value) for name, value in found.metrics.items()},
        "params": dict(found.params),
        "tags": dict(found.tags),
    }
