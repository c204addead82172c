"""A trigger that comes back to a triggerer finds that Airflow empties that triggerer's log of the try: no line is lost.

The triggerers are Airflow's own processes, with the log files that these make; their database knows of no such task.
"""

import ctypes
import os
import select
import time
import uuid
from types import SimpleNamespace

import pytest
from airflow.executors import workloads
from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.jobs.triggerer_job_runner import TriggerLoggingFactory, TriggerRunnerSupervisor
from airflow.models.trigger import Trigger
from airflow.utils.log.file_task_handler import _interleave_logs

from nemo_airflow import LocalExecutor, blocking
from nemo_airflow.job import Job
from nemo_airflow.triggers.logged_lines import LOGGER
from nemo_airflow.triggers.run import NemoRunTrigger

LOG = "dag_id=d/run_id=r/task_id=t/attempt=1.log"
IN_CLOSE_NOWRITE = 0x10
SCRIPT = """
for part in 1 2 3 4; do
  until [ -e {folder}/part$part ]; do sleep 0.05; done
  for line in 1 2 3; do echo "part $part, line $line"; done
done
"""


class Reading:
    """Tells when a file was read."""

    def __init__(self, path):
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._events = self._libc.inotify_init1(0)
        assert self._libc.inotify_add_watch(self._events, os.fsencode(path), IN_CLOSE_NOWRITE) > 0

    def wait(self):
        """Waits until the file was read and closed."""
        assert select.select([self._events], [], [], 60)[0], "nobody has read the log"
        os.close(self._events)


class Try:
    """A try of a task whose job writes one part after the other, and which one triggerer after the other follows."""

    def __init__(self, folder):
        self._folder = folder
        self._parts = 0
        executor = LocalExecutor(root=str(folder / "jobs"), grace=1)
        root = {"_target_": "nemo_airflow.runner.script:run", "inline": SCRIPT.format(folder=folder)}
        job = Job(key=f"r{uuid.uuid4().hex[:20]}", name="script", plan={"version": 1, "root": root})
        self._driver = executor.connect()
        self.handle = blocking.run(self._driver.submit(executor.render(job)))
        self._trigger = NemoRunTrigger(executor=executor.to_json(), handle=self.handle.to_json()).serialize()
        self._ti = TaskInstanceDTO(
            id=uuid.uuid4(), dag_version_id=uuid.uuid4(), dag_id="d", run_id="r", task_id="t", map_index=-1,
            try_number=1, pool_slots=1, queue="default", priority_weight=1,
        )  # fmt: skip

    def write_part(self):
        """Has the job write its next part."""
        self._parts += 1
        (self._folder / f"part{self._parts}").touch()

    def follow_on(self, triggerer, until):
        """Follows the job on the triggerer of this number until its log has a line; then that one is killed."""
        supervisor = TriggerRunnerSupervisor.start(job=SimpleNamespace(id=triggerer), capacity=10)
        path, arguments = self._trigger
        supervisor.logger_cache[1] = TriggerLoggingFactory(log_path=f"{LOG}.trigger.{triggerer}.log", ti=self._ti)
        supervisor.creating_triggers.append(
            workloads.RunTrigger(id=1, classpath=path, encrypted_kwargs=Trigger.encrypt_kwargs(arguments), ti=self._ti)
        )
        own = self._folder / "logs" / f"{LOG}.trigger.{triggerer}.log"
        reading = Reading(own) if own.exists() else None
        deadline = time.monotonic() + 300
        try:
            while reading is not None or not (own.exists() and f'"{until}"' in own.read_text()):
                assert time.monotonic() < deadline, f"triggerer {triggerer} has not logged {until!r}"
                supervisor._service_subprocess(0.05)
                if reading is not None and not supervisor.creating_triggers:
                    reading.wait()  # a busy triggerer: the trigger runs before its first message opens the log
                    reading = None
        finally:
            supervisor.kill(force=True)

    def lines(self):
        """Returns the job's lines as Airflow shows them."""
        streams = [
            path.open() for path in sorted((self._folder / "logs" / LOG).parent.iterdir()) if path.name[0] != "."
        ]
        return [record.event for record in _interleave_logs(*streams) if getattr(record, "logger", "") == LOGGER]

    def cancel(self):
        blocking.run(self._driver.cancel([self.handle]))


@pytest.fixture
def task_try(tmp_path, monkeypatch, one_api):
    monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", str(tmp_path / "logs"))
    task_try = Try(tmp_path)
    yield task_try
    task_try.cancel()


@pytest.mark.parametrize("triggerers", [(1, 1), (1, 2, 1), (1, 2, 1, 2)])
def test_lines_are_there_once_and_in_order_when_a_triggerer_comes_back(task_try, triggerers):
    for part, triggerer in enumerate(triggerers, 1):
        task_try.write_part()
        task_try.follow_on(triggerer, f"part {part}, line 3")
    assert task_try.lines() == [
        f"part {part}, line {line}" for part in range(1, len(triggerers) + 1) for line in (1, 2, 3)
    ]
