"""Artifacts go from one back-end to another: some true pairs, and what need not be sent at all.

The conformance suite tries each back-end as a source into the store, and as a sink from there with 1,000 files: a sink
does not know from where an artifact came. A file of 500 MB takes too long for the gate.
"""

import inspect
import uuid

import pytest

from nemo_airflow import (
    DockerExecutor,
    KubernetesExecutor,
    LocalExecutor,
    RayExecutor,
    SlurmExecutor,
    SSHExecutor,
    blocking,
    settings,
)
from nemo_airflow.artifacts import archives_for, keep_artifacts
from nemo_airflow.executors.ray import packages
from nemo_airflow.executors.ray.api import RayApi
from nemo_airflow.follow import Follower
from nemo_airflow.job import Job
from nemo_airflow.packaging.archive import write_archive
from nemo_airflow.store import PackageStore
from nemo_airflow.testing.conformance import jobs


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs a function of the conformance suite's jobs; returns its result, with its artifacts kept."""
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    code = {"conformance_jobs.py": inspect.getsource(jobs).encode()}
    package = write_archive(code, PackageStore(settings.packages_folder()))

    def run_job(executor, function, **arguments):
        root = {"_target_": f"conformance_jobs:{function}", **arguments}
        key, plan = f"pair-{uuid.uuid4().hex[:16]}", {"version": 1, "root": root}
        job = Job(key, function, plan, ("conformance_jobs.",), package, inputs=archives_for(plan))

        async def submit_and_collect():
            driver = executor.connect()
            handle = await driver.submit(executor.render(job))
            outcome = await Follower(executor, handle, on_line=print, warn=print).run()
            assert outcome.succeeded, outcome.message
            await driver.collect(handle, tmp_path / key)
            await driver.close()
            return keep_artifacts(outcome.result, key, tmp_path / key)

        return blocking.run(submit_and_collect(), 300)

    return run_job


def hand_on(run, source, sink):
    """Has a job of one back-end make what one of the other gets, and compares digests."""
    made = run(source, "return_artifacts", files=100, size=2_000_000)
    found = run(sink, "digest_artifacts", large=made["large"], others={"data": [made["data"]]})
    assert found[:2] == [made[name]["_artifact_"]["digest"] for name in ("large", "data")]
    return made


def test_from_a_container_to_slurm_to_a_pod_and_to_this_machine(
    run, lab_docker, lab_image, ssh_conn_id, lab_slurm, lab_kubeconfig, tmp_path
):
    docker = DockerExecutor(container_image=lab_image, docker_url=lab_docker)
    slurm = SlurmExecutor(ssh_conn_id=ssh_conn_id, root="~/pairs")
    kubernetes = KubernetesExecutor(container_image=lab_image, config_file=lab_kubeconfig, linger=30.0)
    local = LocalExecutor(root=str(tmp_path / "jobs"))
    hand_on(run, docker, slurm)
    hand_on(run, slurm, kubernetes)
    hand_on(run, kubernetes, local)
    hand_on(run, local, docker)


def test_a_file_that_a_job_of_the_same_host_made_is_not_sent_there_again(run, ssh_conn_id, lab_ssh, monkeypatch):
    executor = SSHExecutor(ssh_conn_id=ssh_conn_id, root=f"~/pairs-{uuid.uuid4().hex[:8]}")
    sent = []
    real = type(executor.connect())._send_archive

    async def note(self, archive):
        sent.append(archive.name)
        await real(self, archive)

    monkeypatch.setattr(type(executor.connect()), "_send_archive", note)
    made = hand_on(run, executor, executor)
    large, data = (made[name]["_artifact_"] for name in ("large", "data"))
    assert sent == ["package.tar.gz", f"input.{data['digest']}.tar.gz"]
    # A file that was changed there is not taken for the artifact.
    lab_ssh.run(f"rm {executor.root}/packages/{large['digest']}.file")
    made_there = f"{executor.root}/jobs/{large['job']}/outputs/large.bin"
    lab_ssh.run(f"chmod u+w {made_there} && printf x >>{made_there}")
    run(executor, "digest_artifacts", large=made["large"], others={"data": [made["data"]]})
    assert sent[2:] == [f"input.{large['digest']}.file"]
    lab_ssh.run(f"rm -rf {executor.root}")


def test_to_ray_in_pieces_of_what_its_dashboard_takes(run, lab_ray, tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "PIECE", 300_000)
    brought = []
    real = RayApi.put_package

    async def note(self, name, archive, size):
        if name.startswith("nemo_airflow_input_"):  # the code is brought to a cluster once, perhaps by another test
            brought.append(size)
        await real(self, name, archive, size)

    monkeypatch.setattr(RayApi, "put_package", note)
    hand_on(run, LocalExecutor(root=str(tmp_path / "jobs")), RayExecutor(address=lab_ray))
    assert len([size for size in brought if size > 200_000]) == 7
    assert max(brought) < 301_000
