"""The service over a real local back-end whose connection, or one job of it, is made to fail."""

import asyncio
import dataclasses
import time
import uuid
from typing import ClassVar

import pytest

from nemo_airflow.exceptions import AccessRefused, BackendUnavailable, SettingsError
from nemo_airflow.executors import LocalExecutor
from nemo_airflow.executors.base import Chunk
from nemo_airflow.executors.local import LocalDriver
from nemo_airflow.executors.seen import Seen
from nemo_airflow.follow import Follower
from nemo_airflow.job import FailureKind, Job, JobHandle, JobState
from nemo_airflow.jobs import service as service_module
from nemo_airflow.jobs.service import JobService


class FaultyDriver(LocalDriver):
    """A local driver that counts its calls, and can be cut off, made blind, or made to stumble over one job."""

    def __init__(self, root):
        super().__init__(root)
        self.errors = []
        """What the next looks fail with."""
        self.blind = 0
        self.silent = 0
        self.dropped = 0
        self.looked = []
        self.bad_key = None
        self.omitted = set()
        self.read_limits = []

    async def look(self, handles):
        if self.errors:
            raise self.errors.pop(0)
        self.looked.append(len(handles))
        if self.bad_key in {handle.key for handle in handles}:
            raise KeyError("a bug")
        if self.blind:
            self.blind -= 1
            return {handle.key: Seen(time.monotonic(), note="not in the queue") for handle in handles}
        seen = await super().look(handles)
        return {key: each for key, each in seen.items() if key not in self.omitted}

    async def read(self, cursors):
        self.read_limits += [cursor.limit for cursor in cursors]
        if self.silent:
            self.silent -= 1
            return [Chunk(cursor.handle.key, cursor.offset, b"", trouble="its node is away") for cursor in cursors]
        chunks = await super().read(cursors)
        if self.dropped:
            chunks = [
                dataclasses.replace(chunk, gone=self.dropped, data=chunk.data[self.dropped :])
                if chunk.offset == 0
                else chunk
                for chunk in chunks
            ]
        return chunks


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaultyExecutor(LocalExecutor):
    def connect(self):
        return FaultyDriver(self.folder)


@pytest.fixture
def executor(tmp_path):
    return FaultyExecutor(root=str(tmp_path), grace=1)


async def submit(executor, script):
    """Submits a script; returns the service and the handle."""
    root = {"_target_": "nemo_airflow.runner.script:run", "inline": script}
    job = Job(key=f"m{uuid.uuid4().hex}", name="script", plan={"version": 1, "root": root})
    service = JobService.shared(executor)
    return service, await service.driver.submit(executor.render(job))


async def follow(executor, handle, **arguments):
    lines, warnings = [], []
    follower = Follower(
        executor, handle, on_line=lambda line: lines.append(line.text), warn=warnings.append, **arguments
    )
    return await asyncio.wait_for(follower.run(), 300), lines, warnings


@pytest.mark.parametrize(
    "error",
    [
        BackendUnavailable("the line is dead"),
        AccessRefused("the login is refused"),
        SettingsError("Airflow's secrets are slow"),
        OSError("a driver's own fault"),
    ],
    ids=["away", "login", "settings", "fault"],
)
async def test_no_error_of_a_connection_ends_a_watch_and_each_outage_is_said_once(executor, error, tmp_path):
    # Its end is not before that of the outage: the end record alone tells that a job is over.
    script = f"for i in 1 2 3; do echo $i; done; while [ ! -e {tmp_path}/end ]; do sleep 0.05; done"
    service, handle = await submit(executor, script)
    service.driver.errors = [error] * 3

    async def end_when_looked_at_again():
        while not service.driver.looked:
            await asyncio.sleep(0.05)
        (tmp_path / "end").touch()

    ending = asyncio.create_task(end_when_looked_at_again())
    outcome, lines, warnings = await follow(executor, handle)
    await ending
    assert outcome.succeeded
    assert lines == ["1", "2", "3"]
    assert len(warnings) == 2, warnings
    begun, over = warnings
    assert "the job goes on" in begun
    assert str(error) in begun
    assert "tells again" in over


async def test_watcher_that_comes_during_an_outage_is_told_of_it(executor):
    service, first = await submit(executor, "sleep 1")
    _, second = await submit(executor, "sleep 1")
    service.driver.errors = [BackendUnavailable("the line is dead")] * 3
    _, (_, _, late) = await asyncio.gather(follow(executor, first), follow_later(executor, second))
    assert any("the line is dead" in warning for warning in late)


async def follow_later(executor, handle):
    await asyncio.sleep(0.1)
    return await follow(executor, handle)


async def test_outage_ends_a_watch_where_the_setting_says_so(executor, monkeypatch):
    monkeypatch.setenv("NEMO_AIRFLOW_GIVE_UP_AFTER", "0.2")
    service, handle = await submit(executor, "sleep 2")
    service.driver.errors = [BackendUnavailable("the line is dead")] * 100
    with pytest.raises(BackendUnavailable, match=r"NEMO_AIRFLOW_GIVE_UP_AFTER=0\.2 allows; the job may go on"):
        await follow(executor, handle)
    service.driver.errors = []
    assert (await follow(executor, handle))[0].succeeded


@pytest.mark.parametrize("name", ["NEMO_AIRFLOW_GIVE_UP_AFTER", "NEMO_AIRFLOW_LOST_AFTER"])
async def test_setting_that_is_no_number_is_refused_when_a_job_begins_to_be_followed(executor, monkeypatch, name):
    monkeypatch.setenv(name, "an hour")
    with pytest.raises(SettingsError, match=f"{name}='an hour' is not a number of seconds: set it to one, or unset it"):
        await submit(executor, "true")


async def test_job_of_which_a_driver_says_nothing_disturbs_no_neighbour(executor):
    service, forgotten = await submit(executor, "echo forgotten; sleep 1")
    _, neighbour = await submit(executor, "echo neighbour; sleep 1")
    service.driver.omitted = {forgotten.key}
    following = asyncio.create_task(follow(executor, forgotten))
    outcome, lines, warnings = await follow(executor, neighbour)
    assert (outcome.succeeded, lines, warnings) == (True, ["neighbour"], [])
    service.driver.omitted = set()
    outcome, lines, warnings = await following
    assert (outcome.succeeded, lines) == (True, ["forgotten"])
    assert f"says nothing of job {forgotten.key}" in warnings[0]


async def test_job_that_a_driver_stumbles_over_disturbs_no_neighbour(executor):
    service, bad = await submit(executor, "echo bad; sleep 1")
    neighbours = [(await submit(executor, f"echo {number}; sleep 1"))[1] for number in range(5)]
    service.driver.bad_key = bad.key
    stumbling = asyncio.create_task(follow(executor, bad))
    ends = await asyncio.gather(*(follow(executor, handle) for handle in neighbours))
    assert [lines for _, lines, _ in ends] == [[str(number)] for number in range(5)]
    assert not any(warnings for _, _, warnings in ends)
    service.driver.bad_key = None
    outcome, lines, warnings = await stumbling
    assert outcome.succeeded
    assert lines == ["bad"]
    assert "KeyError: 'a bug'" in warnings[0]


async def test_job_whose_claim_is_damaged_disturbs_no_neighbour_and_is_lost_after_a_while(executor):
    service, damaged = await submit(executor, "sleep 600")
    _, healthy = await submit(executor, "echo healthy; sleep 0.5")
    claim = executor.folder / damaged.key / "claim"
    text = claim.read_text()
    claim.write_text("")  # what a power cut leaves
    service._policy = dataclasses.replace(service._policy, lost_after=1.0)
    (lost, _, _), (outcome, lines, _) = await asyncio.gather(follow(executor, damaged), follow(executor, healthy))
    claim.write_text(text)
    await service.driver.cancel([damaged])
    assert lost.status.state is JobState.LOST
    assert "claim is missing or cannot be read" in lost.message
    assert outcome.succeeded
    assert lines == ["healthy"]


async def test_empty_answers_of_less_than_a_while_are_no_evidence_that_a_job_is_gone(executor):
    service, handle = await submit(executor, "sleep 0.5; echo done")
    service.driver.blind = 20
    outcome, lines, _ = await follow(executor, handle)
    assert outcome.succeeded
    assert lines == ["done"]


async def test_end_of_a_job_waits_for_what_cannot_be_read_just_now(executor):
    service, handle = await submit(executor, "echo done")
    while not (await service.status([handle]))[handle.key].state.is_final:
        await asyncio.sleep(0.05)
    service.driver.silent = 3
    outcome, lines, _ = await follow(executor, handle)
    assert outcome.succeeded
    assert lines == ["done"]


async def test_job_whose_stream_stays_unreadable_ends_all_the_same_and_its_result_is_lost(executor):
    service, handle = await submit(executor, "echo done")
    while not (await service.status([handle]))[handle.key].state.is_final:
        await asyncio.sleep(0.05)
    service.driver.silent = 1000
    service._policy = dataclasses.replace(service._policy, stream=0.5)
    outcome, lines, _ = await follow(executor, handle)
    assert (outcome.status.state, outcome.status.failure, lines) == (JobState.LOST, FailureKind.NODE_FAILURE, [])
    assert "its result is lost: its node is away" in outcome.message


async def test_bytes_that_a_back_end_has_dropped_are_counted_in_a_warning(executor):
    service, handle = await submit(executor, "seq 1000; echo last")
    while not (await service.status([handle]))[handle.key].state.is_final:
        await asyncio.sleep(0.05)
    whole = (executor.folder / handle.key / "log").read_bytes()
    service.driver.dropped = whole.index(b"\n500\n") + 1
    outcome, lines, warnings = await follow(executor, handle)
    assert outcome.succeeded
    assert lines == [*map(str, range(500, 1001)), "last"]
    assert any(f"{service.driver.dropped} bytes of the job's log are gone" in warning for warning in warnings)


async def test_end_mark_waits_for_the_end_record_that_a_disk_shows_late(executor):
    service, handle = await submit(executor, "echo done; exit 3")
    while not (await service.status([handle]))[handle.key].state.is_final:
        await asyncio.sleep(0.05)
    log = executor.folder / handle.key / "log"
    whole = log.read_bytes()
    log.write_bytes(whole[: len(whole) // 2])  # as a login node sees the log of a shared disk
    following = asyncio.create_task(follow(executor, handle))
    await asyncio.sleep(0.5)
    assert not following.done()
    log.write_bytes(whole)
    outcome, lines, warnings = await following
    assert outcome.status.exit_code == 3
    assert lines == ["done"]
    assert not warnings


async def test_end_record_that_does_not_come_is_said(executor):
    service, handle = await submit(executor, "echo done")
    while not (await service.status([handle]))[handle.key].state.is_final:
        await asyncio.sleep(0.05)
    log = executor.folder / handle.key / "log"
    log.write_bytes(log.read_bytes()[:10])
    service._policy = dataclasses.replace(service._policy, mark=0.5)
    outcome, _, warnings = await follow(executor, handle)
    assert outcome.succeeded
    assert any("its last lines are unknown" in warning for warning in warnings)


async def test_job_that_stays_unseen_is_lost(executor, monkeypatch):
    monkeypatch.setenv("NEMO_AIRFLOW_LOST_AFTER", "1")
    nobody = JobHandle("never-submitted", "local", "1")
    outcome, _, _ = await follow(executor, nobody)
    assert outcome.status.state is JobState.LOST
    assert outcome.status.failure is FailureKind.LOST


async def test_two_watches_of_one_job_get_each_what_they_lack(executor):
    _, handle = await submit(executor, "for i in $(seq 50); do echo $i; sleep 0.02; done")
    first = asyncio.create_task(follow(executor, handle))
    await asyncio.sleep(0.5)
    second = asyncio.create_task(follow(executor, handle))
    for outcome, lines, _ in (await first, await second):
        assert outcome.succeeded
        assert lines == [str(number) for number in range(1, 51)]


async def test_backlog_is_caught_up_at_once_however_old_the_job_is(executor, monkeypatch):
    """A job of an hour is looked at each 2 s; a full chunk is followed by the next one before that."""
    monkeypatch.setattr(service_module, "_MOST", 16 << 10)
    service, handle = await submit(executor, "seq 100000; echo ready; sleep 600")
    log = executor.folder / handle.key / "log"
    while b"ready" not in log.read_bytes()[-200:]:
        await asyncio.sleep(0.05)
    looks = []
    monkeypatch.setattr(service, "_next_look", lambda watch: looks.append(watch) or time.monotonic() + 3600)
    lines = []
    async with asyncio.timeout(30):
        async for update in service.watch(handle):
            lines += update.data.split()
            if b"ready" in lines:
                break
    assert len(looks) <= 1  # after the last chunk: each full one was followed by the next at once
    await service.driver.cancel([handle])


async def test_all_jobs_together_are_read_in_bounded_pieces(executor):
    jobs = [await submit(executor, "sleep 0.5") for _ in range(8)]
    await asyncio.gather(*(follow(executor, handle) for _, handle in jobs))
    assert min(jobs[0][0].driver.read_limits) == (16 << 20) // 8


async def test_jobs_of_one_connection_are_polled_together(executor):
    jobs = [await submit(executor, "sleep 1") for _ in range(8)]
    services = {id(service) for service, _ in jobs}
    outcomes = await asyncio.gather(*(follow(executor, handle) for _, handle in jobs))
    assert all(outcome.succeeded for outcome, _, _ in outcomes)
    assert len(services) == 1
    assert max(jobs[0][0].driver.looked) == 8


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


class ClosingExecutor(FaultyExecutor):
    """Gives drivers that say when they are closed."""

    closed: ClassVar[list] = []

    def connect(self):
        driver = super().connect()
        close = driver.close

        async def close_and_say():
            self.closed.append(self.root)
            await close()

        driver.close = close_and_say
        return driver


async def test_connection_that_nobody_uses_is_closed_and_one_that_is_followed_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(service_module, "_UNUSED", 0.2)
    monkeypatch.setattr(ClosingExecutor, "closed", [])
    unused, used, new = (ClosingExecutor(root=str(tmp_path / name), grace=1) for name in ("unused", "used", "new"))
    JobService.shared(unused)
    _, handle = await submit(used, "until [ -e go ]; do sleep 0.1; done")
    following = asyncio.create_task(follow(used, handle))
    await asyncio.sleep(0.5)
    service = JobService.shared(new)
    await asyncio.gather(*JobService._closing)
    assert ClosingExecutor.closed == [unused.root]
    assert JobService.shared(new) is service
    (tmp_path / "used" / handle.key / "work" / "go").touch()
    assert (await following)[0].succeeded


async def test_no_more_ends_are_remembered_than_have_room(executor, monkeypatch):
    monkeypatch.setattr(service_module, "_REMEMBERED", 2)
    handles = []
    for _ in range(4):
        service, handle = await submit(executor, "true")
        assert (await follow(executor, handle))[0].succeeded
        handles.append(handle)
    assert len(service._ends) == 2
    assert (await service.status(handles))[handles[0].key].state is JobState.SUCCEEDED
