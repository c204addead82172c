"""What Slurm itself does to a job when a node or the controller fails: the task hears of it, and may try again."""

import contextlib
import time
import uuid

import pytest
from lab import chaos

from nemo_airflow import blocking
from nemo_airflow.executors import SlurmExecutor
from nemo_airflow.executors.base import Cursor
from nemo_airflow.follow import Follower
from nemo_airflow.job import FailureKind, Job, JobState


@pytest.fixture
def executor(slurm_to_break):
    return SlurmExecutor(ssh_conn_id="chaos", root="~/chaos", nodelist="n2", grace=2)


def submit(executor, script):
    plan = {"version": 1, "root": {"_target_": "nemo_airflow.runner.script:run", "inline": script}}
    job = Job(key=f"fails-{uuid.uuid4().hex[:12]}", name="fails", plan=plan)
    driver = executor.connect()
    return driver, blocking.run(driver.submit(executor.render(job)))


def follow(executor, handle):
    lines = []
    follower = Follower(executor, handle, on_line=lambda line: lines.append(line.text), warn=print)
    return blocking.run(follower.run(), 300), lines


def wait_for(condition, what):
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, f"waited 60 s for {what}"
        time.sleep(0.2)


@contextlib.contextmanager
def node_that_cannot_start_jobs(lab, node):
    """Takes a node's spool folder away, where it writes a job's script before it starts it."""
    spool = lab.home / "slurm/spool" / node
    away = spool.with_name(f"{node}.away")
    spool.rename(away)
    spool.touch()
    try:
        yield
    finally:
        spool.unlink()
        away.rename(spool)


def queue(lab, handle):
    return lab.command("squeue", "-h", "-t", "all", "-o", "%A %T %r").partition(f"{handle.id} ")[2].partition("\n")[0]


def test_job_that_slurm_holds_after_its_node_failed_it_is_a_node_failure(executor, slurm_to_break):
    with node_that_cannot_start_jobs(slurm_to_break, "n2"):
        _, handle = submit(executor, "true")
        wait_for(lambda: "launch failed" in queue(slurm_to_break, handle), "Slurm to hold the job")
        outcome, _ = follow(executor, handle)
    assert (outcome.status.state, outcome.status.failure) == (JobState.FAILED, FailureKind.NODE_FAILURE), outcome
    assert "launch failed" in outcome.message
    assert "PENDING" not in queue(slurm_to_break, handle)


def test_job_that_somebody_ended_by_hand_is_cancelled(executor, slurm_to_break):
    _, handle = submit(executor, "sleep 600")
    wait_for(lambda: "RUNNING" in queue(slurm_to_break, handle), "the job to run")
    slurm_to_break.command("scancel", handle.id)
    outcome, _ = follow(executor, handle)
    assert outcome.status.state is JobState.CANCELLED, outcome


# Last: the controller gives ids anew after that, and drains a node that has seen one of them.
def test_job_that_was_ended_though_nobody_asked_and_slurm_does_not_know_is_lost(executor, slurm_to_break):
    lab = slurm_to_break
    driver, handle = submit(executor, "echo begun; sleep 600")
    wait_for(
        lambda: any(b"begun" in chunk.data for chunk in blocking.run(driver.read([Cursor(handle)]))), "the job to run"
    )
    job = f"cd chaos/jobs/{handle.key}"
    runner = lab.ssh.run(f"{job} && sed 's/.*\"pid\": \\([0-9]*\\).*/\\1/' claim").strip()
    # A new controller has accounting end the jobs that it does not know: as cancelled, but by nobody.
    history = ("sacct", "-X", "-n", "-j", handle.id, "-o", "JobName%60")
    wait_for(lambda: handle.key in lab.command(*history), "accounting to know the job")
    with chaos.killed(lab, "slurmctld"):
        # As it does when another job gets the same id, which the controller has given away before it saved it.
        lab.ssh.run(f"kill -TERM {runner}")
        wait_for(lambda: "yes" in lab.ssh.run(f"{job} && [ ! -s end.json ] || echo yes"), "the end mark")
        for saved in (lab.home / "slurm/state").glob("job_state*"):
            saved.unlink()
    outcome, lines = follow(executor, handle)
    assert outcome.status.state is JobState.LOST, outcome
    assert outcome.status.failure is FailureKind.LOST
    assert lines[0] == "begun"
