"""DAGs whose worker processes kill themselves, once, when they have submitted their job, and others to kill."""

import datetime
import os
import signal
from pathlib import Path

import crash_jobs
from airflow.sdk import DAG

from nemo_airflow import Config, LocalExecutor, NemoRunOperator

SCRATCH = Path(os.environ["CRASH_SCRATCH"])


class KilledOnce(NemoRunOperator):
    """Kills its own process when it has submitted its job for the first time."""

    def _wait(self, *arguments):
        marker = SCRATCH / f"killed_{self.task_id}"
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._wait(*arguments)


def job(name, lines=20, pause=0.1):
    return Config(crash_jobs.count_and_talk, counter=str(SCRATCH / f"count_{name}"), lines=lines, pause=pause)


common = {"tracker": None, "job_executor": LocalExecutor(grace=2)}
defaults = {"retries": 2, "retry_delay": datetime.timedelta(seconds=1)}

with DAG("worker_killed", schedule=None, default_args=defaults) as worker_killed:
    KilledOnce(task_id="after_submit", config=job("after_submit"), **common)
    KilledOnce(task_id="synchronous", config=job("synchronous"), deferrable=False, **common)

with DAG("triggerer_killed", schedule=None) as triggerer_killed:
    for number in range(3):
        # Begun by its worker, and gone on with by two triggerers.
        lines = job(f"task_{number}", lines=300, pause=0.1)
        NemoRunOperator(task_id=f"task_{number}", config=lines, defer_after=1, **common)

with DAG("in_worker", schedule=None, default_args=defaults) as in_worker:
    NemoRunOperator(task_id="short", config=job("short"), defer_after=60, **common)
    NemoRunOperator(task_id="longer", config=job("longer", lines=80), defer_after=2, **common)
    NemoRunOperator(task_id="told_to_go", config=job("told_to_go", lines=150), defer_after=600, **common)
    NemoRunOperator(task_id="evicted", config=job("evicted", lines=150), deferrable=False, **common)

with DAG("ended_by_user", schedule=None) as ended_by_user:
    for name in ("marked_failed", "cleared"):
        for where, seconds in (("", 0), ("_in_worker", 600)):
            lines = job(f"{name}{where}", lines=3000, pause=0.1)
            NemoRunOperator(task_id=f"{name}{where}", config=lines, defer_after=seconds, **common)
