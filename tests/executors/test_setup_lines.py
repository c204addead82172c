"""Set-up lines on the host of a job: bash runs them, and one that fails fails the job before it has begun."""

import uuid

import pytest
from job_cases import follow, script_job, start

from nemo_airflow import blocking
from nemo_airflow.executors.slurm import SlurmExecutor
from nemo_airflow.executors.ssh import SSHExecutor
from nemo_airflow.job import FailureKind, JobState

SHOW = 'echo "sourced: $SOURCED"'


@pytest.fixture
def run(ssh_conn_id):
    """Runs a job that shows what the set-up left; returns how it ended, and its lines."""
    root = f"~/set-up-{uuid.uuid4().hex[:8]}"
    drivers = []

    def run_job(cls, setup_lines):
        executor = cls(ssh_conn_id=ssh_conn_id, root=root, setup_lines=setup_lines)
        driver, handle = start(executor, script_job(SHOW))
        drivers.append(driver)
        return follow(executor, handle)[:2]

    yield run_job
    for driver in drivers:
        assert blocking.run(driver.shell.run(f"rm -rf {root.removeprefix('~/')}")).code == 0
        blocking.run(driver.close())


def test_set_up_line_may_source_a_file(run):
    outcome, lines = run(SSHExecutor, "source <(echo 'export SOURCED=yes')")
    assert outcome.succeeded
    assert lines == ["sourced: yes"]


def assert_failed_by(outcome, lines, line):
    assert (outcome.status.state, outcome.status.failure) == (JobState.FAILED, FailureKind.USER_ERROR)
    assert outcome.message == f"a line of setup_lines failed: {line}"
    assert "sourced: " not in lines


@pytest.mark.parametrize(
    "lines", ["module load nothing\nexport SOURCED=yes", "export SOURCED=yes\nmodule load nothing"]
)
def test_set_up_line_that_fails_fails_the_job_and_an_unknown_command_names_the_login_profile(run, lines):
    outcome, shown = run(SSHExecutor, lines)
    hint = outcome.message.partition("(exit code 127)")[2]
    assert "begin setup_lines with 'source /etc/profile'" in hint
    assert_failed_by(outcome, shown, f"module load nothing (exit code 127){hint}")


def test_set_up_line_that_fails_fails_the_job_of_a_batch_system(run, lab_slurm):
    assert_failed_by(*run(SlurmExecutor, "ls /nowhere"), "ls /nowhere (exit code 2)")


def test_set_up_line_may_fail_inside_what_it_sources_or_where_it_is_said(run):
    lines = "source <(echo 'false; export SOURCED=yes')\nfalse || true\nif false; then :; fi"
    outcome, shown = run(SSHExecutor, lines)
    assert outcome.succeeded
    assert shown == ["sourced: yes"]
