"""A DAG whose job has a config of 10,000 values."""

import datetime

from airflow.sdk import DAG
from plugin_jobs import take

from nemo_airflow import Config, LocalExecutor, MLflowTracker, NemoRunOperator

with DAG("large", schedule=None, start_date=datetime.datetime(2026, 1, 1)):
    NemoRunOperator(
        task_id="take",
        config=Config(take, values={f"group{n}": {f"leaf{m}": n * 100 + m for m in range(100)} for n in range(100)}),
        job_executor=LocalExecutor(grace=1),
        tracker=MLflowTracker(),
        deferrable=False,
    )
