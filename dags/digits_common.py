"""What the DAGs of the digits share: where jobs run, the model and its asset, the cause of a run, and whom to tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import Param

from nemo_airflow import Artifact, GitArchivePackager
from nemo_airflow.assets import model_asset

if TYPE_CHECKING:
    from nemo_airflow.promotion import PromotedModel, Version

MODEL = "digits"
CHAMPION = model_asset(MODEL, alias="champion")
"""Has an event for each change of the version in service, with its number."""

NOTICE = "notice"
"""Key under which a task hands on what people are told of it."""

# Where the jobs run: the variable has the name of a registered executor, or the fields of one as YAML or JSON, such as
# {"kind": "slurm", "ssh_conn_id": "cluster"}.
EXECUTOR = "{{ var.value.get('digits_executor', 'kind: local') }}"

# Committed and uncommitted code: the run records the latter as a patch.
CODE = GitArchivePackager(subpath="dags", uncommitted="include", untracked="include")

# A manual run has no data interval: it uses all data until now.
UNTIL = "{{ params.until or ((dag_run.data_interval_end or dag_run.run_after) | ds) }}"
UNTIL_PARAM = Param(
    None,
    type=["null", "string"],
    format="date",
    description="The day before which the digits have arrived; the end of the run's data interval if empty.",
)


def open_model() -> PromotedModel:
    """Returns the registered model."""
    from nemo_airflow.promotion import PromotedModel

    return PromotedModel(MODEL)


def artifacts_of(version: Version | None, *names: str) -> dict[str, Artifact]:
    """Returns what the job that trained a version has returned, by name; nothing without a version."""
    return {name: Artifact.from_run(version.run_id, name) for name in names} if version else {}


def kind_of(dag_run: Any) -> str:
    """Returns how Airflow came to start a run: ``scheduled``, ``asset_triggered``, ``manual``, ``backfill`` ..."""
    return str(getattr(dag_run.run_type, "value", dag_run.run_type))


def describe_cause(params: Mapping[str, Any], dag_run: Any, events: Mapping[Any, Any] | None) -> str:
    """Returns why there is a run, for people."""
    if params.get("cause"):
        return str(params["cause"])
    kind = kind_of(dag_run)
    if kind == "asset_triggered":
        return f"new data: {', '.join(sorted(asset.name for asset in events or ()))}"
    if kind == "manual":
        return getattr(dag_run, "triggering_user_name", None) or "a person"
    return {"scheduled": "the schedule", "backfill": "a backfill"}.get(kind, kind)


def describe_run(run_id: str) -> dict[str, str]:
    """Returns ``cost`` and ``training loss`` of a training's run: how long on how many GPUs, and the curve."""
    from nemo_airflow.cli.metrics import spark
    from nemo_airflow.tracking.mlflow.jobs import JobRuns
    from nemo_airflow.tracking.mlflow.usage import count_gpus

    runs = JobRuns()
    run = runs.find(run_id)
    points = runs.points(run_id)["train/loss"]
    gpus, seconds = count_gpus(run), run.seconds or 0.0
    cost = (
        f"{seconds:.0f} s on {gpus} GPUs, {gpus * seconds / 3600:.2f} GPU hours" if gpus else f"{seconds:.0f} s, no GPU"
    )
    return {"cost": cost, "training loss": f"{spark(points, 40)} {points[-1].value:.4f}"}


def tell(event: str) -> Callable[[Any], None]:
    """Returns a callback that tells people, if the variable ``digits_chat`` names a connection with their addresses.

    Args:
        event: One of :data:`nemo_airflow.notifications.report.EVENTS`.
    """

    def callback(context: Any) -> None:
        from airflow.sdk import Variable

        from nemo_airflow.notifications import NemoRunNotifier

        if conn_id := Variable.get("digits_chat", default=""):
            notice = context["ti"].xcom_pull(task_ids=context["ti"].task_id, key=NOTICE) or ""
            NemoRunNotifier(conn_id=conn_id, event=event, message=notice).notify(context)

    return callback
