"""Runs a recorded run again, restored from its record, and reports what came out the same.

The page of a job starts it, by *Reproduce*; the trigger form does, too. Another DAG that takes ``run`` can stand in its
place: the setting ``reproduce_dag`` names it.
"""

import datetime

from airflow.sdk import DAG, Param

from nemo_airflow import NemoReproduceOperator

with DAG(
    "reproduce_run",
    schedule=None,
    is_paused_upon_creation=False,  # it starts nothing by itself
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    params={
        "run": Param(type="string", minLength=1, description="The run: its id in MLflow, or its job's key."),
        "on": Param(
            "",
            type=["null", "string"],
            description="Where to run it instead of where it ran: an executor as YAML, such as kind: local, or the "
            "name of a registered one.",
        ),
        "overrides": Param(
            [], type="array", items={"type": "string"}, description='Values to change, such as "model.hidden=64".'
        ),
    },
    doc_md=__doc__,
    tags=["nemo", "maintenance"],
) as dag:
    NemoReproduceOperator(
        task_id="reproduce",
        run="{{ params.run }}",
        on="{{ params.on or '' }}",
        overrides=dag.param("overrides"),
    )
