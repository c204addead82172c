"""The lines of a job come to its task's log once and in order, however often a triggerer is killed."""

import asyncio
import itertools
import json
import random

import pytest
import structlog
from airflow.utils.log.file_task_handler import _interleave_logs

from nemo_airflow.job import JobHandle
from nemo_airflow.stream import BEGINNING, Line, Place
from nemo_airflow.triggers import task_log
from nemo_airflow.triggers.logged_lines import FOLLOWER, LOGGER
from nemo_airflow.triggers.task_log import TaskLog

SECOND = 1_800_000_000


@pytest.fixture
def log_of(monkeypatch, tmp_path):
    """Returns a function that gives the log of the next triggerer, and what one finds on disk."""
    monkeypatch.setattr(task_log, "_log_path", lambda task_instance: tmp_path / "log")
    numbers = itertools.count()

    def reopen(job=None, triggerer=None):
        path = tmp_path / f"log.trigger.{next(numbers) if triggerer is None else triggerer}.log"
        with path.open("w") as file:  # as Airflow opens it
            file.write(json.dumps({"timestamp": "2027-01-15T08:00:00.0Z", "event": "trigger", "logger": "x"}) + "\n")
        render = structlog.PrintLogger(path.open("a"))
        stamp = structlog.processors.TimeStamper(fmt="iso")
        processors = [
            lambda logger, method, event: event if "timestamp" in event else stamp(logger, method, event),
            structlog.processors.EventRenamer("event"),
            structlog.processors.JSONRenderer(),
        ]
        for logger, name in (("_log", LOGGER), ("_follower_log", FOLLOWER)):
            monkeypatch.setattr(
                task_log, logger, structlog.wrap_logger(render, processors=processors).bind(logger=name)
            )
        return asyncio.run(TaskLog.reopen("the task", job=job))

    return reopen


def merged(folder):
    """Returns the lines of the job as Airflow shows them, and when."""
    streams = [path.open() for path in sorted(folder.glob("log.*"))]
    records = [record for record in _interleave_logs(*streams) if getattr(record, "logger", "") == LOGGER]
    return [record.event for record in records], [record.timestamp.timestamp() for record in records]


def lines(times):
    return [Line(f"line {number}", time, number + 1) for number, time in enumerate(times)]


@pytest.mark.parametrize("pace", [0, 1e-6, 3e-4, 1e-3, 0.4])
@pytest.mark.parametrize("kills", [[5], [1, 2, 3, 4], [3, 3, 3], [9]])
def test_lines_are_there_once_and_in_order(log_of, tmp_path, pace, kills):
    written = lines(SECOND + number * (pace + 1e-6) for number in range(12))
    for end in [*kills, 12]:
        log = log_of()
        for line in written[:end]:
            log.write(line)
    shown, times = merged(tmp_path)
    assert shown == [line.text for line in written]
    late = [time - line.timestamp for time, line in zip(times, written, strict=True)]
    assert all(-1e-6 <= seconds < 0.0011 * (len(kills) + 1) for seconds in late)


@pytest.mark.parametrize("pace", [1e-6, 3e-4, 0.4])
@pytest.mark.parametrize("seed", range(30))
def test_lines_are_there_once_whichever_triggerers_follow_and_come_back(log_of, tmp_path, seed, pace):
    chance = random.Random(seed)
    written = lines(SECOND + number * (pace + 1e-6) for number in range(40))
    for end in [*sorted(chance.randrange(36) + chance.randrange(5) for _ in range(8)), *chance.choices(range(40), k=3)]:
        log = log_of(triggerer=chance.randrange(3))
        for line in written[:end]:
            log.write(line)
    log = log_of(triggerer=chance.randrange(3))
    for line in written:
        log.write(line)
    assert sorted(merged(tmp_path)[0]) == sorted(line.text for line in written)


@pytest.mark.parametrize("pace", [1e-6, 3e-4, 0.4])
def test_trigger_goes_on_behind_the_worker_whose_log_it_cannot_see(log_of, tmp_path, monkeypatch, pace):
    written = lines(SECOND + number * pace for number in range(12))
    worker = log_of()
    for line in written[:7]:
        worker.write(line)
    monkeypatch.setattr(task_log, "_log_path", lambda task_instance: tmp_path / "elsewhere" / "log")
    log_of()  # the file of the next log
    trigger = asyncio.run(TaskLog.reopen("the task", worker.mark))
    for line in written:
        trigger.write(line)
    assert merged(tmp_path)[0] == [line.text for line in written]


def test_trigger_ends_when_its_last_line_is_in_the_log(log_of, tmp_path):
    written = lines(SECOND + number * 1e-3 for number in range(4))
    log = log_of()
    for line in written:
        log.write(line)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"line 2")])  # what Airflow has not yet written

    async def settle():
        ended = asyncio.create_task(log.settle("the task"))
        await asyncio.sleep(0.3)
        assert not ended.done()
        await asyncio.to_thread(path.write_bytes, whole)
        await asyncio.wait_for(ended, 9)

    asyncio.run(settle())


def test_trigger_without_lines_or_without_a_log_here_does_not_wait(log_of, tmp_path):
    log = log_of()
    asyncio.run(asyncio.wait_for(log.settle("the task"), 1))
    log.write(lines([SECOND])[0])
    for path in tmp_path.iterdir():
        path.unlink()
    asyncio.run(asyncio.wait_for(log.settle("the task"), 1))


def test_record_that_a_kill_cut_off_is_written_again(log_of, tmp_path):
    written = lines(SECOND + number * 1e-6 for number in range(4))
    log = log_of()
    for line in written[:3]:
        log.write(line)
    path = next(tmp_path.iterdir())
    path.write_text(path.read_text()[:-20])
    log = log_of()
    for line in written:
        log.write(line)
    assert merged(tmp_path)[0] == [line.text for line in written]


JOB = JobHandle("key", "local", "1")
NOTED = 256 << 10


def test_stream_goes_on_where_the_log_was_noted_to_be(log_of, tmp_path):
    written = [Line(f"line {number}", SECOND + number, number * NOTED // 4) for number in range(1, 40)]
    for part in (written[:20], written[20:]):
        log = log_of(JOB)
        for line in part:
            log.write(line)
    assert log_of(JOB).place == Place(9 * NOTED, (SECOND + 36) * 10**6)
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith("log")} == {
        f"log.trigger.{number}.log" for number in range(3)
    }


def test_place_that_the_log_has_not_reached_is_not_gone_on_from(log_of, tmp_path):
    written = [Line(f"line {number}", SECOND + number, number * NOTED) for number in range(1, 8)]
    log = log_of(JOB)
    for line in written:
        log.write(line)
    path = tmp_path / "log.trigger.0.log"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))  # the last two lines were under way
    assert log_of(JOB).place == Place(5 * NOTED, (SECOND + 5) * 10**6)


def test_place_in_another_jobs_stream_is_none(log_of, tmp_path):
    log_of(JOB).write(Line("line", SECOND, 2 * NOTED))
    assert log_of(JOB).place.offset == 2 * NOTED
    assert log_of(JobHandle("key", "local", "2")).place == BEGINNING


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"job": ["key", "1"], "places": [1]}', '{"job": ["key", "1"]}'])
def test_notes_that_somebody_has_changed_are_none(log_of, tmp_path, text):
    log_of(JOB).write(Line("line", SECOND, 2 * NOTED))
    (tmp_path / ".log.places").write_text(text)
    assert log_of(JOB).place == BEGINNING


def test_place_that_cannot_be_noted_is_said_once_and_costs_no_line(log_of, tmp_path, capsys):
    (tmp_path / ".log.places").mkdir()
    log = log_of(JOB)
    written = [Line(f"line {number}", SECOND + number, number * NOTED) for number in range(1, 8)]
    for line in written:
        log.write(line)
    assert merged(tmp_path)[0] == [line.text for line in written]
    assert capsys.readouterr().out.count("the next one reads the job's log again") == 1


def test_log_that_nobody_wrote_begins_with_the_first_line(log_of, tmp_path):
    log = log_of()
    for line in lines([SECOND]):
        log.write(line)
    record = json.loads(next(tmp_path.iterdir()).read_text().splitlines()[1])
    assert record["timestamp"] == "2027-01-15T08:00:00.000000Z"
