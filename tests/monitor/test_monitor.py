"""The monitor over a real local back-end whose connection is made to fail."""

import asyncio
import dataclasses
import uuid

import pytest

from nemo_airflow.exceptions import BackendUnavailable
from nemo_airflow.executors import LocalExecutor
from nemo_airflow.executors.base import Chunk
from nemo_airflow.executors.local import LocalSession
from nemo_airflow.follow import Follower
from nemo_airflow.job import FailureKind, Job, JobHandle, JobState, JobStatus
from nemo_airflow.monitor import Monitor


class FaultySession(LocalSession):
    """A local session that counts its calls, and can be cut off or made blind."""

    def __init__(self, root):
        super().__init__(root)
        self.away = 0
        self.blind = 0
        self.silent = 0
        self.polled = []

    async def poll(self, handles):
        if self.away:
            self.away -= 1
            raise BackendUnavailable("the line is dead")
        self.polled.append(len(handles))
        if self.blind:
            self.blind -= 1
            return {handle.key: JobStatus(JobState.UNKNOWN, reason="not in the queue") for handle in handles}
        return await super().poll(handles)

    async def read(self, cursors):
        if self.silent:
            self.silent -= 1
            return [Chunk(cursor.handle.key, cursor.offset, b"", awaited=True) for cursor in cursors]
        return await super().read(cursors)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaultyExecutor(LocalExecutor):
    def connect(self):
        return FaultySession(self.folder)


@pytest.fixture
def executor(tmp_path):
    return FaultyExecutor(root=str(tmp_path), grace=1)


async def submit(executor, script):
    """Submits a script; returns the monitor and the handle."""
    root = {"_target_": "nemo_airflow.runner.script:run", "inline": script}
    job = Job(key=f"m{uuid.uuid4().hex}", name="script", plan={"version": 1, "root": root})
    monitor = Monitor.shared(executor)
    return monitor, await monitor.session.submit(executor.render(job))


async def follow(executor, handle, **arguments):
    lines, warnings = [], []
    follower = Follower(
        executor, handle, on_line=lambda line: lines.append(line.text), warn=warnings.append, **arguments
    )
    return await asyncio.wait_for(follower.run(), 60), lines, warnings


async def test_lost_connection_is_waited_out_and_said_once(executor):
    monitor, handle = await submit(executor, "for i in 1 2 3; do echo $i; sleep 0.2; done")
    monitor.session.away = 2
    outcome, lines, warnings = await follow(executor, handle)
    assert outcome.succeeded
    assert lines == ["1", "2", "3"]
    assert len(warnings) == 1
    assert "the line is dead" in warnings[0]


async def test_one_empty_answer_is_no_evidence_that_a_job_is_gone(executor):
    monitor, handle = await submit(executor, "sleep 0.5; echo done")
    monitor.session.blind = monitor.session.misses - 1
    outcome, lines, _ = await follow(executor, handle)
    assert outcome.succeeded
    assert lines == ["done"]


async def test_end_of_a_job_waits_for_what_cannot_be_read_just_now(executor):
    monitor, handle = await submit(executor, "echo done")
    while not (await monitor.session.poll([handle]))[handle.key].state.is_final:
        await asyncio.sleep(0.05)
    monitor.session.silent = 3
    outcome, lines, _ = await follow(executor, handle)
    assert outcome.succeeded
    assert lines == ["done"]


async def test_job_that_stays_unseen_is_lost(executor):
    nobody = JobHandle("never-submitted", "local", "1")
    outcome, _, _ = await follow(executor, nobody)
    assert outcome.status.state is JobState.LOST
    assert outcome.status.failure is FailureKind.LOST


async def test_jobs_of_one_connection_are_polled_together(executor):
    jobs = [await submit(executor, "sleep 1") for _ in range(8)]
    monitors = {id(monitor) for monitor, _ in jobs}
    outcomes = await asyncio.gather(*(follow(executor, handle) for _, handle in jobs))
    assert all(outcome.succeeded for outcome, _, _ in outcomes)
    assert len(monitors) == 1
    assert max(jobs[0][0].session.polled) == 8


async def test_deadline_cancels_the_job(executor):
    _, handle = await submit(executor, "echo begun; sleep 600")
    outcome, _, warnings = await follow(executor, handle, deadline=0.0)
    assert outcome.status.state is JobState.FAILED
    assert outcome.status.failure is FailureKind.TIMEOUT
    assert any("deadline" in warning for warning in warnings)


async def test_follower_that_is_cancelled_leaves_the_job_and_another_begins_anew(executor):
    _, handle = await submit(executor, "for i in 1 2 3 4 5; do echo $i; sleep 0.2; done")
    first = asyncio.create_task(follow(executor, handle))
    await asyncio.sleep(0.3)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    outcome, lines, _ = await follow(executor, handle)
    assert outcome.succeeded
    assert lines == ["1", "2", "3", "4", "5"]


async def test_fault_of_an_adapter_reaches_the_watcher(executor):
    monitor, handle = await submit(executor, "sleep 0.1")

    async def broken(handles):
        raise KeyError("a bug")

    monitor.session.poll = broken
    with pytest.raises(KeyError, match="a bug"):
        await follow(executor, handle)
