"""The runner masks a job's secrets in all that the job writes and reports."""

import json
import os
import subprocess
import sys

import pytest

from nemo_airflow.runner.masking import Masker

TOKEN = "S3cr3t/t0ken+value"
KEY = 'BEGIN\n"a\\b"\nEND'


def masker(*secrets):
    return Masker({"env": {str(n): text for n, text in enumerate(secrets)},
                   "secrets": [["env", str(n), 0, len(text)] for n, text in enumerate(secrets)]})  # fmt: skip


def cut(data, size):
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_secret_is_masked_wherever_the_output_is_cut(size):
    text = f"a {TOKEN}{TOKEN} b\n{KEY}\n{TOKEN[:-1]}\n{TOKEN[0]}{TOKEN}\n".encode()
    mask = masker(TOKEN, KEY)
    out = b"".join([*map(mask.feed, cut(text, size)), mask.finish()])
    assert out == f"a ****** b\n***\n{TOKEN[:-1]}\n{TOKEN[0]}***\n".encode()


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_a_secret_that_begins_as_another_does_is_masked_whole(size):
    mask = masker("abcab", "abcabcde", "bcabx")
    out = b"".join([*map(mask.feed, cut(b"abcab|abcabcde|abcabx|", size)), mask.finish()])
    assert out == b"***|***|***x|"


def test_text_that_is_no_secret_is_passed_on_at_once():
    mask = masker(TOKEN)
    assert mask.feed(b"progress 10 %") == b"progress 10 %"
    assert mask.feed(b" S3") == b" "
    assert mask.feed(b" and on") == b"S3 and on"


def test_a_secret_is_masked_as_python_json_and_addresses_write_it():
    mask = masker(TOKEN, KEY)
    from urllib.parse import quote

    for shown in (repr([KEY]), json.dumps({"k": KEY}), f"https://u:{quote(TOKEN, safe='')}@h", quote(TOKEN)):
        masked = (mask.feed(shown.encode()) + mask.finish()).decode()
        assert "***" in masked
        assert "BEGIN" not in masked
        assert "t0ken" not in masked


def test_a_password_that_is_a_word_of_the_runner_changes_no_record():
    mask = masker("succeeded", "my.mod:train")
    end = {"state": "succeeded", "result": ["succeeded"], "error": None, "outputs": {"files": 1}}
    assert mask.fields("end", end) == {**end, "result": ["***"]}
    plan = {"version": 1, "root": {"_target_": "my.mod:train", "a": "my.mod:train", "succeeded": 1}}
    shown = mask.fields("config", {"plan": plan})["plan"]["root"]
    assert shown == {"_target_": "my.mod:train", "a": "***", "succeeded": 1}


def test_a_job_without_secrets_is_written_as_it_is():
    assert not masker()


def test_the_log_the_records_and_the_end_of_a_job_are_masked(tmp_path):
    plan = {"version": 1, "root": {"_target_": "builtins:print", "_args_": [f"token {TOKEN}", TOKEN]}}
    job = {
        "version": 1, "key": "k", "name": "n", "plan": plan, "allow": ["builtins:print"], "env": {"HF": TOKEN},
        "secrets": [["env", "HF", 0, len(TOKEN)]], "sample_interval": 0,
    }  # fmt: skip
    (tmp_path / "job.json").write_text(json.dumps(job))
    done = subprocess.run(
        [sys.executable, "-m", "nemo_airflow.runner", str(tmp_path)],
        capture_output=True, cwd=os.getcwd(), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"token *** ***\n" in done.stdout
    assert TOKEN.encode() not in done.stdout + done.stderr
    records = [json.loads(line.partition(b"\x1e")[2]) for line in done.stdout.splitlines() if b"\x1e" in line]
    resolved = next(record["plan"] for record in records if record["type"] == "config")
    assert resolved["root"]["_args_"] == ["token ***", "***"]
