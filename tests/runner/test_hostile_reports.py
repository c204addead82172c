"""What a job says, whatever that is: it neither ends the supervisor nor reaches Airflow in a form that hurts there."""

import json

import pytest

SENDER = """
import os, socket

def send(line):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(os.environ["NEMO_AIRFLOW_EVENTS"])
    connection.sendall(line.encode() + b"\\n")
    connection.close()
    return "done"
"""


@pytest.mark.parametrize(
    "line",
    [
        '{"type": "metrics"}',
        '{"type": "metrics", "points": [["loss", "abc", 1, 0]]}',
        '{"type": "metrics", "points": [["loss", 1.0, "one", 0]]}',
        '{"type": "metrics", "points": [["loss", NaN, 1, 0]]}',
        '{"type": "metrics", "points": [["loss", 1e999, 1, 0]]}',
        '{"type": "metrics", "points": [["loss", 1, 1e3, 0]]}',
        '{"type": "metrics", "points": [["loss", 1, 99999999999999999999, 0]]}',
        '{"type": "metrics", "points": [["loss", 1%s, 1, 0]]}' % ("0" * 400),
        '{"type": "metrics", "points": [["loss", true, 1, 0]]}',
        '{"type": "metrics", "points": [["loss"]]}',
        '{"type": "metrics", "points": 3}',
        '{"type": "metrics", "points": [3]}',
        '{"type": "tags"}',
        '{"type": "tags", "tags": {"a": NaN}}',
        '{"type": "tags", "tags": ["a"]}',
        '{"type": "artifact", "path": 1}',
        '{"type": "warning"}',
        '{"type": "config", "plan": "x"}',
        '{"type": "outcome"}',
        '{"type": "outcome", "error": "bad"}',
        '{"type": "outcome", "error": {"type": "E", "message": "m", "traceback": "t"}, "failure": "made-up"}',
        '{"type": "outcome", "result": Infinity}',
        '{"type": "config", "plan": {"a": ' + "[" * 100_000 + "]" * 100_000 + "}}",
        '{"type": ["metrics"]}',
        '{"type": "start"}',
        '["metrics"]',
        "null",
        "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
        "not JSON",
    ],
    ids=lambda line: line[:50],
)
def test_malformed_report_is_a_warning_and_the_job_goes_on(run, line):
    ran = run("send", code=SENDER, arguments={"line": line})
    assert (ran.code, ran.end["state"], ran.end["result"]) == (0, "succeeded", "done")
    assert [warning.partition(" (")[0] for warning in ran.warnings] == ["a report that cannot be read"]
    assert ran.points == []


def test_report_may_not_pass_off_as_a_record_of_another_time_or_version(run):
    ran = run("send", code=SENDER, arguments={"line": '{"type": "tags", "tags": {"a": "b"}, "ts": "x", "v": 9}'})
    assert [record["tags"] for record in ran.records("tags")] == [{"a": "b"}]
    assert ran.warnings == []


def test_line_that_never_ends_is_cut_off_and_the_job_goes_on(run):
    code = """
import os, socket

def flood():
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(os.environ["NEMO_AIRFLOW_EVENTS"])
    try:
        for _ in range(200):
            connection.sendall(b"x" * (1 << 20))
    except OSError as error:
        return "cut off"
"""
    ran = run("flood", code=code)
    assert (ran.end["state"], ran.end["result"]) == ("succeeded", "cut off")
    assert "longer than" in ran.warnings[0]


def test_more_reporting_processes_than_file_descriptors_lose_no_report(run):
    code = """
import os, resource, subprocess, sys

def report(processes):
    pid = os.getppid()
    names = len(os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (names + 5, names + 5))
    code = "import sys; from nemo_airflow.runner import log_metric; log_metric(sys.argv[1], 1); input()"
    started = [
        subprocess.Popen([sys.executable, "-c", code, f"of_{number}"], stdin=subprocess.PIPE)
        for number in range(processes)
    ]
    for process in started:
        process.communicate(b"\\n")
    assert [process.returncode for process in started] == [0] * processes
"""
    ran = run("report", code=code, arguments={"processes": 15})
    assert ran.end["state"] == "succeeded", ran.lines
    assert sorted(name for name, *_ in ran.points) == sorted(f"of_{number}" for number in range(15))


HOSTILE = """
import os
from nemo_airflow.runner import set_tag

NAME = os.fsdecode(b"caf\\xe9.jpg") + "\\0"

def fail():
    raise ValueError(f"cannot read {NAME}")

def tell():
    set_tag("file", NAME)
    set_tag("drawn", "\\U0001f600")
    return {"name": NAME, NAME: ["\\U0001f600", "C:\\\\udce9"]}

def fail_at_length(count):
    raise ValueError("b" + "x" * count + "e")

class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text")

def fail_without_a_text():
    raise Mute()
"""
SHOWN = "caf\\udce9.jpg\\x00"


def texts_of(value):
    if isinstance(value, dict):
        return [text for pair in value.items() for item in pair for text in texts_of(item)]
    if isinstance(value, list):
        return [text for item in value for text in texts_of(item)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("options", [{}, {"launch": ("{python}", "{runner}", "--spawn", "1", "{folder}")}])
def test_file_name_that_is_no_utf8_is_shown_and_every_reader_takes_the_records(run, folder, options):
    ran = run("fail", code=HOSTILE, **options)
    assert ran.end["error"]["message"].endswith(f"cannot read {SHOWN}")
    assert f"cannot read {SHOWN}" in ran.end["error"]["traceback"]
    (folder / "claim").unlink()
    ran = run("tell", **options)
    assert [record["tags"] for record in ran.records("tags")] == [{"file": SHOWN}, {"drawn": "\U0001f600"}]
    assert ran.end["result"] == {"name": SHOWN, SHOWN: ["\U0001f600", "C:\\udce9"]}
    records = [ran.records(kind) for kind in ("start", "environment", "config", "tags", "end")]
    for text in texts_of([*records, json.loads((folder / "end.json").read_text())]):
        assert "\0" not in text
        text.encode("utf-8")


def test_error_of_many_megabytes_is_cut_and_keeps_both_its_ends(run):
    error = run("fail_at_length", code=HOSTILE, arguments={"count": 8 << 20}).end["error"]
    assert len(error["message"]) <= 64 << 10
    assert len(error["traceback"]) <= 256 << 10
    assert error["message"].startswith("bxxx")
    assert error["message"].endswith("xxxe")
    assert "bytes left out" in error["message"]
    assert error["traceback"].startswith("Traceback (most recent call last)")


def test_exception_that_has_no_text_is_named(run):
    error = run("fail_without_a_text", code=HOSTILE).end["error"]
    assert (error["type"], error["message"]) == ("jobs.Mute", "(its text cannot be read: RuntimeError)")
