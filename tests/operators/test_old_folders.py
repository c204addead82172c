"""Folders of ended jobs are deleted by a command, and no others: on a local disk, over SSH and on Slurm."""

import datetime
import itertools
import json
import os
import time

import pytest
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import DAG, task
from airflow.utils.session import create_session
from dag_database import register

from nemo_airflow import LocalExecutor, SlurmExecutor, SSHExecutor, blocking, cli
from nemo_airflow.installation import run_labels
from nemo_airflow.job import Job, JobState
from nemo_airflow.packaging import PackageStore
from nemo_airflow.packaging.archive import write_archive
from nemo_airflow.ssh.shell import Shell
from nemo_airflow.testing.services import service_of

pytestmark = pytest.mark.usefixtures("airflow_database")

names = (f"folders_test_{number}" for number in itertools.count())


@pytest.fixture(
    params=["local", pytest.param("ssh", marks=pytest.mark.lab), pytest.param("slurm", marks=pytest.mark.lab)]
)
def executor(request, tmp_path):
    if request.param == "local":
        return LocalExecutor(root=str(tmp_path / "root" / "jobs"), grace=1)
    conn_id = request.getfixturevalue("ssh_conn_id")
    root = f"~/folders-{os.urandom(4).hex()}"
    if request.param == "ssh":
        return SSHExecutor(ssh_conn_id=conn_id, root=root, grace=1)
    request.getfixturevalue("lab_slurm")
    return SlurmExecutor(ssh_conn_id=conn_id, root=root, grace=1)


@pytest.fixture
def on_host(executor):
    """Runs a script in the folder above the jobs' own, on the machine where they are."""

    async def answer(script):
        shell = Shell(executor.ssh_conn_id)
        try:
            return (await shell.run(f"cd {executor.root}\n{script}")).text
        finally:
            await shell.close()

    if executor.kind == "local":
        return lambda script: os.popen(f"cd {os.path.dirname(executor.root)}\n{script}").read()
    return lambda script: blocking.run(answer(script), 300)


@pytest.fixture
def dag_run():
    """A DAG run whose tasks have ended."""
    with DAG(next(names), schedule=None, start_date=datetime.datetime(2026, 1, 1)) as dag:
        for name in ("done", "waiting"):
            task(task_id=name)(lambda: None)()
    register(dag)
    run = dag.test()
    with create_session() as session:
        found = session.query(TaskInstance).filter_by(dag_id=run.dag_id, run_id=run.run_id, task_id="waiting").one()
        found.state = "deferred"
    return run


def wait_until(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_folders_of_ended_jobs_whose_tasks_have_ended_are_deleted(
    executor, on_host, dag_run, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    package = write_archive({f"code/{n}.py": b"x" for n in range(50)}, PackageStore(tmp_path / "home" / "packages"))
    driver = executor.connect()

    def submit(name, seconds=0.0, **changes):
        labels = {
            "dag_id": dag_run.dag_id, "run_id": dag_run.run_id, "task_id": "done", "map_index": "-1",
            "try_number": "1", **run_labels(dag_run.run_after), **changes,
        }  # fmt: skip
        plan = {"version": 1, "root": {"_target_": "time:sleep", "_args_": [seconds]}}
        key = f"folders-{name}-{os.urandom(3).hex()}"
        job = Job(key=key, name="sleep", plan=plan, allow=("time:sleep",), labels=labels, package=package)
        return blocking.run(driver.submit(executor.render(job)), 300)

    def states(handles):
        return {status.state for status in blocking.run(service_of(driver).status(handles), 300).values()}

    ended = [submit(f"ended-{n}") for n in range(5)]
    others = [submit("waited-for", task_id="waiting"), submit("another-airflow", dag_id="of_another_airflow")]
    running = submit("running", 600.0)
    try:
        wait_until(lambda: states([*ended, *others]) == {JobState.SUCCEEDED})
        on_host("mkdir -p jobs/not-ours 'jobs/a name'; echo x >jobs/not-ours/file; echo {} >'jobs/a name/job.json'")
        kept = {"not-ours", "a name", running.key, *(handle.key for handle in others)}
        fields = {"kind": executor.kind, "root": executor.root}
        if executor.kind != "local":
            fields["ssh_conn_id"] = executor.ssh_conn_id

        def reap(*options):
            assert cli.main(["reap", json.dumps(fields), "--folders", *options]) == 0
            return capsys.readouterr().out

        def there():
            return set(on_host("ls jobs").splitlines())

        everything = kept | {handle.key for handle in ended}
        assert reap().endswith("0 folders deleted\n")  # younger than 14 days
        assert reap("--older-than", "0", "--dry-run").endswith("5 folders found\n")
        assert there() == everything
        on_host(f"find jobs/{ended[0].key} -exec touch -d '20 days ago' {{}} +")
        assert reap().splitlines()[-1] == "1 folder deleted"
        assert there() == everything - {ended[0].key}
        assert reap("--older-than", "0").splitlines()[-1] == "4 folders deleted"
        assert there() == kept
        assert states([running]) <= {JobState.RUNNING, JobState.PENDING}
    finally:
        blocking.run(driver.cancel([running]), 300)
        blocking.run(driver.close())


def test_a_back_end_without_folders_says_so(capsys):
    assert cli.main(["reap", "kind: docker\ncontainer_image: image", "--folders"]) == 2
    assert "keeps no folders of jobs: ended jobs are removed after the executor's ttl" in capsys.readouterr().err
