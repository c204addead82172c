"""Commands of a scheduler on the machine where Airflow itself runs, without SSH: here Slurm's, as the tests' user."""

from pathlib import Path

import pytest
from job_cases import follow, script_job, start

from nemo_airflow import SlurmExecutor, blocking
from nemo_airflow.exceptions import BackendUnavailable
from nemo_airflow.job import JobState
from nemo_airflow.ssh.local import LocalShell


@pytest.fixture
def executor(lab, lab_slurm, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])
    return SlurmExecutor(ssh_conn_id=None, account="root", root=str(tmp_path / "a root"), grace=1)


def test_job_is_submitted_followed_and_its_outputs_come_back(executor, tmp_path):
    driver, handle = start(executor, script_job('echo "the job"; echo 1 >"$NEMO_AIRFLOW_OUTPUT_DIR/model.bin"'))
    outcome, lines, _ = follow(executor, handle)
    assert outcome.succeeded, outcome
    assert lines == ["the job"]
    assert blocking.run(driver.collect(handle, tmp_path / "into"), 300) == [Path("model.bin")]
    assert (tmp_path / "into/model.bin").read_text() == "1\n"
    blocking.run(driver.remove([handle]))
    assert not (tmp_path / "a root/jobs" / handle.key).exists()


def test_job_is_cancelled(executor):
    driver, handle = start(executor, script_job("sleep 600"))
    blocking.run(driver.cancel([handle]), 300)
    assert follow(executor, handle)[0].status.state is JobState.CANCELLED


async def test_command_that_is_silent_for_too_long_is_ended():
    with pytest.raises(BackendUnavailable, match="has not answered for"):
        await LocalShell().run("sleep 60", silence=0.2)


async def test_transfer_that_fails_says_why():
    async def read():
        async with LocalShell().receive("echo one; echo no disk >&2; exit 3") as stream:
            return b"".join([piece async for piece in stream.pieces()])

    with pytest.raises(BackendUnavailable, match="no disk"):
        await read()


async def test_what_is_sent_arrives(tmp_path):
    async def data():
        for _ in range(100):
            yield bytes(100_000)

    answer = await LocalShell().send(f"cat >{tmp_path}/file; wc -c <{tmp_path}/file", data())
    assert (answer.code, answer.text.strip()) == (0, "10000000")
