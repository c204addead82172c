"""The operator packs as the job's side can read, and never fails a task for a choice that was its own."""

import datetime
import itertools
import uuid

import pytest
from airflow.sdk import DAG
from dag_database import register

from nemo_airflow import NemoRunOperator, PatternPackager, Script, SSHExecutor

pytestmark = pytest.mark.usefixtures("airflow_database")

# The system's Python has no zstandard; the job itself gets a path again, by its environment.
WITHOUT_ZSTD = {"python": "/usr/bin/python3", "setup_lines": "export PATH=/nowhere", "env": {"PATH": "/usr/bin:/bin"}}

names = (f"package_format_{number}" for number in itertools.count())


@pytest.fixture
def task(ssh_conn_id, lab_ssh, tmp_path, monkeypatch):
    """Runs a task with that code on the lab's host; returns its state, and the archives of all jobs there."""
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    root = f"zstd-{uuid.uuid4().hex[:8]}"
    (tmp_path / "code").mkdir()

    def run(text, *, format=None, deferrable=True, **executor):
        (tmp_path / "code" / "text").write_text(text)
        with DAG(next(names), schedule=None, start_date=datetime.datetime(2026, 1, 1)) as dag:
            NemoRunOperator(
                task_id="t", config=Script(inline=f"grep -q {text} text"), tracker=None, deferrable=deferrable,
                job_executor=SSHExecutor(ssh_conn_id=ssh_conn_id, root=f"~/{root}", **executor),
                packager=PatternPackager(path=str(tmp_path / "code"), format=format),
            )  # fmt: skip
        register(dag)
        [ti] = dag.test().get_task_instances()
        return ti.state, sorted(lab_ssh.run(f"cd {root}/jobs && ls -rt */package.* | cut -d. -f2-").split())

    run.shell = lambda script: lab_ssh.run(f"cd {root} && {script}")
    yield run
    lab_ssh.run(f"rm -rf {root}")


def test_what_is_new_is_zstd_once_a_job_has_found_that_it_reads_it(task):
    assert task("one") == ("success", ["tar.gz"])
    assert task("two") == ("success", ["tar.gz", "tar.zst"])


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_job_whose_machine_turns_out_not_to_read_it_is_submitted_again(task, deferrable, capfd):
    assert task("one", **WITHOUT_ZSTD) == ("success", ["tar.gz"])
    task.shell("cd zstd && for mark in *.no; do mv $mark ${mark%.no}.yes; done")
    assert task("two", deferrable=deferrable, **WITHOUT_ZSTD) == ("success", ["tar.gz", "tar.gz", "tar.zst"])
    assert task.shell("ls zstd | cut -d. -f2").split() == ["no", "yes"]
    assert "submitting it again as tar.gz" in "".join(capfd.readouterr())


def test_a_format_that_the_author_gave_is_kept_to(task, capfd):
    assert task("one", format="tar.zst", **WITHOUT_ZSTD) == ("failed", ["tar.zst"])
    printed = "".join(capfd.readouterr())
    assert "failed (package)" in printed
    assert "install the package zstandard or the program zstd" in printed
