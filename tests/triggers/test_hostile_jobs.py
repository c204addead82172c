"""Whatever a job says, a triggerer can send it on and store it, and goes on.

The streams are those that a runner of another version may leave: today's cleans what it writes itself.
"""

import asyncio
import contextlib
import json
import logging
import socket

import msgspec
import pytest
import structlog
from airflow.jobs.triggerer_job_runner import TriggerCommsDecoder, TriggerEventEntry, TriggerRunner

from nemo_airflow.executors import LocalExecutor
from nemo_airflow.follow import Outcome
from nemo_airflow.job import JobHandle
from nemo_airflow.jobs import service
from nemo_airflow.jobs.judge import Policy
from nemo_airflow.triggers.run import NemoRunTrigger
from nemo_airflow.triggers.task_log import TaskLog

MARK = b"\x1e"
DEEP = 900


def record(kind, **fields):
    return MARK + json.dumps({"v": 1, "type": kind, "ts": 1.0, "at": 0, **fields}).encode() + b"\n"


@pytest.fixture
def follow(tmp_path, monkeypatch):
    """Returns a function that gives the event of a trigger that follows a job which has left a log and an end mark."""
    # Where the log has no end record it is waited for: a disk may show it late.
    monkeypatch.setattr(service, "Policy", lambda **graces: Policy(**graces, mark=0.2))

    def event_of(log, end=b'{"state":"succeeded"}'):
        folder = tmp_path / "job"
        folder.mkdir()
        claim = {"pid": 1, "start_ticks": 1, "boot_id": "an earlier one", "host": socket.gethostname(), "ts": 1.0}
        (folder / "claim").write_text(json.dumps(claim))
        (folder / "log").write_bytes(log)
        (folder / "end.json").write_bytes(end)
        trigger = NemoRunTrigger(
            LocalExecutor(root=str(tmp_path)).to_json(), JobHandle("job", "local", "1", "", 1.0).to_json()
        )
        return asyncio.run(first_event(trigger))

    return event_of


async def first_event(trigger):
    trigger.task_instance = None
    async with asyncio.timeout(60):
        async for event in trigger.run():
            return event
    raise AssertionError("the trigger has ended without an event")


async def sent(event):
    """Returns what Airflow's triggerer sends its supervisor of an event, by the very code that it sends it with."""
    ours, theirs = socket.socketpair()
    runner = TriggerRunner()
    reader, writer = await asyncio.open_connection(sock=ours)
    runner.comms_decoder = TriggerCommsDecoder(socket=ours, async_reader=reader, async_writer=writer)
    await runner.comms_decoder.start_reader()
    runner.events.append(TriggerEventEntry(1, event, None))
    sending = asyncio.create_task(runner.sync_state_to_supervisor([1]))
    try:
        supervisor, _ = await asyncio.open_connection(sock=theirs)
        receiving = asyncio.create_task(supervisor.readexactly(4))
        await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED, timeout=300)
        if sending.done():
            sending.result()
        frame = await supervisor.readexactly(int.from_bytes(receiving.result(), "big"))
        return msgspec.msgpack.decode(frame)
    finally:
        for task in (sending, receiving, runner.comms_decoder._reader_task):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, UnicodeError, OverflowError):
                await task
        theirs.close()


def assert_airflow_takes(event):
    assert asyncio.run(sent(event))
    # What PostgreSQL's JSONB refuses.
    assert "\\u0000" not in json.dumps(event.payload, allow_nan=False)


RESULTS = {
    "surrogate": "\udce9",
    "zero byte": "a\0b",
    "key": {"\udce9\0": 1},
    "large integer": 1 << 70,
    "not finite": float("nan"),
    "within": [{"x": ("\udce9", [1 << 80])}],
}


@pytest.mark.parametrize("value", RESULTS.values(), ids=RESULTS)
def test_result_that_cannot_be_stored_as_it_is_comes_as_text_and_ends_no_triggerer(follow, value):
    event = follow(record("end", state="succeeded", result=value))
    assert_airflow_takes(event)
    assert Outcome.from_json(event.payload["outcome"]).succeeded


def test_values_that_can_be_stored_are_left_as_they_are(follow):
    value = {"a": [1, 2.5, None, True, "größer → ok"], "b": (1 << 63)}
    event = follow(record("end", state="succeeded", result=value))
    assert event.payload["outcome"]["result"] == value


def test_file_name_that_is_no_text_is_told_in_the_error(follow):
    error = {"type": "ValueError", "message": "cannot read caf\udce9.jpg", "traceback": "\udce9\0"}
    end = json.dumps({"state": "failed", "error": error}).encode()
    event = follow(record("end", state="failed", error=error), end)
    assert_airflow_takes(event)
    assert "caf\\udce9.jpg" in event.payload["outcome"]["message"]


def test_error_known_from_the_end_mark_alone_is_told(follow):
    end = json.dumps({"state": "failed", "error": {"type": "E", "message": "caf\udce9\0"}}).encode()
    event = follow(b"", end)
    assert_airflow_takes(event)
    assert event.payload["outcome"]["message"] == "E: caf\\udce9\\x00"


def test_deeply_nested_result_comes_as_text_below_a_depth(follow):
    value = [1]
    for _ in range(DEEP):
        value = [value]
    event = follow(record("end", state="succeeded", result=value))
    assert_airflow_takes(event)


def test_oversized_error_is_shortened_to_its_ends(follow):
    error = {"type": "E", "message": "begin" + "x" * 10_000_000 + "end", "traceback": "y" * 10_000_000}
    event = follow(record("end", state="failed", error=error))
    assert_airflow_takes(event)
    outcome = Outcome.from_json(event.payload["outcome"])
    assert outcome.message.startswith("E: begin")
    assert outcome.message.endswith("end")
    assert "characters are left out here" in outcome.message
    assert len(json.dumps(event.payload)) < 1_000_000


def test_failure_that_only_a_newer_runner_knows_is_an_error_of_the_job(follow):
    end = {"state": "failed", "failure": "cosmic_ray", "error": {"type": "E", "message": "hit"}}
    event = follow(record("end", **end), json.dumps(end).encode())
    outcome = Outcome.from_json(event.payload["outcome"])
    assert (outcome.status.failure, outcome.message) == ("user_error", "E: hit")
    newer = {**event.payload["outcome"], "status": {**event.payload["outcome"]["status"], "failure": "cosmic_ray"}}
    assert Outcome.from_json(newer).status.failure == "user_error"


MALFORMED = {
    "no JSON": b"\x1e{\n",
    "a list": b"\x1e[1]\n",
    "no time": b'\x1e{"v":1,"type":"end","ts":null}\n',
    "endless time": b'\x1e{"v":1,"type":"clock","ts":1e999}\n',
    "deeper than Python reads": b"\x1e" + b"[" * 200_000 + b"\n",
    "an error that is a text": record("end", state="failed", error="text", outputs=[1]),
    "a warning that is a list": record("warning", message=["\udce9"]),
    "a state of another version": record("end", state={"a": 1}),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_malformed_record_ends_neither_the_job_nor_what_follows_it(follow, data):
    event = follow(b"before\n" + data + b"after\n", b'{"state":"failed","error":{"type":"E","message":"m"}}')
    assert_airflow_takes(event)
    assert event.payload["outcome"]["status"]["state"] == "failed"


@pytest.mark.parametrize(
    "end", [b"", b"{", b"[1]", b"[" * 200_000, b"\xff"], ids=["empty", "cut", "list", "deep", "bytes"]
)
def test_damaged_end_mark_is_as_good_as_none(follow, end):
    event = follow(b"line\n", end)
    assert event.payload["outcome"]["status"]["state"] == "lost"


def test_line_with_a_zero_byte_comes_into_the_task_log(monkeypatch):
    shown = []
    monkeypatch.setattr("nemo_airflow.triggers.task_log._log", structlog.wrap_logger(logging.getLogger(), processors=[
        lambda _, __, event: shown.append(event["event"]) or "",
    ]))  # fmt: skip
    from nemo_airflow.stream import Line

    TaskLog().write(Line("a\0b", 1.0, 1))
    assert shown == ["a\\x00b"]
