"""DAGs whose worker processes kill themselves, once, at a chosen instant."""

import datetime
import os
import signal
from pathlib import Path

import crash_jobs
from airflow.sdk import DAG

from nemo_airflow import Config, LocalExecutor, NemoRunOperator
from nemo_airflow.executors.local import LocalSession

SCRATCH = Path(os.environ["CRASH_SCRATCH"])
POINTS = ("before_store_write", "before_submit", "inside_submit", "after_submit", "before_defer")


class KilledOnce(NemoRunOperator):
    """Kills its own process when it comes to its point for the first time."""

    def __init__(self, *, point: str, **kwargs):
        super().__init__(**kwargs)
        self.point = point

    def _at(self, point):
        marker = SCRATCH / f"killed_{self.task_id}"
        if point == self.point and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def _begin(self, context, prepared):
        self._at("before_store_write")
        return super()._begin(context, prepared)

    def _submit(self, back_end, job):
        self._at("before_submit")
        if self.point == "inside_submit":
            # The job has been started, but no one was told: what a lost answer of a back-end looks like.
            spawn = LocalSession._spawn
            LocalSession._spawn = lambda *arguments: (spawn(*arguments), self._at("inside_submit"))[0]
        handle = super()._submit(back_end, job)
        self._at("after_submit")
        return handle

    def _wait(self, *arguments, **keywords):
        self._at("before_defer")
        return super()._wait(*arguments, **keywords)


def job(name, lines=20, pause=0.1):
    return Config(crash_jobs.count_and_talk, counter=str(SCRATCH / f"count_{name}"), lines=lines, pause=pause)


common = {"tracker": None, "job_executor": LocalExecutor(grace=2)}
defaults = {"retries": 2, "retry_delay": datetime.timedelta(seconds=1)}

with DAG("worker_killed", schedule=None, default_args=defaults) as worker_killed:
    for point in POINTS:
        KilledOnce(task_id=point, point=point, config=job(point), **common)
    KilledOnce(task_id="synchronous", point="after_submit", config=job("synchronous"), deferrable=False, **common)

with DAG("triggerer_killed", schedule=None) as triggerer_killed:
    for number in range(3):
        NemoRunOperator(task_id=f"task_{number}", config=job(f"task_{number}", lines=300, pause=0.1), **common)

with DAG("ended_by_user", schedule=None) as ended_by_user:
    for name in ("marked_failed", "cleared"):
        NemoRunOperator(task_id=name, config=job(name, lines=3000, pause=0.1), **common)
