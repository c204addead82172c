"""DAGs whose worker processes kill themselves, once, when they have submitted their job."""

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

    def _submit(self, back_end, job):
        handle = super()._submit(back_end, job)
        marker = SCRATCH / f"killed_{self.task_id}"
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return handle


def job(name, lines=20, pause=0.1):
    return Config(crash_jobs.count_and_talk, counter=str(SCRATCH / f"count_{name}"), lines=lines, pause=pause)


common = {"tracker": None, "job_executor": LocalExecutor(grace=2)}
defaults = {"retries": 2, "retry_delay": datetime.timedelta(seconds=1)}

with DAG("worker_killed", schedule=None, default_args=defaults) as worker_killed:
    KilledOnce(task_id="after_submit", config=job("after_submit"), **common)
    KilledOnce(task_id="synchronous", config=job("synchronous"), deferrable=False, **common)

with DAG("triggerer_killed", schedule=None) as triggerer_killed:
    for number in range(3):
        NemoRunOperator(task_id=f"task_{number}", config=job(f"task_{number}", lines=300, pause=0.1), **common)

with DAG("ended_by_user", schedule=None) as ended_by_user:
    for name in ("marked_failed", "cleared"):
        NemoRunOperator(task_id=name, config=job(name, lines=3000, pause=0.1), **common)
