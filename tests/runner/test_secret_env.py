"""The runner gives a job its secrets, deletes the file that brought them, and masks their values."""

import json
import signal

import pytest
from runner_cases import read_until

from nemo_airflow.runner.masking import Masker

TOKEN = "S3cr3t/t0ken+value"
NAMED = {"TOKEN": "<secret of connection 'hf'>"}
CODE = """
import os, sys, time, pathlib

def tell(kept=False):
    assert os.path.exists(os.environ["NEMO_AIRFLOW_OUTPUT_DIR"] + "/../secrets.json") == kept
    print("it is", os.environ["TOKEN"])
    return os.environ["TOKEN"]

def wait():
    print("waiting", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def bring(folder):
    def write(values):
        path = folder / "secrets.json"
        path.write_text(json.dumps(values))
        path.chmod(0o600)
        return path

    return write


def test_the_file_is_gone_before_the_job_begins_and_its_value_is_masked(run, bring):
    path = bring({"TOKEN": TOKEN})
    ran = run("tell", code=CODE, secret_env=NAMED)
    assert (ran.code, ran.lines) == (0, ["it is ***"])
    assert ran.end["result"] == "***"
    assert not path.exists()


def test_a_secret_of_the_environment_is_masked_too(run):
    ran = run("tell", code=CODE, secret_env=NAMED, env={"TOKEN": TOKEN})
    assert (ran.code, ran.lines) == (0, ["it is ***"])


def test_processes_of_a_launcher_have_the_secrets_and_leave_none_in_a_file(run, bring, folder):
    bring({"TOKEN": TOKEN})
    launch = ("{python}", "{runner}", "--spawn", "2", "{folder}")
    ran = run("tell", code=CODE, secret_env=NAMED, launch=launch)
    assert ran.code == 0, ran.lines
    assert sorted(ran.lines) == ["[0] it is ***", "[1] it is ***"]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"0.json", "1.json"} <= {path.name for path in files}  # how each process ended, with its result
    assert [path for path in files if TOKEN.encode() in path.read_bytes()] == []


def test_a_job_whose_secret_has_not_arrived_does_not_begin(run):
    ran = run("tell", code=CODE, secret_env=NAMED)
    assert ran.end["error"]["message"] == (
        "the secret TOKEN (secret of connection 'hf') has not arrived: run the task again"
    )
    assert ran.lines == []


def test_the_file_of_a_job_that_may_be_started_again_stays_until_the_job_has_ended(run, start, bring, folder):
    path = bring({"TOKEN": TOKEN})
    owner = {"NEMO_AIRFLOW_OWNER": "slurm:1"}
    process = start("wait", code=CODE, secret_env=NAMED, env=owner)
    read_until(process, b"waiting")
    process.send_signal(signal.SIGTERM)  # as before a batch system starts the job again
    process.communicate(timeout=300)
    assert path.stat().st_mode & 0o777 == 0o600
    ran = run("tell", code=CODE, secret_env=NAMED, env=owner, arguments={"kept": True})
    assert ran.lines[-1] == "it is ***"
    assert not path.exists()


def test_a_cancelled_job_leaves_no_file(start, bring, folder):
    path = bring({"TOKEN": TOKEN})
    process = start("wait", code=CODE, secret_env=NAMED, env={"NEMO_AIRFLOW_OWNER": "slurm:1"})
    read_until(process, b"waiting")
    (folder / "cancel").touch()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=300)
    assert not path.exists()


def test_a_job_whose_file_of_secrets_cannot_be_read_does_not_begin(run, folder):
    (folder / "secrets.json").mkdir()
    ran = run("tell", code=CODE, secret_env=NAMED)
    assert "cannot be read" in ran.end["error"]["message"]


def test_lines_of_a_secret_are_masked_one_by_one_and_short_ones_are_not():
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\n}\n-----END KEY-----\n"
    mask = Masker({}, [key, "1234", "12345"])
    out = mask.feed(f"key: MIIEvQIBADANBg }} 1234 12345 {key.strip()}.\n".encode()) + mask.finish()
    assert out == b"key: *** } 1234 *** ***.\n"


def test_nothing_is_masked_of_a_job_whose_secrets_are_too_short_to_be_told_apart():
    assert not Masker({}, ["a", ""])
