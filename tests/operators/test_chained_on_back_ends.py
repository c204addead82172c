"""Attempts follow each other on real back-ends: through the shared store, and as Slurm preempts and warns."""

import threading
import uuid
from pathlib import Path

import checkpoint_jobs as jobs
import pytest
from lab.signed_store import signed_store
from mlflow import MlflowClient
from operator_dags import new_dag

from nemo_airflow import Config, MLflowTracker, NemoRunOperator, PatternPackager
from nemo_airflow.exceptions import JobFailed
from nemo_airflow.executors import DockerExecutor, SlurmExecutor
from nemo_airflow.job import FailureKind

HERE = str(Path(__file__).parent)
ROOT = "~/chained"


@pytest.fixture
def attempt(task_context, tmp_path, monkeypatch, mlflow_database):
    """Returns a function that does a try of one task, and one that returns its runs in MLflow."""
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    client = MlflowClient(mlflow_database)
    dag = new_dag()

    def execute(config, executor, max_chain=20):
        operator = NemoRunOperator(
            task_id="t",
            config=config,
            job_executor=executor,
            packager=PatternPackager(path=HERE, include=["/checkpoint_jobs.py"]),
            tracker=MLflowTracker(tracking_uri=client.tracking_uri),
            max_chain=max_chain,
            deferrable=False,
        )
        return operator.execute(task_context(dag))

    def runs():
        experiment = client.get_experiment_by_name(dag.dag_id).experiment_id
        which = "tags.`nemo_airflow.plan_digest` LIKE '%'"
        return client.search_runs([experiment], which, order_by=["attributes.start_time ASC"])

    return execute, runs


def test_containers_continue_each_other_through_the_store_and_slurm_continues_them(
    attempt, lab_docker, lab_image, gateway, lab_slurm, ssh_conn_id, tmp_path, monkeypatch
):
    execute, runs = attempt
    config = Config(jobs.add_up, steps=6, warned_before=[1, 3], size=2 << 20)
    with signed_store() as bucket:
        monkeypatch.setenv("NEMO_AIRFLOW_STORE", f"s3://direct@bucket/{tmp_path.name}")
        monkeypatch.setenv("AIRFLOW_CONN_DIRECT", bucket.connection)
        docker = DockerExecutor(
            container_image=lab_image, docker_url=lab_docker, outputs_route=bucket.listen(gateway), grace=20
        )
        with pytest.raises(JobFailed) as failed:
            execute(config, docker, max_chain=2)
        assert failed.value.kind is FailureKind.PREEMPTED
        assert sum(size for _, size in bucket.fetches) >= 2 << 20  # by the second container itself
        slurm = SlurmExecutor(ssh_conn_id=ssh_conn_id, root=ROOT, outputs_route=bucket.listen("127.0.0.1"), grace=20)
        assert execute(config, slurm) == {"first": 3, "total": 15}
    assert [run.data.tags["nemo_airflow.backend"] for run in runs()] == ["docker", "slurm"]


def preempt(lab_ssh, root):
    """Has the first attempt preempted by an urgent job, and the second one warned, as '--signal' does."""
    urgent = "sbatch -p urgent -w n4 --exclusive --wrap 'sleep 1'"
    warning = f"scancel --batch --signal=USR1 $(cut -d ' ' -f 1 $(ls -t {root}/jobs/*/jobid | head -n 1))"
    for number, command in enumerate((urgent, warning)):
        waits = f"grep -q 'attempt {number} waits' {root}/jobs/*/log"
        lab_ssh.run(f"for i in $(seq 240); do {waits} && break; sleep 1; done; {command}")


@pytest.mark.parametrize("requeue", [False, True])
def test_a_preemption_by_slurm_and_its_warning_are_attempts_of_one_try(
    attempt, lab_ssh, ssh_conn_id, lab_slurm, requeue
):
    execute, runs = attempt
    root = f"{ROOT}-{uuid.uuid4().hex[:8]}"  # another test may run at this moment
    slurm = SlurmExecutor(
        ssh_conn_id=ssh_conn_id, root=root, nodelist="n4", exclusive=True, requeue=requeue, grace=20
    )  # fmt: skip
    others = threading.Thread(target=preempt, args=(lab_ssh, root), daemon=True)
    others.start()
    assert execute(Config(jobs.stop_when_told, times=2), slurm) == 2
    others.join(300)
    lab_ssh.run(f"rm -rf {root}")
    [run] = runs()
    assert run.info.status == "FINISHED"
    # Slurm itself starts a job again that it may, which then finds its own folder.
    assert len(run.data.tags["nemo_airflow.attempts"].split()) == (2 if requeue else 3)
