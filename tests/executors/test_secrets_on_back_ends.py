"""Where the value of a job's secret is while its back-end has it: nowhere that others can look."""

import contextlib
import dataclasses
import json
import threading
import time
import urllib.request
import uuid
from pathlib import Path

import pytest
from lab.ray_cluster import ray_address  # noqa: F401 - a fixture

from nemo_airflow import blocking
from nemo_airflow.exceptions import SubmitError
from nemo_airflow.executors import (
    DockerExecutor,
    KubernetesExecutor,
    LocalExecutor,
    RayExecutor,
    Secret,
    SlurmExecutor,
    SSHExecutor,
)
from nemo_airflow.executors.folder import JobFolder
from nemo_airflow.follow import Follower
from nemo_airflow.job import Job

TOKEN = f"hf_{uuid.uuid4().hex}"
"""Another in each process: the tests of other back-ends run beside these."""

LENGTH = [f"length {len(TOKEN)}"]
GIVEN = {"TOKEN": Secret("hf")}
WAIT = 'echo "length ${#TOKEN}"; sleep 600'


@contextlib.contextmanager
def submitted(executor, text=WAIT):
    """Submits a job with the secret, and yields it with its driver; cancels it in the end."""
    root = {"_target_": "nemo_airflow.runner.script:run", "inline": text}
    job = Job(key=f"secret-{uuid.uuid4().hex[:20]}", name="script", plan={"version": 1, "root": root})
    executor = dataclasses.replace(executor, secrets=GIVEN)
    driver = executor.connect()
    handle = blocking.run(driver.submit(dataclasses.replace(executor.render(job), values={"TOKEN": TOKEN})), 300)
    try:
        yield driver, executor, handle
    finally:
        blocking.run(driver.cancel([handle]), 300)
        outcome = blocking.run(Follower(executor, handle, on_line=print, warn=print).run(), 300)
        assert outcome.status.state.is_final
        blocking.run(driver.close())


def lines_of(executor, handle, count):
    """Returns the first lines of a job that runs on."""
    seen = []

    async def follow():
        import asyncio

        follower = Follower(executor, handle, on_line=lambda line: seen.append(line.text), warn=print)
        following = asyncio.ensure_future(follower.run())
        try:
            async with asyncio.timeout(120):
                while len(seen) < count:
                    await asyncio.sleep(0.05)
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following

    blocking.run(follow())
    return seen


class Watch(threading.Thread):
    """Looks at the command lines of all processes of this machine, again and again."""

    def __init__(self):
        super().__init__(daemon=True)
        self.found = set()
        self.looks = 0
        self._over = threading.Event()

    def run(self):
        while not self._over.wait(0.01):  # the jobs need the processors too
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    line = path.read_bytes()
                    if TOKEN.encode() in line:
                        self.found.add(line)
            self.looks += 1

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self._over.set()
        self.join()


def files_with_token(folder):
    found = []
    for path in Path(folder).rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a file of somebody else's, deleted meanwhile
            if path.is_file() and TOKEN.encode() in path.read_bytes():
                found.append(path)
    return found


def test_of_a_local_job_no_file_and_no_command_line_has_it(tmp_path):
    with Watch() as watch, submitted(LocalExecutor(root=str(tmp_path), grace=1)) as (_, executor, handle):
        assert lines_of(executor, handle, 1) == LENGTH
        assert files_with_token(tmp_path) == []
    assert watch.looks > 1
    assert watch.found == set()


@pytest.mark.parametrize("python", ["/nowhere/python3", "/bin/false"])
def test_a_local_job_that_cannot_be_started_leaves_none(python, tmp_path):
    with pytest.raises(SubmitError), submitted(LocalExecutor(root=str(tmp_path), python=python)):
        pass
    assert [path.name for path in tmp_path.glob("[!.]*/job.json")]
    assert files_with_token(tmp_path) == []


def test_a_local_job_that_is_cancelled_before_it_begins_leaves_none(tmp_path):
    folder = JobFolder(tmp_path / "job")
    folder.lay_out({"job.json": "{}"})
    folder.lay_out_secrets({"TOKEN": TOKEN})
    [path] = files_with_token(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    folder.mark_cancelled()
    assert files_with_token(tmp_path) == []


@pytest.mark.parametrize("kind", [SSHExecutor, SlurmExecutor])
def test_on_a_host_it_comes_by_standard_input_into_a_file_of_the_user_alone(kind, ssh_conn_id, lab_slurm):
    root = f"secrets-{uuid.uuid4().hex[:8]}"
    executor = kind(ssh_conn_id=ssh_conn_id, root=f"~/{root}", grace=1)
    with Watch() as watch, submitted(executor) as (driver, executor, handle):
        assert lines_of(executor, handle, 1) == LENGTH
        where = blocking.run(driver.shell.run(f"cd {root}/jobs/{handle.key}; stat -c '%a %n' secrets.json"))
        # A job that the scheduler may start again still needs it.
        assert where.text == ("600 secrets.json\n" if kind is SlurmExecutor else "")
        files = blocking.run(driver.shell.run(f"cd {root}; grep -rl {TOKEN[:20]} . || true")).text.split()
        assert files == ([f"./jobs/{handle.key}/secrets.json"] if kind is SlurmExecutor else [])
    assert watch.found == set()
    driver = executor.connect()
    left = blocking.run(driver.shell.run(f"cd {root}; grep -rl {TOKEN[:20]} . || true; cd; rm -rf {root}"))
    assert left.text == ""
    blocking.run(driver.close())


@pytest.mark.parametrize("fields", [{"nodes": 2}, {"array": "0-1"}])
def test_each_process_of_a_job_on_several_nodes_has_it(fields, ssh_conn_id, lab_slurm):
    root = f"secrets-{uuid.uuid4().hex[:8]}"
    executor = SlurmExecutor(ssh_conn_id=ssh_conn_id, root=f"~/{root}", grace=1, **fields)
    with submitted(executor, 'echo "length ${#TOKEN}"') as (driver, executor, handle):
        seen = lines_of(executor, handle, 2)
        assert all(line.endswith(LENGTH[0]) for line in seen), seen
        blocking.run(driver.shell.run(f"rm -rf {root}"))


def test_a_queued_job_that_is_cancelled_leaves_none_on_the_host(ssh_conn_id, lab_slurm):
    root = f"secrets-{uuid.uuid4().hex[:8]}"
    executor = SlurmExecutor(ssh_conn_id=ssh_conn_id, root=f"~/{root}", additional_parameters={"hold": True})
    with submitted(executor) as (driver, executor, handle):
        where = blocking.run(driver.shell.run(f"cat {root}/jobs/{handle.key}/secrets.json"))
        assert json.loads(where.text) == {"TOKEN": TOKEN}
    driver = executor.connect()
    left = blocking.run(driver.shell.run(f"cd {root}; grep -rl {TOKEN} . || true; cd; rm -rf {root}"))
    assert left.text == ""
    blocking.run(driver.close())


def test_commands_on_this_machine_have_no_environment_of_a_job_on_their_command_line(
    lab, lab_slurm, tmp_path, monkeypatch
):
    monkeypatch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])
    executor = SlurmExecutor(ssh_conn_id=None, account="root", root=str(tmp_path), grace=1, env={"PLAIN": TOKEN})
    with Watch() as watch, submitted(executor, "sleep 600"):
        pass
    assert watch.found == set()


def test_docker_shows_it_nowhere(lab_docker, lab_image):
    import docker

    with submitted(DockerExecutor(container_image=lab_image, docker_url=lab_docker, grace=1)) as (_, executor, handle):
        assert lines_of(executor, handle, 1) == LENGTH
        client = docker.DockerClient(base_url=lab_docker)
        container = client.containers.get(handle.id)
        assert TOKEN not in json.dumps(container.attrs)
        code, output = container.exec_run(["sh", "-c", f"env; grep -rl {TOKEN[:20]} /nemo-airflow"])
        assert (code, TOKEN in output.decode()) == (1, False)
        assert TOKEN not in container.logs().decode()
        client.close()


def test_a_user_of_an_image_without_rights_has_it(lab_docker, lab_image):
    executor = DockerExecutor(container_image=lab_image, docker_url=lab_docker, grace=1, user="1234:1234")
    with submitted(executor) as (_, executor, handle):
        assert lines_of(executor, handle, 1) == LENGTH


def test_kubernetes_keeps_it_in_the_jobs_secret_alone_and_deletes_that_with_the_pod(lab_kubeconfig, lab_image):
    import kubernetes

    client = kubernetes.config.new_client_from_config(lab_kubeconfig)
    api = kubernetes.client.CoreV1Api(client)
    executor = KubernetesExecutor(container_image=lab_image, config_file=lab_kubeconfig, grace=1, linger=1)
    text = f'{{ grep -rlF "$TOKEN" /nemo-airflow /nemo-airflow-bundle/* || true; }} | wc -l; {WAIT}'
    with submitted(executor, text) as (driver, executor, handle):
        assert lines_of(executor, handle, 2) == ["0", *LENGTH]
        (pod,) = api.list_namespaced_pod("default", label_selector=f"nemo-airflow.key={handle.key}").items
        assert TOKEN not in json.dumps(client.sanitize_for_serialization(pod))
        secret = api.read_namespaced_secret(handle.key, "default")
        assert set(secret.data) == {"bundle.tar.gz", "env.TOKEN"}
        assert secret.metadata.owner_references[0].uid == pod.metadata.uid
    driver = executor.connect()
    blocking.run(driver.remove([handle]), 300)
    blocking.run(driver.close())
    deadline = time.monotonic() + 300
    while [s for s in api.list_namespaced_secret("default").items if s.metadata.name == handle.key]:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    client.close()


def test_ray_shows_it_nowhere_and_leaves_no_file_with_it(ray_address):  # noqa: F811
    text = f"pwd; {WAIT}"
    with submitted(RayExecutor(address=ray_address, grace=1), text) as (_, executor, handle):
        work, length = lines_of(executor, handle, 2)
        assert [length] == LENGTH
        with urllib.request.urlopen(f"{ray_address}/api/jobs/{handle.key}", timeout=300) as answer:
            shown = answer.read().decode()
        assert handle.key in shown
        assert TOKEN not in shown
        session = Path(work).parents[2]
        assert (session / "runtime_resources").is_dir()
        assert files_with_token(session) == []
