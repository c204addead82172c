"""A real Airflow goes on where a worker or a triggerer was killed, and a task that a user ends takes its job with it.

That nothing is lost and nothing runs twice at whatever step one is killed, on each back-end, ``tests/kills`` shows.
Here it is Airflow itself that finds out, keeps the task's state, and starts another.
"""

import contextlib
import json
import re
import signal
from pathlib import Path

import psutil
import pytest

from nemo_airflow.cli.airflow_server import AirflowServer
from nemo_airflow.exceptions import NemoAirflowError
from nemo_airflow.executors import processes
from nemo_airflow.executors.folder import JobFolder

HERE = Path(__file__).parent
POINTS = ("after_submit", "synchronous")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("crash")


@pytest.fixture(scope="module")
def airflow(scratch):
    # Soon taken for dead, so that the test need not wait long; its DAG file is read once.
    impatient = {
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "6",
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
    }
    server = AirflowServer(scratch, HERE / "dags", env={"CRASH_SCRATCH": str(scratch), **impatient}, open_to_all=True)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def runs_of(scratch, name):
    counter = scratch / f"count_{name}"
    return len(counter.read_text().splitlines()) if counter.exists() else 0


def job_lines(airflow, *task):
    """Returns the lines of the job in the log of the task's last try."""
    number = airflow.task(*task)["try_number"]
    records = airflow.log(*task, number) if number else []  # else no try has begun, which has no log
    return [record["event"] for record in records if re.fullmatch(r"line \d+", record.get("event", ""))]


def assert_job_lines(airflow, count, *task):
    """Says that the log has the job's lines: what Airflow still writes when the task has ended is waited for."""
    expected = [f"line {number}" for number in range(count)]
    with contextlib.suppress(NemoAirflowError):  # what is missing is shown below
        airflow.wait(lambda: len(job_lines(airflow, *task)) >= count, f"the last lines of {task[2]}", 60)
    assert job_lines(airflow, *task) == expected, task[2]


def folders(scratch, task_id):
    """Returns the folders of a task's jobs, the oldest first."""
    claims = (scratch / "nemo" / "jobs").glob("*/claim")
    ours = [
        claim for claim in claims if json.loads((claim.parent / "job.json").read_text())["labels"]["task_id"] == task_id
    ]
    return [claim.parent for claim in sorted(ours, key=lambda claim: json.loads(claim.read_text())["ts"])]


def assert_no_process_is_left(airflow, scratch, task_ids):
    """Says of tasks that have ended that nothing of their jobs runs any more."""
    for task_id in task_ids:
        jobs = folders(scratch, task_id)
        assert jobs, f"no job of {task_id}"
        for job in jobs:
            runner = JobFolder(job).claim()
            airflow.wait(lambda runner=runner: not processes.is_alive(runner), f"process {runner.pid} to end", 20)
            assert processes.kill_marked("NEMO_AIRFLOW_KEY", job.name) == []


def test_worker_killed_after_submit_runs_the_job_exactly_once(airflow, scratch):
    run_id = airflow.trigger("worker_killed")
    for point in POINTS:
        task = ("worker_killed", run_id, point)
        state = airflow.wait(
            lambda task=task: (s := airflow.task(*task)["state"]) in ("success", "failed") and s, f"the end of {point}"
        )
        assert state == "success", airflow.log(*task, airflow.task(*task)["try_number"])
        assert (scratch / f"killed_{point}").exists()
        assert airflow.task(*task)["try_number"] == 2
        assert runs_of(scratch, point) == 1
        assert_job_lines(airflow, 20, *task)
    assert_no_process_is_left(airflow, scratch, POINTS)


def records(airflow, *task):
    """Returns what the log of the task's last try says."""
    return [record.get("event", "") for record in airflow.log(*task, airflow.task(*task)["try_number"])]


def has_been_deferred(scratch, dag_id, task_id):
    return bool(list((scratch / "airflow" / "logs").glob(f"dag_id={dag_id}/*/task_id={task_id}/*.trigger.*")))


def wait_for_success(airflow, *task):
    state = airflow.wait(
        lambda: (state := airflow.task(*task)["state"]) in ("success", "failed") and state, f"the end of {task[2]}"
    )
    assert state == "success", records(airflow, *task)


def test_worker_that_has_to_go_leaves_its_job_and_a_short_job_needs_one_process_only(airflow, scratch):
    run_id = airflow.trigger("in_worker")
    tasks = {name: ("in_worker", run_id, name) for name in ("short", "longer", "told_to_go", "evicted")}
    for name in ("told_to_go", "evicted"):
        airflow.wait(lambda name=name: len(job_lines(airflow, *tasks[name])) > 5, f"lines of {name}")
        # As where a pod is evicted, or a worker is replaced: there the process that has started it passes this on.
        process = psutil.Process(airflow.task(*tasks[name])["pid"])
        process.send_signal(signal.SIGTERM)
        airflow.wait(
            lambda name=name: any("nobody has ended the task" in text for text in records(airflow, *tasks[name])),
            f"{name} to be told",
        )
        if name == "evicted":
            process.kill()
    for task in tasks.values():
        wait_for_success(airflow, *task)
    counts = {"short": 20, "longer": 80, "told_to_go": 150, "evicted": 150}
    for name, count in counts.items():
        assert runs_of(scratch, name) == 1
        assert_job_lines(airflow, count, *tasks[name])
    assert {name for name in tasks if has_been_deferred(scratch, "in_worker", name)} == {"longer", "told_to_go"}
    tries = {name: airflow.task(*task)["try_number"] for name, task in tasks.items()}
    assert tries == {"short": 1, "longer": 1, "told_to_go": 1, "evicted": 2}
    assert {airflow.xcom(*task) for task in tasks.values()} == set(counts.values())
    assert_no_process_is_left(airflow, scratch, tasks)


def test_triggerer_killed_while_jobs_run_loses_and_doubles_no_line(airflow, scratch):
    run_id = airflow.trigger("triggerer_killed")
    tasks = [("triggerer_killed", run_id, f"task_{number}") for number in range(3)]
    for task in tasks:
        airflow.wait(lambda task=task: len(job_lines(airflow, *task)) > 60, f"lines of {task[2]}")
    airflow.kill_component("triggerer")
    airflow.start_component("triggerer")
    for task in tasks:
        state = airflow.wait(
            lambda task=task: (s := airflow.task(*task)["state"]) in ("success", "failed") and s,
            f"the end of {task[2]}",
        )
        assert state == "success"
        assert runs_of(scratch, task[2]) == 1
        assert_job_lines(airflow, 300, *task)
    assert_no_process_is_left(airflow, scratch, [task_id for _, _, task_id in tasks])


def test_task_ended_by_a_user_cancels_its_job_in_a_worker_and_in_the_triggerer(airflow, scratch):
    run_id = airflow.trigger("ended_by_user")
    names = [f"{name}{where}" for name in ("marked_failed", "cleared") for where in ("", "_in_worker")]
    tasks = {name: ("ended_by_user", run_id, name) for name in names}
    cleared = [name for name in names if name.startswith("cleared")]
    for name, task in tasks.items():
        airflow.wait(lambda task=task: job_lines(airflow, *task), f"lines of {name}")
    first = {name: folders(scratch, name)[0] for name in tasks}
    assert {name for name in names if has_been_deferred(scratch, "ended_by_user", name)} == {"marked_failed", "cleared"}
    for name in names:
        if name not in cleared:
            instance = f"/dags/ended_by_user/dagRuns/{run_id}/taskInstances/{name}"
            airflow.call("PATCH", instance, {"new_state": "failed"})
    choice = {"task_ids": cleared, "dag_run_id": run_id, "only_failed": False, "only_running": False}
    airflow.call("POST", "/dags/ended_by_user/clearTaskInstances", {"dry_run": False, **choice})
    for name in names:
        airflow.wait((first[name] / "end.json").exists, f"the end of the first job of {name}")
        assert json.loads((first[name] / "end.json").read_text())["state"] == "cancelled"
    for name in cleared:
        airflow.wait(lambda name=name: runs_of(scratch, name) == 2, f"the second job of {name}")
        # Its lines are there once the trigger runs: Airflow tells a trigger of a kill only from then on.
        airflow.wait(lambda name=name: job_lines(airflow, *tasks[name]), f"lines of the second job of {name}")
        instance = f"/dags/ended_by_user/dagRuns/{run_id}/taskInstances/{name}"
        airflow.call("PATCH", instance, {"new_state": "success"})
        jobs = folders(scratch, name)
        assert len(jobs) == 2
        airflow.wait((jobs[1] / "end.json").exists, f"the end of the second job of {name}")
    assert [runs_of(scratch, name) for name in names if name not in cleared] == [1, 1]
    assert_no_process_is_left(airflow, scratch, tasks)
