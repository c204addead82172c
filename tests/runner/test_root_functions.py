"""Functions that return before they have run: coroutines are awaited, generators are refused."""

import signal

import pytest
from runner_cases import Ran, read_until

CODE = """
import asyncio, time

async def train(n=1):
    await asyncio.sleep(0)
    print("trained", flush=True)
    return n + 1

async def fail():
    raise RuntimeError("boom")

def start():
    return train(2)

async def clean_up():
    try:
        print("waiting", flush=True)
        await asyncio.sleep(600)
    finally:
        print("cleaned up", flush=True)

def batches():
    print("ran")
    yield 1

async def async_batches():
    print("ran")
    yield 1

def hand_on():
    return batches()
"""


@pytest.mark.parametrize("launch", [(), ("{python}", "{runner}", "--spawn", "1", "{folder}")])
@pytest.mark.parametrize(("function", "result"), [("train", 2), ("start", 3)])
def test_coroutine_is_awaited_and_its_value_is_the_jobs(run, function, result, launch):
    ran = run(function, code=CODE, launch=launch)
    assert (ran.end["state"], ran.end["result"], ran.warnings) == ("succeeded", result, [])
    assert [line.removeprefix("[0] ") for line in ran.lines] == ["trained"]


def test_error_in_a_coroutine_fails_the_job(run):
    error = run("fail", code=CODE).end["error"]
    assert (error["type"], error["message"]) == ("RuntimeError", "boom")


def test_cancel_lets_a_coroutine_clean_up(start, folder):
    process = start("clean_up", code=CODE, grace=30.0)
    stream = read_until(process, b"waiting")
    process.send_signal(signal.SIGTERM)
    ran = Ran(process.wait(300), stream + process.stdout.read(), folder)
    assert (ran.lines, ran.end["state"]) == (["waiting", "cleaned up"], "cancelled")


@pytest.mark.parametrize("function", ["batches", "async_batches", "hand_on"])
def test_generator_fails_the_job_and_says_that_nothing_has_run(run, function):
    ran = run(function, code=CODE)
    assert (ran.end["state"], ran.end["failure"], ran.end["exit_code"]) == ("failed", "user_error", 1)
    assert "batches', which was never iterated" in ran.end["error"]["message"]
    assert "ran" not in ran.lines


def test_generator_as_an_argument_is_the_functions_own_affair(run):
    code = CODE + "\ndef total(numbers):\n    return sum(numbers)\n"
    assert run("total", code=code, arguments={"numbers": {"_target_": "jobs:batches"}}).end["result"] == 1
