"""Retrains a classifier of digits each week and when new labels arrive, and promotes it if it is better."""

import datetime

from airflow.sdk import DAG, Asset, AssetOrTimeSchedule, CronDataIntervalTimetable, task
from digits.data import Data
from digits.evaluate import evaluate
from digits.features import Features
from digits.model import Model, Optimizer
from digits.train import train

from nemo_airflow import Config, GitArchivePackager, NemoRunOperator, params_from

MODEL = "digits"
LABELLED = Asset("digits/labelled")
CHAMPION = Asset("digits/champion")

TRAIN = Config(
    train,
    # A manual run has no data interval: it uses all data until now.
    data=Config(Data, until="{{ (dag_run.data_interval_end or dag_run.run_after) | ds }}"),
    features=Config(Features),
    model=Config(Model, hidden=[64]),
    optimizer=Config(Optimizer),
)

# Where the jobs run: the variable has the name of a registered executor, or the fields of one as YAML or JSON, such as
# {"kind": "slurm", "ssh_conn_id": "cluster"}.
EXECUTOR = "{{ var.value.get('digits_executor', 'kind: local') }}"

# Committed and uncommitted code: the run records the latter as a patch.
CODE = GitArchivePackager(subpath="dags", uncommitted="include", untracked="include")

with DAG(
    "retrain_digits",
    schedule=AssetOrTimeSchedule(timetable=CronDataIntervalTimetable("@weekly", timezone="UTC"), assets=LABELLED),
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    catchup=False,
    max_active_runs=1,
    params=params_from(TRAIN, prefix="train"),
    default_args={"retries": 1, "retry_delay": datetime.timedelta(seconds=10)},
    doc_md=__doc__,
    tags=["nemo", "example"],
) as dag:
    trained = NemoRunOperator(
        task_id="train",
        config=TRAIN,
        params_prefix="train",
        job_executor=EXECUTOR,
        packager=CODE,
        execution_timeout=datetime.timedelta(minutes=10),
    )
    evaluated = NemoRunOperator(
        task_id="evaluate",
        config=Config(evaluate, model=trained.output["model"]),
        job_executor=EXECUTOR,
        packager=CODE,
        execution_timeout=datetime.timedelta(minutes=10),
    )

    @task(outlets=[CHAMPION])
    def promote(metrics: dict, margin: float = 0.0, ti=None) -> dict:
        """Registers the model, and makes it the champion if it is better; records why."""
        from digits.promotion import decide
        from digits.registry import Registry

        from nemo_airflow.hooks.mlflow import MLflowHook

        run_id = ti.xcom_pull(task_ids="train", key="nemo_job")["run"]["run_id"]
        registry = Registry(MLflowHook().get_conn(), MODEL)
        before = registry.champion()
        decision = decide(metrics["accuracy"], before.accuracy if before else None, margin)
        version = registry.add(run_id, "model.joblib", metrics, decision)
        if decision.promote:
            registry.promote(version)
        print(f"version {version}: {decision.reason}")
        return {
            "promoted": decision.promote,
            "reason": decision.reason,
            "version": version,
            "champion_before": before.version if before else None,
            "champion_after": version if decision.promote or before is None else before.version,
            "metrics": metrics,
        }

    promote(evaluated.output)
