"""Outputs that are fetched: how far it has come is said, and what does not move any more is given up."""

import asyncio
import uuid

import pytest

from nemo_airflow import Script, blocking
from nemo_airflow.config import plan as plans
from nemo_airflow.exceptions import BackendUnavailable, OutputsLost
from nemo_airflow.executors import LocalExecutor
from nemo_airflow.executors.local import LocalDriver
from nemo_airflow.follow import Follower
from nemo_airflow.job import Job
from nemo_airflow.jobs.collecting import collect_outputs
from nemo_airflow.progress import Progress, size_text


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_transfer_says_bytes_rate_and_what_is_left_ever_less_often(clock):
    lines = []
    progress = Progress("outputs fetched", lines.append, 1_000_000_000, clock)
    for second in range(1, 101):
        clock.now = 1000 + second
        progress.reach(10_000_000 * second)
    assert lines[0] == "outputs fetched: 50.0 MB of 1.0 GB, 10.0 MB/s, about 95 s left"
    assert [line.split()[2] for line in lines] == ["50.0", "150", "350", "750"]


def test_transfer_of_a_few_seconds_says_nothing(clock):
    progress = Progress("outputs fetched", pytest.fail, 10, clock)
    clock.now += 4.9
    progress.reach(10)


def test_transfer_that_stands_still_says_since_when(clock):
    lines = []
    progress = Progress("outputs kept", lines.append, None, clock)
    progress.add(2000)
    clock.now += 20
    progress.add(0)
    assert lines == ["outputs kept: 2.0 kB, 100 bytes/s; nothing has come for 20 s"]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (2.5e5, "250 kB"),
        (2.5e9, "2.5 GB"),
        (7e15, "7,000.0 TB"),
    ],
)
def test_size_is_read_in_powers_of_a_thousand(size, text):
    assert size_text(size) == text


@pytest.fixture
def ended(tmp_path):
    """Returns a job that has ended, with its executor and how it ended: it has left a file."""
    executor = LocalExecutor(root=str(tmp_path / "jobs"), grace=1)
    plan = plans.to_plan(Script(inline='echo weights >"$NEMO_AIRFLOW_OUTPUT_DIR/model"'))
    job = Job(key=f"c{uuid.uuid4().hex}", name="job", plan=plan, allow=plans.targets(plan))
    handle = blocking.run(executor.connect().submit(executor.render(job)))
    outcome = blocking.run(Follower(executor, handle, on_line=print, warn=print).run(), 300)
    return executor, handle, outcome


def fetch(ended, into, stall=60.0):
    executor, handle, outcome = ended
    said = []
    blocking.run(
        collect_outputs(
            executor, handle, into, counts=outcome.outputs, inform=said.append, warn=said.append, stall=stall
        ),
        120,
    )
    return said


def test_outputs_are_fetched_into_an_empty_folder(ended, tmp_path):
    assert ended[2].outputs == {"files": 1, "bytes": 8}
    (tmp_path / "into").mkdir()
    (tmp_path / "into/of an attempt before").touch()
    assert fetch(ended, tmp_path / "into") == []
    assert [path.name for path in (tmp_path / "into").iterdir()] == ["model"]


def test_back_end_that_is_away_for_a_moment_is_asked_again(ended, tmp_path, monkeypatch):
    collect, times = LocalDriver.collect, []

    async def away_once(driver, *arguments):
        times.append(1)
        if len(times) == 1:
            raise BackendUnavailable("the disk is away")
        return await collect(driver, *arguments)

    monkeypatch.setattr(LocalDriver, "collect", away_once)
    assert fetch(ended, tmp_path / "into") == ["the outputs cannot be fetched now, trying again: the disk is away"]
    assert (tmp_path / "into/model").read_text() == "weights\n"


def test_transfer_that_moves_nothing_any_more_is_given_up(ended, tmp_path, monkeypatch):
    cancelled = []

    async def hang(driver, handle, into, leave_out):
        (into / "part").write_text("half of it")
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(handle.key)

    monkeypatch.setattr(LocalDriver, "collect", hang)
    with pytest.raises(BackendUnavailable, match="nothing of the outputs has come for 2 s"):
        fetch(ended, tmp_path / "into", stall=2)
    assert cancelled


def test_outputs_that_the_job_left_and_the_back_end_has_no_more_are_lost(ended, tmp_path):
    handle = ended[1]
    for path in (tmp_path / "jobs" / handle.key / "outputs").iterdir():
        path.unlink()
    with pytest.raises(OutputsLost, match=f"none of the 1 files any more that job {handle.key} has left"):
        fetch(ended, tmp_path / "into")


def test_job_that_left_nothing_says_so(tmp_path):
    executor = LocalExecutor(root=str(tmp_path), grace=1)
    plan = plans.to_plan(Script(inline="true"))
    job = Job(key=f"c{uuid.uuid4().hex}", name="job", plan=plan, allow=plans.targets(plan))
    handle = blocking.run(executor.connect().submit(executor.render(job)))
    outcome = blocking.run(Follower(executor, handle, on_line=print, warn=print).run(), 300)
    assert outcome.outputs is None
    assert outcome.to_json()["outputs"] is None
