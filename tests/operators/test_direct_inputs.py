"""A job fetches what it is given straight from the shared store; where it cannot, the worker sends it."""

import dataclasses
import json
import random
import shutil
from types import SimpleNamespace

import direct_jobs as jobs
import pytest
from airflow.sdk import DAG
from lab.signed_store import SECRET, signed_store

from nemo_airflow import Config, LocalExecutor, NemoRunOperator, PatternPackager
from nemo_airflow.artifacts.keeping import keep
from nemo_airflow.executors import DockerExecutor, KubernetesExecutor, SlurmExecutor, SSHExecutor
from nemo_airflow.runner.artifacts import read_artifact


@pytest.fixture(scope="module")
def bucket():
    with signed_store() as running:
        yield running


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch, bucket):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NEMO_AIRFLOW_STORE", f"s3://direct@bucket/{tmp_path.name}")
    monkeypatch.setenv("AIRFLOW_CONN_DIRECT", bucket.connection)
    bucket.forget()


@pytest.fixture
def given(tmp_path, monkeypatch):
    """Artifacts that are in the store, and not on the machine of the worker."""
    seed = random.randrange(1 << 32)  # a host keeps what an earlier run of this has brought there
    jobs.write_file(tmp_path / "made" / "model.bin", 9 << 20, seed)
    for number in range(30):
        jobs.write_file(tmp_path / "made" / "parts" / f"{number}.bin", 50_000, seed + number)
    read = [read_artifact(str(tmp_path / "made" / name)) for name in ("model.bin", "parts")]
    kept = [keep(dataclasses.replace(each, local=""), tmp_path / "made" / each.file) for each in read]
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "another"))
    return dict(zip(("model", "parts"), kept, strict=True))


@pytest.fixture
def lines(monkeypatch):
    """The lines of the task's log."""
    found = []
    logger = SimpleNamespace(
        **{name: lambda text, *args: found.append(text % args) for name in ("info", "warning", "error", "debug")}
    )
    monkeypatch.setattr(NemoRunOperator, "log", logger)
    return found


class DistantExecutor(LocalExecutor):
    """Runs jobs here as if their disk were elsewhere."""

    shares_filesystem = False


@pytest.fixture
def task(task_context, defaults):
    """Returns a function that makes the task, with the context in which it is executed."""

    def made(config, **arguments):
        with DAG("direct", schedule=None) as dag:
            operator = NemoRunOperator(config=config, **{"task_id": "t", **defaults, "defer_after": 600, **arguments})
        return operator, task_context(dag)

    return made


def test_job_fetches_what_no_worker_has(task, root, bucket, given, lines, tmp_path):
    operator, context = task(Config(jobs.read, **given), job_executor=DistantExecutor(root=str(root)))
    assert operator.execute(context) == {"model": given["model"].digest, "files": 30}
    assert sum(size for _, size in bucket.fetches) >= 9 << 20
    assert not [path for path in (tmp_path / "another" / "packages").rglob("*") if path.is_file()]
    assert not [line for line in lines if "from here" in line]


def test_job_fetches_its_package_and_the_next_version_of_it(task, root, bucket, lines, code, tmp_path, store):
    executor = DistantExecutor(root=str(root))
    for changed in ("", "# changed\n"):
        store.clear()
        bucket.forget()
        with (tmp_path / "code" / "direct_jobs.py").open("a") as file:
            file.write(changed)
        operator, context = task(Config(jobs.has_weights), job_executor=executor, packager=code, env={})
        assert operator.execute(context) == 2 << 20
        assert sum(size for _, size in bucket.fetches) >= 2 << 20
    assert len(list(root.glob("*/package.base.*"))) == 1
    assert not [line for line in lines if "from here" in line]


def test_local_job_gets_a_link_from_the_worker(task, root, bucket, given):
    operator, context = task(Config(jobs.read, **given), job_executor=LocalExecutor(root=str(root)))
    assert operator.execute(context)["files"] == 30
    assert bucket.fetches == []


@pytest.mark.parametrize("route", ["http://127.0.0.1:9", "worker"])
def test_worker_sends_what_the_job_does_not_reach_and_the_next_job_does_not_try(
    task, root, bucket, given, lines, store, route
):
    executor = DistantExecutor(root=str(root), outputs_route=route)
    for number in range(2):
        store.clear()
        operator, context = task(Config(jobs.read, **given), job_executor=executor, task_id=f"t{number}")
        assert operator.execute(context)["files"] == 30
    assert bucket.fetches == []
    said = [line for line in lines if "submitting it again with what it is given sent from here" in line]
    assert len(said) == (0 if route == "worker" else 1)
    assert all("the store at http://127.0.0.1:9 cannot be reached from the job" in line for line in said)
    assert len([line for line in lines if line.startswith("Submitted job")]) == 2 + len(said)


def test_damaged_content_is_fetched_by_nobody_and_the_task_says_what_to_do(task, root, bucket, given, lines, tmp_path):
    (blob,) = [key for key in bucket.list_keys(f"{tmp_path.name}/blobs/") if given["model"].digest in key]
    bucket.client.put_object(Bucket="bucket", Key=blob, Body=bytes(9 << 20))
    operator, context = task(Config(jobs.read, **given), job_executor=DistantExecutor(root=str(root)))
    with pytest.raises(Exception, match="is damaged and was deleted: put it again"):
        operator.execute(context)
    assert [line for line in lines if f"what the store has as {given['model'].digest[:12]} is damaged" in line]


def test_no_record_and_no_variable_of_the_job_shows_an_address(task, root, bucket, given, lines, tmp_path):
    config = Config(jobs.read_and_dump, **given)
    operator, context = task(config, job_executor=DistantExecutor(root=str(root)))
    pushed = []
    context["ti"].xcom_push = lambda **value: pushed.append(value)
    assert operator.execute(context) == {"has_grant": False}
    assert bucket.signatures
    texts = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size < 1 << 20]
    texts.append(json.dumps([pushed, lines, dict(context["task_state_store"])]).encode())
    for hidden in (SECRET, *bucket.signatures):
        assert not [text for text in texts if hidden.encode() in text]


@pytest.fixture
def code(tmp_path):
    """A package of 2 MiB with the functions of jobs."""
    folder = tmp_path / "code"
    folder.mkdir()
    shutil.copy(jobs.__file__, folder)
    (folder / "weights.bin").write_bytes(random.randbytes(2 << 20))
    return PatternPackager(path=str(folder))


@pytest.fixture
def check(task, bucket, given, store, code):
    """Returns a function that runs a job on a back-end, and checks that it fetched what it was given."""

    def run(executor, address="127.0.0.1", times=1):
        executor = dataclasses.replace(executor, outputs_route=bucket.listen(address))
        for _ in range(times):
            store.clear()
            operator, context = task(
                Config(jobs.read, **given), job_executor=executor, packager=code, env={}, deferrable=False
            )
            assert operator.execute(context) == {"model": given["model"].digest, "files": 30}
        assert 11 << 20 <= sum(size for _, size in bucket.fetches) < 14 << 20

    return run


def test_job_on_docker_fetches_its_artifacts(check, lab_docker, lab_image, gateway):
    check(DockerExecutor(container_image=lab_image, docker_url=lab_docker), gateway)


def test_job_on_kubernetes_fetches_its_artifacts(check, lab_kubeconfig, lab_image, gateway):
    check(KubernetesExecutor(container_image=lab_image, config_file=lab_kubeconfig), gateway)


def test_jobs_on_slurm_fetch_their_artifacts_once_for_all(check, lab_slurm, ssh_conn_id):
    check(SlurmExecutor(ssh_conn_id=ssh_conn_id), times=2)


def test_jobs_on_a_host_over_ssh_fetch_their_artifacts_once_for_all(check, ssh_conn_id):
    check(SSHExecutor(ssh_conn_id=ssh_conn_id), times=2)
