"""What keeps the digits in service: scoring, rollback, and looking for causes to retrain."""

import datetime

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import (
    DAG,
    Asset,
    AssetOrTimeSchedule,
    CronDataIntervalTimetable,
    CronPartitionTimetable,
    Param,
    PartitionedAssetTimetable,
    RollupMapper,
    StartOfWeekMapper,
    WeekWindow,
    task,
)
from airflow.sdk.exceptions import AirflowSkipException
from digits.data import RECENT_WEEKS, Data
from digits.drift import Limits
from digits.inspection import inspect
from digits.scoring import score as score_batch
from digits_common import CHAMPION, CODE, EXECUTOR, NOTICE, UNTIL, UNTIL_PARAM, artifacts_of, open_model, tell

from nemo_airflow import Config

DAY_OF_DIGITS = Asset("digits/days")
"""Has a partition for each day whose digits have arrived."""

COMMON = {
    "start_date": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    "catchup": False,
    "max_active_runs": 1,
    "default_args": {
        "retries": 1,
        "retry_delay": datetime.timedelta(seconds=10),
        "on_failure_callback": tell("failed"),
    },
    "tags": ["nemo", "example"],
}
DAILY = CronDataIntervalTimetable("@daily", timezone="UTC")
ON_BACK_END = {"job_executor": EXECUTOR, "packager": CODE, "execution_timeout": datetime.timedelta(minutes=10)}


def retrain(task_id: str, run_id: str, cause: str, **conf: str) -> TriggerDagRunOperator:
    """Returns a task that starts the retraining once for a cause, which the run's id names."""
    return TriggerDagRunOperator(
        task_id=task_id,
        trigger_dag_id="retrain_digits",
        trigger_run_id=run_id,
        conf={"cause": cause, **conf},
        skip_when_already_exists=True,
    )


with DAG(
    "score_digits",
    schedule=AssetOrTimeSchedule(timetable=DAILY, assets=CHAMPION),
    params={"until": UNTIL_PARAM},
    doc_md="Scores the newest digits with the champion, and in its shadow with the challenger, if there is one.",
    **COMMON,
) as score_digits:

    @task.nemo(**ON_BACK_END)
    def score():
        from nemo_airflow.promotion import CHALLENGER

        model = open_model()
        champion = model.current()
        if champion is None:
            raise AirflowSkipException("no version is in service")
        given = artifacts_of(champion, "model", "baseline")
        return Config(
            score_batch,
            data=Config(Data, until=UNTIL, weeks=4),
            champion=given["model"],
            baseline=given["baseline"],
            limits=Config(Limits),
            challenger=artifacts_of(model.version_of(CHALLENGER), "model").get("model"),
        )

    score()

with DAG(
    "rollback_digits",
    schedule=None,
    params={
        "why": Param("by hand", type="string", description="The reason, for the record."),
        "to": Param("", type=["null", "string"], description="The version to put back; the one before if empty."),
    },
    doc_md="Puts back the version that was in service before: trigger it.",
    **COMMON,
) as rollback_digits:

    @task(outlets=[CHAMPION], on_success_callback=tell("rolled_back"))
    def rollback(params=None, dag_run=None, ti=None, outlet_events=None) -> dict:
        by = getattr(dag_run, "triggering_user_name", None) or dag_run.dag_id
        change = open_model().rollback(
            why=params["why"], to=params["to"] or "", by=by, operation=f"{dag_run.dag_id}/{dag_run.run_id}"
        )
        ti.xcom_push(NOTICE, f"version {change.before} is replaced by version {change.version}: {change.why}")
        outlet_events[CHAMPION].extra = {"version": change.version, "before": change.before, "reason": change.why}
        return {"version": change.version, "champion_before": change.before, "reason": change.why}

    rollback()

with DAG(
    "watch_digits",
    schedule="*/15 * * * *",
    doc_md="Announces a champion that was set by a command or by hand in MLflow, and has it challenged.",
    **COMMON,
) as watch_digits:

    @task(inlets=[CHAMPION], outlets=[CHAMPION])
    def look(inlet_events=None, outlet_events=None) -> str:
        """Is skipped where the last event of the asset is of the version that is in service."""
        champion = open_model().current()
        announced = inlet_events[CHAMPION][-1].extra.get("version") if len(inlet_events[CHAMPION]) else None
        if champion is None or champion.version == announced:
            raise AirflowSkipException(f"in service is still version {announced}")
        outlet_events[CHAMPION].extra = {"version": champion.version, "before": announced, "reason": "set by hand"}
        return champion.version

    look() >> retrain(
        "retrain",
        "moved__version_{{ ti.xcom_pull('look') }}__{{ dag_run.run_after | ds_nodash }}",
        "version {{ ti.xcom_pull('look') }} was made the champion by hand",
    )

with DAG(
    "drift_digits", schedule=DAILY, params={"until": UNTIL_PARAM}, doc_md="Has retrained what has drifted.", **COMMON
) as drift_digits:

    @task.nemo(**ON_BACK_END)
    def measure():
        champion = open_model().current()
        if champion is None:
            raise AirflowSkipException("no version is in service")
        return Config(
            inspect,
            data=Config(Data, until=UNTIL, weeks=RECENT_WEEKS),
            limits=Config(Limits),
            champion=champion.version,
            **artifacts_of(champion, "model", "baseline"),
        )

    @task.short_circuit
    def has_drifted(measured) -> bool:
        return bool(measured["drifted"])

    has_drifted(measure()) >> retrain(
        "retrain",
        "drift__version_{{ ti.xcom_pull('measure')['champion'] }}",
        "drift of {{ ti.xcom_pull('measure')['drifted'] | join(', ') }} since version "
        "{{ ti.xcom_pull('measure')['champion'] }}",
        until=UNTIL,
    )

with DAG(
    "label_digits",
    schedule=CronPartitionTimetable("0 0 * * *", timezone="UTC", run_offset=-1),
    doc_md="Stands for what labels the digits of a day.",
    **COMMON,
) as label_digits:

    @task(outlets=[DAY_OF_DIGITS])
    def label(dag_run=None) -> str:
        return dag_run.partition_key

    label()

with DAG(
    "week_of_digits",
    schedule=PartitionedAssetTimetable(
        assets=DAY_OF_DIGITS,
        default_partition_mapper=RollupMapper(
            upstream_mapper=StartOfWeekMapper(output_format="%Y-%m-%d"), window=WeekWindow()
        ),
    ),
    doc_md="Has retrained as soon as all seven days of a week are there.",
    **COMMON,
) as week_of_digits:
    retrain(
        "retrain",
        "week__{{ dag_run.partition_key }}",
        "all days of the week of {{ dag_run.partition_key }} are there",
        until="{{ macros.ds_add(dag_run.partition_key, 7) }}",
    )
