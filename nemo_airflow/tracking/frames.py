"""The runs of jobs as a table of pandas."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nemo_airflow.exceptions import MissingExtraError
from nemo_airflow.tracking.mlflow.jobs import JobRun, JobRuns
from nemo_airflow.tracking.mlflow.queries import NEWEST, Comparison, RunQuery

if TYPE_CHECKING:
    import pandas as pd

_PAGE = 1000
_COLUMNS = (
    "run_id", "key", "name", "dag_id", "task_id", "state", "failure", "back_end", "user", "started", "seconds",
)  # fmt: skip
"""Those that every run has."""


def runs(
    *,
    dag: str = "",
    task: str = "",
    state: str = "",
    back_end: str = "",
    user: str = "",
    tags: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    metrics: Sequence[str] = (),
    since: datetime.datetime | datetime.timedelta | None = None,
    until: datetime.datetime | datetime.timedelta | None = None,
    sort: str = NEWEST,
    limit: int = 1000,
    tracking_uri: str | None = None,
    conn_id: str | None = None,
) -> pd.DataFrame:
    """Returns the runs of jobs that meet all conditions, as ``nemo-airflow runs`` lists them. Blocks.

    Args:
        dag: The DAG of their task.
        task: Their task.
        state: How they ended: ``succeeded``, ``failed``, ``cancelled`` or ``lost``; or ``running``.
        back_end: The kind of their executor, such as ``slurm``.
        user: Who started them.
        tags: Values of MLflow's tags by name.
        config: Values of the config by path, such as ``{"model.hidden": 64}``.
        metrics: What the newest values of metrics must be, such as ``["loss < 0.1"]``.
        since: They began then or later; a ``timedelta`` is a time ago.
        until: They began before then.
        sort: ``started``, ``ended``, ``name``, a metric, ``params.PATH``, ``metrics.NAME`` or ``tags.NAME``; with ``-``
            in front the largest comes first.
        limit: How many at most.
        tracking_uri: MLflow's address; found as for a tracker when None.
        conn_id: An Airflow connection with MLflow's address and login.

    Returns:
        One row a run: ``run_id``, ``key``, ``name``, ``dag_id``, ``task_id``, ``state``, ``failure``, ``back_end``,
        ``user``, ``started`` (UTC), ``seconds``, and ``metrics.*`` and ``params.*``, empty where a run has none.

    Raises:
        MissingExtraError: pandas is not installed.
        SettingsError: A condition cannot be met by any run.
        TrackingError: MLflow is away, or refuses.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtraError("nemo_airflow.runs()", "mlflow") from error

    query = RunQuery(
        dag=dag,
        task=task,
        state=state,
        back_end=back_end,
        user=user,
        tags=tags or {},
        config={path: str(value) for path, value in (config or {}).items()},
        metrics=[Comparison.parse(text) for text in metrics],
        since=_seconds(since),
        until=_seconds(until),
        sort=sort,
    )
    store = JobRuns(tracking_uri, conn_id)
    found: list[JobRun] = []
    page = ""
    while len(found) < limit:
        more, page = store.search(query, min(_PAGE, limit - len(found)), page)
        found += more
        if not page:
            break
    return pd.DataFrame.from_records([_row(run) for run in found], columns=None if found else _COLUMNS)


def _row(run: JobRun) -> dict[str, Any]:
    facts = (
        run.run_id, run.key, run.name, run.dag_id, run.task_id, run.state, run.failure, run.kind, run.user,
        datetime.datetime.fromtimestamp(run.began, datetime.UTC), run.seconds,
    )  # fmt: skip
    return (
        dict(zip(_COLUMNS, facts, strict=True))
        | {f"metrics.{name}": value for name, value in run.metrics.items()}
        | {f"params.{path}": value for path, value in run.params.items()}
    )


def _seconds(at: datetime.datetime | datetime.timedelta | None) -> float | None:
    if isinstance(at, datetime.timedelta):
        at = datetime.datetime.now(datetime.UTC) - at
    return None if at is None else at.timestamp()
