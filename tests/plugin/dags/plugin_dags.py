"""DAGs whose jobs these tests look at."""

import datetime
import os

from airflow.sdk import DAG
from plugin_jobs import fail_with, tell_everything, tell_named, train, wait

from nemo_airflow import Config, GitArchivePackager, LocalExecutor, MLflowTracker, NemoRunOperator, Secret

START = datetime.datetime(2026, 1, 1)
SECRET = "{{ conn.hf.password }}"
EXECUTOR = LocalExecutor(grace=1)

for name in ("shown", "private"):
    with DAG(name, schedule=None, start_date=START, params={"rate": 0.1}):
        NemoRunOperator(
            task_id="train",
            config=Config(train, rate="{{ params.rate }}"),
            job_executor=EXECUTOR,
            packager=GitArchivePackager(uncommitted="include"),
            tracker=MLflowTracker(ui_url="https://mlflow.example"),
            deferrable=False,
        )

with DAG("hostile", schedule=None, start_date=START):
    NemoRunOperator(
        task_id="train",
        config=Config(train),
        job_executor=EXECUTOR,
        tracker=MLflowTracker(ui_url="javascript:alert(1)//"),
        deferrable=False,
    )

# Its job runs until a test ends it, or for as long as the tests do at most.
with DAG("endless", schedule=None, start_date=START):
    NemoRunOperator(task_id="wait", config=Config(wait), job_executor=EXECUTOR, defer_after=0)

with DAG("secrets", schedule=None, start_date=START):
    executor = LocalExecutor(env={"FROM_EXECUTOR": SECRET}, grace=1)
    NemoRunOperator(
        task_id="tell",
        config=Config(
            tell_everything,
            token=SECRET,
            header=f"Bearer {SECRET}",
            parts={"all": [SECRET]},
            wait_for=os.environ["PLUGIN_TEST_GO"],
        ),
        job_executor=executor,
        tracker=MLflowTracker(tags={"tagged": SECRET}),
        env={"HF_TOKEN": SECRET},
        defer_after=0,  # what the triggerer is told is looked at
    )
    NemoRunOperator(task_id="fail", config=Config(fail_with, token=SECRET), job_executor=executor)

with DAG("named_secrets", schedule=None, start_date=START):
    NemoRunOperator(
        task_id="tell",
        config=Config(tell_named, wait_for=f"{os.environ['PLUGIN_TEST_GO']}-named"),
        job_executor=LocalExecutor(grace=1, secrets={"KEY": Secret("named", field="extra.key")}),
        secrets={"TOKEN": Secret("named")},
        defer_after=0,
    )
    NemoRunOperator(
        task_id="without",
        config=Config(train),
        job_executor=EXECUTOR,
        secrets={"TOKEN": Secret("nobody")},
        retries=3,
    )
