"""Mapped tasks that do nothing: as ``@task``, and as jobs, without a tracker and with the default one."""

import os
import sys
from pathlib import Path

from airflow.sdk import DAG, task

from nemo_airflow import Config, PatternPackager

sys.path.insert(0, str(Path(__file__).parents[1]))
import bench_jobs

NUMBERS = list(range(int(os.environ["BENCH_TASKS"])))
ARGUMENTS = {"max_active_tasks": len(NUMBERS), "schedule": None, "default_args": {"retries": 0}}
ENV = {"PYTHONPATH": str(Path(bench_jobs.__file__).parent)}

with DAG("plain", **ARGUMENTS):

    @task
    def nothing(number):
        return bench_jobs.trivial()

    nothing.expand(number=NUMBERS)

with DAG("untracked", **ARGUMENTS):

    @task.nemo(tracker=None, env=ENV)
    def job(number):
        return Config(bench_jobs.trivial)

    job.expand(number=NUMBERS)

with DAG("tracked", **ARGUMENTS):

    @task.nemo(env=ENV)
    def tracked_job(number):
        return Config(bench_jobs.trivial)

    tracked_job.expand(number=NUMBERS)

with DAG("deferred", **ARGUMENTS):

    @task.nemo(tracker=None, env=ENV, defer_after=0)
    def deferred_job(number):
        return Config(bench_jobs.trivial)

    deferred_job.expand(number=NUMBERS)

with DAG("reused", **ARGUMENTS):

    @task.nemo(packager=PatternPackager(path=str(Path(bench_jobs.__file__).parent)), reuse=True)
    def reused_job(number):
        return Config(bench_jobs.trivial)

    reused_job.expand(number=NUMBERS)
