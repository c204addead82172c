"""How a job fares is in an XCom while a triggerer follows it, and goes on there when the triggerer is killed.

The triggerers are Airflow's own processes, with the metadata database of ``dag.test()``.
"""

import json
import time
import uuid
from types import SimpleNamespace

import pytest
from airflow.executors import workloads
from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.jobs.triggerer_job_runner import TriggerLoggingFactory, TriggerRunnerSupervisor
from airflow.models.trigger import Trigger
from airflow.models.xcom import XComModel
from airflow.sdk import DAG, task
from airflow.utils.session import create_session
from dag_database import register

from nemo_airflow import LocalExecutor, blocking
from nemo_airflow.job import Job, JobState, JobStatus
from nemo_airflow.phases import JobView
from nemo_airflow.triggers.live import LIVE_KEY
from nemo_airflow.triggers.run import NemoRunTrigger

pytestmark = pytest.mark.usefixtures("airflow_database")

SCRIPT = "until [ -e {folder}/go ]; do sleep 0.05; done; echo done"


class Try:
    """A try of a task whose job runs until it is told, and which one triggerer after the other follows."""

    def __init__(self, folder, run_id):
        self._folder = folder
        self._log = folder / "logs" / "try.log"
        executor = LocalExecutor(root=str(folder / "jobs"), grace=1)
        root = {"_target_": "nemo_airflow.runner.script:run", "inline": SCRIPT.format(folder=folder)}
        job = Job(key=f"r{uuid.uuid4().hex[:20]}", name="script", plan={"version": 1, "root": root})
        self._driver = executor.connect()
        self.handle = blocking.run(self._driver.submit(executor.render(job)))
        self.ids = {"dag_id": "live_test", "run_id": run_id, "task_id": "t", "map_index": -1}
        ago = time.time() - 60  # its event is not held
        self._trigger = NemoRunTrigger(executor.to_json(), self.handle.to_json(), deferred_at=ago, task=self.ids)
        self._ti = TaskInstanceDTO(
            id=uuid.uuid4(), dag_version_id=uuid.uuid4(), try_number=1, pool_slots=1, queue="default",
            priority_weight=1, **self.ids,
        )  # fmt: skip

    def end_job(self):
        (self._folder / "go").touch()

    def follow_until(self, condition, triggerer=1):
        """Follows the job on the triggerer of this number until something is so; then that one is killed."""
        supervisor = TriggerRunnerSupervisor.start(job=SimpleNamespace(id=triggerer), capacity=10)
        path, arguments = self._trigger.serialize()
        supervisor.logger_cache[1] = TriggerLoggingFactory(log_path=f"{self._log}.trigger.{triggerer}", ti=self._ti)
        supervisor.creating_triggers.append(
            workloads.RunTrigger(id=1, classpath=path, encrypted_kwargs=Trigger.encrypt_kwargs(arguments), ti=self._ti)
        )
        deadline = time.monotonic() + 300
        try:
            while not (found := condition(supervisor)):
                assert time.monotonic() < deadline, "what is waited for does not come"
                supervisor._service_subprocess(0.05)
            return found
        finally:
            supervisor.kill(force=True)

    def xcom(self):
        with create_session() as session:
            where = {"dag_ids": "live_test", "run_id": self.ids["run_id"], "key": LIVE_KEY}
            row = session.scalars(XComModel.get_many(**where)).one_or_none()
            return XComModel.deserialize_value(row) if row is not None else {"phases": []}

    def states(self, *wanted):
        """Returns the phases, where they have these states."""
        phases = self.xcom()["phases"]
        return phases if [phase["state"] for phase in phases] == list(wanted) else None

    def log(self):
        files = sorted(self._log.parent.glob(f"{self._log.name}.trigger.*"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def has_said(self, text):
        return any(text in file.read_text() for file in self._log.parent.glob(f"{self._log.name}.trigger.*"))

    def cancel(self):
        blocking.run(self._driver.cancel([self.handle]))


@pytest.fixture(scope="module")
def run_id(airflow_database):
    """A run of a DAG, whose task has a row to which XComs belong."""
    with DAG("live_test", schedule=None) as dag:
        task(lambda: None, task_id="t")()
    register(dag)
    return dag.test().run_id


@pytest.fixture
def task_try(tmp_path, monkeypatch, run_id, one_api):
    monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", str(tmp_path / "logs"))
    task_try = Try(tmp_path, run_id)
    yield task_try
    task_try.cancel()


def test_triggerer_goes_on_with_the_phases_that_a_worker_and_a_killed_triggerer_have_seen(task_try):
    in_worker = JobView(task_try.handle)
    in_worker.see(JobStatus(JobState.PENDING, reason="Resources"))
    XComModel.set(LIVE_KEY, in_worker.to_json(), **task_try.ids, serialize=False)
    assert task_try.states("pending")
    first = task_try.follow_until(lambda _: task_try.states("pending", "running"))
    second = task_try.follow_until(
        lambda supervisor: task_try.end_job() or task_try.states("pending", "running", "ended"), triggerer=2
    )
    assert first[0] == second[0]
    assert second[0]["why"] == "Resources"
    assert second[1] == {**first[1], "until": second[2]["at"]}
    assert second[2]["why"] == "succeeded"
    live = task_try.xcom()
    assert (live["key"], live["state"]) == (task_try.handle.key, "ended")


def test_write_that_fails_is_one_warning_and_the_job_is_followed_to_its_end(task_try):
    task_try.ids["run_id"] = "of no DAG"

    def has_ended(supervisor):
        if task_try.has_said("is not shown in Airflow just now"):
            task_try.end_job()
        return supervisor.events and supervisor.events[0].event

    event = task_try.follow_until(has_ended)
    assert event.payload["outcome"]["status"]["state"] == "succeeded"
    lines = task_try.log()
    assert "done" in [line["event"] for line in lines]
    [warning] = [line["event"] for line in lines if line["level"] == "warning"]
    assert warning.startswith("how the job fares is not shown in Airflow just now; the job goes on: ")
