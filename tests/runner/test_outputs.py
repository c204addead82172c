"""Patterns of files to keep: no pattern, whatever it is, costs a job its end."""

import io
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from nemo_airflow.runner import outputs

CODE = """
import pathlib

def write():
    for name in ("a.txt", "models/b.pt"):
        path = pathlib.Path(name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
"""


@pytest.mark.parametrize(
    "pattern", ["/tmp/x/*.pt", ".", "", "../*.txt", "a/../../*", "~/x", "a/**.txt", "models/[", "\0", "x" * 5000]
)
def test_pattern_that_cannot_be_followed_is_a_warning_and_the_others_are_kept(run, folder, pattern):
    ran = run("write", code=CODE, outputs=(pattern, "*.txt", "**/*.pt"))
    assert (ran.code, ran.end["state"], ran.end["outputs"]["files"]) == (0, "succeeded", 2)
    assert {str(path.relative_to(folder / "outputs")) for path in (folder / "outputs").rglob("*.*")} == {
        "a.txt", "models/b.pt",
    }  # fmt: skip
    if pattern not in ("models/[", "x" * 5000, "\0"):  # these are patterns, that match nothing
        assert [warning.startswith("not all outputs are kept: ") for warning in ran.warnings] == [True]


def test_file_that_cannot_be_copied_is_a_warning(run, folder):
    (folder / "outputs").mkdir()
    (folder / "outputs" / "models").write_text("in the way")
    ran = run("write", code=CODE, outputs=("models/*", "*.txt"))
    assert (ran.end["state"], ran.end["outputs"]["files"]) == ("succeeded", 2)
    assert "models/*" in ran.warnings[0]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ("*.csv", r"outputs='\*.csv' is not a list of patterns"),
        (None, "not a list of patterns"),
        ({"a": 1}, "not a list of patterns"),
        ([Path("a")], "not a text"),
        (["/tmp/results/*.csv"], r"'/tmp/results/\*.csv', which leads out .* output_dir\(\)"),
        (["a", "../b"], "'../b', which leads out"),
        (["."], "matches no file"),
        ([""], "matches no file"),
        (["a**/b"], "stands for folders"),
    ],
)
def test_pattern_that_cannot_match_is_refused(patterns, message):
    with pytest.raises((TypeError, ValueError), match=message):
        outputs.check_patterns(patterns)


def test_usual_patterns_are_taken():
    outputs.check_patterns(["*.csv", "./models/*.pt", "**/*.json", "a..b", "...", "a/**/b", "[ab]?", "a b"])
    outputs.check_patterns(())


def fetch(runner, folder):
    """Returns a process that sends the outputs of a job as they are sent from a pod: from beside the job's folder."""
    beside = folder.parent / "beside"
    beside.mkdir()
    (beside / "outputs").symlink_to(folder / "outputs")
    return subprocess.Popen([sys.executable, str(runner), "--collect", str(beside)], stdout=subprocess.PIPE)


def test_job_waits_for_outputs_that_are_being_fetched_for_longer_than_it_waits_for_somebody(start, folder, runner):
    (folder / "outputs").mkdir()
    (folder / "outputs" / "model.bin").write_bytes(b"x" * (8 << 20))
    job = start("write", code=CODE, stdout=subprocess.DEVNULL, env={"NEMO_AIRFLOW_LINGER": "2"})
    while not (folder / "end.json").exists():
        assert job.poll() is None
        time.sleep(0.02)
    sending = fetch(runner, folder)
    archive = b""
    while data := sending.stdout.read(1 << 16):
        archive += data
        assert job.poll() is None, f"the job was gone after {len(archive)} bytes"
        time.sleep(0.04)
    assert sending.wait(300) == 0
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert tar.getmember("model.bin").size == 8 << 20
    (folder / outputs.COLLECTED).touch()
    assert job.wait(300) == 0


def test_job_does_not_wait_for_ever_for_outputs_whose_fetching_has_stopped(start, folder, runner):
    (folder / "outputs").mkdir()
    (folder / "outputs" / "model.bin").write_bytes(b"x" * (8 << 20))
    job = start("write", code=CODE, stdout=subprocess.DEVNULL, env={"NEMO_AIRFLOW_LINGER": "1"})
    while not (folder / "end.json").exists():
        assert job.poll() is None
        time.sleep(0.02)
    sending = fetch(runner, folder)
    sending.stdout.read(1 << 16)
    assert job.wait(300) == 0
    sending.kill()
    sending.wait()


def test_job_whose_outputs_somebody_has_released_waits_for_another_who_still_fetches_them(start, folder, runner):
    (folder / "outputs").mkdir()
    (folder / "outputs" / "model.bin").write_bytes(b"x" * (4 << 20))
    job = start("write", code=CODE, stdout=subprocess.DEVNULL, env={"NEMO_AIRFLOW_LINGER": "60"})
    while not (folder / "end.json").exists():
        assert job.poll() is None
        time.sleep(0.02)
    sending = fetch(runner, folder)
    archive = sending.stdout.read(1 << 16)
    (folder / outputs.COLLECTED).touch()
    while data := sending.stdout.read(1 << 16):
        archive += data
        if len(archive) < 4 << 20:  # else all of it may be in the pipe, and the sender has ended
            assert job.poll() is None, f"the job was gone after {len(archive)} bytes"
        time.sleep(0.01)
    assert sending.wait(300) == 0
    assert len(archive) > 4 << 20
    assert job.wait(300) == 0
