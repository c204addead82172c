"""A login whose start-up files print, as those of many clusters do, on the lab's real sshd and Slurm."""

import os
from pathlib import Path

import pytest
from job_cases import follow, script_job, start
from lab.connections import ssh_connection
from lab.logins import own_login

from nemo_airflow import blocking
from nemo_airflow.executors import SlurmExecutor, SSHExecutor
from nemo_airflow.store.ssh import SSHPlace

NOISE = """echo "Welcome to the cluster: ünïcode, 'quotes' and `backticks`" 2>/dev/null
printf 'a line without its end, and {"json": 1}'
echo "and more, on the other stream" >&2
"""


@pytest.fixture(scope="module")
def noisy(lab, lab_slurm):
    """Id of a connection as a user of one's own, whose ~/.bashrc prints; on this machine, as the lab is."""
    with own_login(lab, lab_slurm, NOISE) as login:
        os.environ["AIRFLOW_CONN_NOISY"] = ssh_connection(login.ssh)
        yield "noisy"


@pytest.mark.parametrize("kind", [SSHExecutor, SlurmExecutor])
def test_job_of_a_login_that_prints_runs_and_its_outputs_come_back(noisy, kind, tmp_path):
    executor = kind(ssh_conn_id=noisy)
    driver, handle = start(executor, script_job('echo "the job"; echo 1 >"$NEMO_AIRFLOW_OUTPUT_DIR/model.bin"'))
    try:
        outcome, lines, _ = follow(executor, handle)
        assert outcome.succeeded
        assert lines == ["the job"]
        assert blocking.run(driver.collect(handle, tmp_path), 300) == [Path("model.bin")]
        assert (tmp_path / "model.bin").read_text() == "1\n"
    finally:
        blocking.run(driver.close())


def test_file_of_a_store_behind_a_login_that_prints_comes_back_as_it_was(noisy, tmp_path):
    place = SSHPlace(noisy, "store")
    data = os.urandom(100_000)
    place.write("a/file", data)
    assert place.get("a/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == data
    assert place.read("a/file") == data
