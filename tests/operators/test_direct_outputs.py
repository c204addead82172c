"""Outputs go from the job straight into the shared store, and from there, by the store itself, into the run."""

import dataclasses
import hashlib
import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import boto3
import direct_jobs as jobs
import pytest
from airflow.sdk import DAG
from lab.signed_store import KEY, SECRET, signed_store
from mlflow import MlflowClient
from mlflow.store.artifact import s3_artifact_repo

from nemo_airflow import Artifact, Config, LocalExecutor, MLflowTracker, NemoRunOperator, Script, artifact
from nemo_airflow.artifacts import fetch_artifact
from nemo_airflow.cli import main
from nemo_airflow.exceptions import JobFailed
from nemo_airflow.executors import DockerExecutor, KubernetesExecutor, SlurmExecutor, SSHExecutor
from nemo_airflow.store import open_store
from nemo_airflow.store.trees import get_tree

STORE = "s3://direct@bucket/store"


@pytest.fixture(scope="module")
def bucket():
    with signed_store() as running:
        yield running


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch, bucket):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NEMO_AIRFLOW_STORE", STORE)
    monkeypatch.setenv("AIRFLOW_CONN_DIRECT", bucket.connection)
    for name, value in {
        "MLFLOW_S3_ENDPOINT_URL": bucket.url,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    for key in bucket.list_keys():
        bucket.client.delete_object(Bucket="bucket", Key=key)
    bucket.forget()
    yield
    # Both outlive the variables that they were made from: later tests of this process would have our login.
    boto3.DEFAULT_SESSION = None
    s3_artifact_repo._cached_get_s3_client.cache_clear()


@pytest.fixture(scope="module")
def database(new_mlflow, tmp_path_factory):
    return new_mlflow(tmp_path_factory.mktemp("mlflow") / "mlflow.db")


@pytest.fixture
def task(task_context, defaults, tmp_path, database):
    """Returns a function that makes the task, with the context in which it is executed."""

    def made(config, root="s3://bucket/mlflow", **arguments):
        client = MlflowClient(database)
        if client.get_experiment_by_name(tmp_path.name) is None:
            client.create_experiment(tmp_path.name, root or f"file://{tmp_path}/artifacts")
        tracked = {"tracker": MLflowTracker(tracking_uri=database), "experiment": tmp_path.name, "defer_after": 600}
        with DAG("direct", schedule=None) as dag:
            operator = NemoRunOperator(config=config, **{"task_id": "t", **defaults, **tracked, **arguments})
        return operator, task_context(dag)

    return made


@pytest.fixture
def run_of(database, tmp_path):
    """Returns a function that returns MLflow's client, and the job's run."""

    def find():
        client = MlflowClient(database)
        runs = client.search_runs([client.get_experiment_by_name(tmp_path.name).experiment_id])
        (run,) = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
        return client, run

    return find


def digests_of(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


class DistantExecutor(LocalExecutor):
    """Runs jobs here as if their disk were elsewhere."""

    shares_filesystem = False


@pytest.fixture
def lines(monkeypatch):
    """The lines of the task's log."""
    found = []
    logger = SimpleNamespace(
        **{name: lambda text, *args: found.append(text % args) for name in ("info", "warning", "error", "debug")}
    )
    monkeypatch.setattr(NemoRunOperator, "log", logger)
    return found


def outputs_of(root):
    (job,) = root.glob("direct-*")
    made = digests_of(job / "outputs")
    if "nemo_airflow/own.txt" in made:
        made["job_nemo_airflow/own.txt"] = made.pop("nemo_airflow/own.txt")
    return made


@pytest.fixture
def kept(run_of, tmp_path):
    """Returns a function that returns the digests of what the run has, and of what the store has of it."""

    def find():
        client, run = run_of()
        get_tree(open_store(STORE), run.data.tags["nemo_airflow.outputs_digest"], tmp_path / "of store")
        client.download_artifacts(run.info.run_id, "", str(tmp_path / "of run"))
        in_run = digests_of(tmp_path / "of run")
        own = {path: sha256 for path, sha256 in in_run.items() if not path.startswith("nemo_airflow/")}
        return own, digests_of(tmp_path / "of store")

    return find


def test_outputs_are_in_store_and_run_by_their_digests_and_pass_no_worker(task, tmp_path, root, bucket, lines, kept):
    operator, context = task(Config(jobs.make))
    operator.execute(context)
    large = [key for key, size in bucket.reads if size >= 1 << 20]
    assert large == []
    made = outputs_of(root)
    assert len(made) == 35
    assert kept() == (made, made)
    assert bucket.list_keys("store/incoming/") == []
    assert sum("sent its outputs to the store itself" in line for line in lines) == 1
    assert [line for line in lines if "cannot be kept" in line] == [
        "these outputs cannot be kept, all others are: gone links to nothing, which is not there"
    ]


@pytest.mark.parametrize("executor", [LocalExecutor, DistantExecutor])
def test_run_whose_files_are_not_in_a_bucket_has_the_outputs_too(task, tmp_path, root, bucket, executor, kept):
    operator, context = task(Config(jobs.make), root=None, job_executor=executor(root=str(root)))
    operator.execute(context)
    made = outputs_of(root)
    assert kept() == (made, made)
    assert bucket.list_keys("store/incoming/") == []
    # Nothing has been put into the store a second time.
    assert len(bucket.list_keys("store/blobs/")) == len({key for key, _, _ in bucket.posts}) - 1


def test_store_in_a_mounted_folder_gets_the_outputs_from_the_job(task, tmp_path, root, monkeypatch, run_of, lines):
    monkeypatch.setenv("NEMO_AIRFLOW_STORE", str(tmp_path / "store"))
    executor = DistantExecutor(root=str(root), outputs_route=str(tmp_path / "store"))
    operator, context = task(Config(jobs.make), root=None, job_executor=executor)
    operator.execute(context)
    client, run = run_of()
    digest = run.data.tags["nemo_airflow.outputs_digest"]
    get_tree(open_store(str(tmp_path / "store")), digest, tmp_path / "of store")
    assert digests_of(tmp_path / "of store") == outputs_of(root)
    assert client.list_artifacts(run.info.run_id, "parts")
    assert sum("sent its outputs to the store itself" in line for line in lines) == 1
    assert list((tmp_path / "store" / "incoming").iterdir()) == []


def test_artifacts_that_went_straight_to_the_store_are_fetched_on_another_machine(
    task, tmp_path, root, monkeypatch, capsys, run_of, database
):
    operator, context = task(Config(jobs.make))
    made = operator.execute(context)
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "another"))
    model, parts, small = (Artifact.from_json(made[name]) for name in ("model", "parts", "small"))
    (job,) = root.glob("direct-*")
    for each, path in ((model, "model.bin"), (parts, "parts"), (small, "run.sh")):
        assert artifact(fetch_artifact(each, tmp_path / "fetched")).digest == artifact(job / "outputs" / path).digest
    _, run = run_of()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    assert main(["fetch", f"{run.info.run_id}/model", "--into", str(tmp_path / "by hand")]) == 0
    assert (tmp_path / "by hand" / "model.bin").stat().st_size == 33 << 20


def test_artifacts_that_went_straight_to_the_store_are_given_to_the_next_job(task, tmp_path, root, monkeypatch, store):
    operator, context = task(Config(jobs.make))
    made = operator.execute(context)
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "another"))
    store.clear()
    given = {name: Artifact.from_json(made[name]) for name in ("model", "parts")}
    operator, context = task(Config(jobs.read, **given), task_id="read")
    assert operator.execute(context) == {"model": given["model"].digest, "files": 30}


def test_job_has_neither_the_credentials_nor_the_signature_and_no_record_shows_it(
    task, tmp_path, root, bucket, lines, run_of, database
):
    operator, context = task(Config(jobs.dump_environment))
    pushed = []
    context["ti"].xcom_push = lambda **value: pushed.append(value)
    assert operator.execute(context) == {"has_grant": False}
    assert [key for key, _, status in bucket.posts if status == 204]
    (job,) = root.glob("direct-*")
    client, run = run_of()
    client.download_artifacts(run.info.run_id, "", str(tmp_path / "of run"))
    files = [path for folder in (job, tmp_path) for path in folder.rglob("*") if path.is_file()]
    files.append(Path(database.removeprefix("sqlite:///")))
    texts = [path.read_bytes() for path in files]
    texts.append(json.dumps([pushed, lines, dict(context["task_state_store"])]).encode())
    for hidden in (SECRET, *bucket.signatures):
        assert not [text for text in texts if hidden.encode() in text]
    assert any(b"NEMO_AIRFLOW_OUTPUTS_GRANT=<secret of the shared store" in text for text in texts)


def test_checkpoint_that_was_announced_is_kept_when_the_node_and_its_disk_are_lost(
    task, tmp_path, bucket, lines, monkeypatch, kept
):
    monkeypatch.setenv("NEMO_AIRFLOW_LOST_AFTER", "1")
    marker = tmp_path / "go on"
    operator, context = task(Config(jobs.lose_the_node, str(marker)))
    has_come = lambda: any("manifest" in key for key, _, _ in bucket.posts)  # noqa: E731
    threading.Thread(target=touch_when, args=(marker, has_come)).start()
    with pytest.raises(JobFailed):
        operator.execute(context)
    in_run, in_store = kept()
    jobs.write_file(tmp_path / "checkpoint" / "weights.bin", 33 << 20)
    digest = hashlib.sha256((tmp_path / "checkpoint" / "weights.bin").read_bytes()).hexdigest()
    assert in_run == in_store == {"checkpoint/weights.bin": digest}
    assert [line for line in lines if "log_artifact()" in line]
    assert bucket.list_keys("store/incoming/") == []


def touch_when(path, condition):
    while not condition():
        time.sleep(0.05)
    path.touch()


@pytest.mark.parametrize(
    ("route", "reason"),
    [
        ("http://127.0.0.1:9", "cannot be reached from the job: Connection refused"),
        ("http://no-such-host.invalid", "cannot be reached from the job"),
        ("/mnt/not-there", "leads no job to the store"),
    ],
)
def test_store_that_the_job_does_not_reach_costs_one_line_and_the_worker_collects(
    task, tmp_path, root, bucket, lines, route, reason, kept
):
    operator, context = task(Config(jobs.make), job_executor=LocalExecutor(root=str(root), outputs_route=route))
    operator.execute(context)
    assert bucket.posts == []
    made = outputs_of(root)
    assert kept() == (made, made)
    assert [reason in line for line in lines if "straight to the store" in line or "leads no job" in line] == [True]


@pytest.mark.parametrize(("config", "route"), [(Config(jobs.make), "worker"), (Config(jobs.make, large=1000), "auto")])
def test_outputs_go_by_the_worker_where_that_is_asked_for_or_they_are_small(
    task, tmp_path, root, bucket, lines, config, route, kept
):
    operator, context = task(config, job_executor=LocalExecutor(root=str(root), outputs_route=route))
    operator.execute(context)
    assert bucket.posts == []
    made = outputs_of(root)
    assert kept() == (made, made)
    assert not [line for line in lines if "straight" in line]


def test_piece_that_is_damaged_in_the_store_has_the_outputs_collected_from_the_back_end(
    task, tmp_path, root, bucket, lines, kept
):
    bucket.damage = True
    operator, context = task(Config(jobs.make))
    operator.execute(context)
    bucket.damage = False
    made = outputs_of(root)
    assert kept() == (made, made)
    assert [line for line in lines if "is of no use" in line and "is not what its name says" in line]


SCRIPT = """
mkdir $NEMO_AIRFLOW_OUTPUT_DIR/a
head -c 3000000 /dev/urandom > $NEMO_AIRFLOW_OUTPUT_DIR/a/model.bin
echo "digest $(sha256sum < $NEMO_AIRFLOW_OUTPUT_DIR/a/model.bin)"
"""


@pytest.fixture
def check(task, kept, lines, bucket, capsys):
    """Returns a function that runs a job on a back-end, and checks that its outputs went straight to the store."""

    def run(executor, address="127.0.0.1", script=SCRIPT, names=("a/model.bin",), posts=2):
        executor = dataclasses.replace(executor, outputs_route=bucket.listen(address))
        operator, context = task(Script(inline=script), job_executor=executor, env={}, deferrable=False)
        operator.execute(context)
        in_run, in_store = kept()
        assert sorted(in_run) == sorted(names)
        assert in_run == in_store
        assert f"digest {in_run[names[0]]}" in capsys.readouterr().out
        assert sum("sent its outputs to the store itself" in line for line in lines) == 1
        assert [status for _, _, status in bucket.posts] == [204] * posts
        assert bucket.list_keys("store/incoming/") == []

    return run


def test_job_on_docker_sends_its_outputs_straight_to_the_store(check, lab_docker, lab_image, gateway):
    check(DockerExecutor(container_image=lab_image, docker_url=lab_docker), gateway)


def test_job_on_kubernetes_sends_its_outputs_straight_to_the_store(check, lab_kubeconfig, lab_image, gateway):
    check(KubernetesExecutor(container_image=lab_image, config_file=lab_kubeconfig, linger=30.0), gateway)


def test_job_on_slurm_sends_its_outputs_straight_to_the_store(check, lab_slurm, ssh_conn_id):
    check(SlurmExecutor(ssh_conn_id=ssh_conn_id))


def test_job_on_a_host_over_ssh_sends_its_outputs_straight_to_the_store(check, ssh_conn_id):
    check(SSHExecutor(ssh_conn_id=ssh_conn_id))


SHARDS = """
shard=$NEMO_AIRFLOW_OUTPUT_DIR/shard-${SLURM_NODEID:-$NODE_RANK}
head -c 2000000 /dev/urandom > $shard
head -c 1000000 /dev/zero > $shard-zeros
echo "digest $(sha256sum < $shard)"
"""


def test_pods_of_a_group_send_their_outputs_straight_to_the_store(check, lab_kubeconfig, lab_image, gateway):
    names = ["shard-0", "shard-0-zeros", "node-1/shard-1", "node-1/shard-1-zeros"]
    executor = KubernetesExecutor(container_image=lab_image, config_file=lab_kubeconfig, linger=30.0, nodes=2)
    check(executor, gateway, SHARDS, names, posts=2 * 3)


def test_nodes_of_a_slurm_job_have_their_outputs_sent_straight_to_the_store(check, lab_slurm, ssh_conn_id):
    names = ["shard-0", "shard-0-zeros", "shard-1", "shard-1-zeros"]
    check(SlurmExecutor(ssh_conn_id=ssh_conn_id, nodes=2), script=SHARDS, names=names, posts=4)
