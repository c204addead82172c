"""The lines of a job come to its task's log once and in order, however often a triggerer is killed."""

import asyncio
import itertools
import json

import pytest
import structlog
from airflow.utils.log.file_task_handler import _interleave_logs

from nemo_airflow.stream import Line
from nemo_airflow.triggers import task_log
from nemo_airflow.triggers.task_log import TaskLog

SECOND = 1_800_000_000


@pytest.fixture
def log_of(monkeypatch, tmp_path):
    """Returns a function that gives the log of the next triggerer, and what one finds on disk."""
    monkeypatch.setattr(task_log, "_trigger_logs", lambda task_instance: sorted(tmp_path.iterdir()))
    numbers = itertools.count()

    def reopen():
        path = tmp_path / f"log.trigger.{next(numbers)}.log"
        log = asyncio.run(TaskLog.reopen("the task"))
        with path.open("a") as file:
            file.write(json.dumps({"timestamp": "2027-01-15T08:00:00.0Z", "event": "trigger", "logger": "x"}) + "\n")
        render = structlog.PrintLogger(path.open("a"))
        processors = [structlog.processors.EventRenamer("event"), structlog.processors.JSONRenderer()]
        bound = structlog.wrap_logger(render, processors=processors).bind(logger=task_log.LOGGER)
        monkeypatch.setattr(task_log, "_log", bound)
        return log

    return reopen


def merged(folder):
    """Returns the lines of the job as Airflow shows them, and when."""
    streams = [path.open() for path in sorted(folder.iterdir())]
    records = [record for record in _interleave_logs(*streams) if getattr(record, "logger", "") == task_log.LOGGER]
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
def test_trigger_goes_on_behind_the_worker_whose_log_it_cannot_see(log_of, tmp_path, monkeypatch, pace):
    written = lines(SECOND + number * pace for number in range(12))
    worker = log_of()
    for line in written[:7]:
        worker.write(line)
    monkeypatch.setattr(task_log, "_trigger_logs", lambda task_instance: [])
    log_of()  # the file of the next log
    trigger = asyncio.run(TaskLog.reopen("the task", worker.mark))
    for line in written:
        trigger.write(line)
    assert merged(tmp_path)[0] == [line.text for line in written]


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


def test_log_that_nobody_wrote_begins_with_the_first_line(log_of, tmp_path):
    log = log_of()
    for line in lines([SECOND]):
        log.write(line)
    record = json.loads(next(tmp_path.iterdir()).read_text().splitlines()[1])
    assert record["timestamp"] == "2027-01-15T08:00:00.000000Z"
