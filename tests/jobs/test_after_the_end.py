"""What remembers a job, and the disk that its record is made on, change nothing of how the job ends."""

import tempfile
from pathlib import Path

import pytest

from nemo_airflow import Script, blocking
from nemo_airflow.config import plan as plans
from nemo_airflow.executors import LocalExecutor
from nemo_airflow.follow import Follower
from nemo_airflow.job import Job, JobState
from nemo_airflow.kept_log import KeptLog


class Remembering:
    """Takes all, and keeps the log."""

    def __init__(self):
        self.records, self.log = [], None

    def record(self, record):
        self.records.append(record.type)

    async def finish(self, status, log, error):
        self.log = log.read_text() if log is not None else None
        self.status = status
        return True

    async def close(self):
        self.closed = True


class Raising(Remembering):
    def record(self, record):
        raise ValueError(f"could not convert a {record.type}")

    async def finish(self, status, log, error):
        raise RuntimeError("nobody expects this")


@pytest.fixture
def follow(tmp_path):
    """Returns a function that runs a job of two lines with a sink: its outcome, its lines, the warnings."""

    def followed(sink):
        executor = LocalExecutor(root=str(tmp_path), grace=1)
        plan = plans.to_plan(Script(inline="echo one; echo two"))
        job = Job(key="job", name="job", plan=plan, allow=plans.targets(plan))
        lines, warnings = [], []

        async def run():
            handle = await executor.connect().submit(executor.render(job))
            on_line = lambda line: lines.append(line.text)  # noqa: E731
            return await Follower(executor, handle, on_line=on_line, warn=warnings.append, sink=sink).run()

        return blocking.run(run(), 300), lines, warnings

    return followed


def test_sink_that_raises_costs_the_record_and_not_the_task(follow):
    outcome, lines, warnings = follow(Raising())
    assert outcome.status.state is JobState.SUCCEEDED
    assert lines == ["one", "two"]
    assert any("a record of type 'start' is not tracked, ValueError: could not convert a start" in w for w in warnings)
    assert len([warning for warning in warnings if "of type 'start'" in warning]) == 1
    assert any(
        "the end of the job is not tracked, RuntimeError: nobody expects this" in warning for warning in warnings
    )


def test_no_folder_for_temporary_files_costs_the_record_and_not_the_task(follow, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/dev/full")
    sink = Remembering()
    outcome, lines, warnings = follow(sink)
    assert outcome.status.state is JobState.SUCCEEDED
    assert (sink.status, sink.log) == (outcome.status, None)
    assert lines == ["one", "two"]
    assert any("the run gets no copy of the log" in warning for warning in warnings)


def test_full_disk_costs_the_copy_of_the_log_with_one_warning(tmp_path):
    (tmp_path / "log.txt").symlink_to("/dev/full")
    warnings = []
    log = KeptLog(tmp_path, warnings.append)
    for number in range(3):
        log.add([f"line {number}"])
    log.close()
    (warning,) = warnings
    assert "No space left on device" in warning


@pytest.mark.parametrize("count", [0, 5, 30, 1000])
def test_kept_log_has_both_ends_of_a_long_log_and_says_how_much_is_between(tmp_path, count):
    lines = [f"line {number:06}" for number in range(count)]  # of twelve bytes
    log = KeptLog(tmp_path, pytest.fail, head=120, piece=240)
    for line in lines:
        log.add([line])
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == ["log.txt"]
    kept = Path(tmp_path, "log.txt").read_text().splitlines()
    if count <= 50:
        assert kept == lines
        return
    (gap,) = [line for line in kept if line.startswith("[")]
    at = kept.index(gap)
    assert kept[:at] == lines[:10]
    behind = kept[at + 1 :]
    assert 20 <= len(behind) <= 40
    assert behind == lines[-len(behind) :]
    left_out = 12 * (count - 10 - len(behind))
    assert gap == f"[{left_out} bytes are left out here: the back-end's own log of the job has them]"
