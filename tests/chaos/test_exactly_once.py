"""Whatever is killed, and whenever: each job runs once, and nothing of it is lost, doubled or left behind."""

import os
import random
import tempfile
import time
from pathlib import Path

import pytest
from harness import Harness
from lab import chaos
from lab.ray_cluster import RayCluster

from nemo_airflow.executors import (
    DockerExecutor,
    KubernetesExecutor,
    LocalExecutor,
    RayExecutor,
    SlurmExecutor,
    SSHExecutor,
)

TASKS = int(os.environ.get("NEMO_CHAOS_TASKS", "5"))
"""``make chaos`` takes more of them, and more time."""

SEED = int(os.environ.get("NEMO_CHAOS_SEED", "0")) or random.SystemRandom().randrange(1 << 32)

pytestmark = pytest.mark.timeout(600 + 30 * TASKS)


@pytest.fixture
def counter():
    """A file that jobs of any user can append to."""
    with tempfile.TemporaryDirectory(prefix="nemo-chaos-") as folder:
        path = Path(folder) / "runs"
        path.touch()
        Path(folder).chmod(0o777)
        path.chmod(0o666)
        yield path


@pytest.fixture
def check(tmp_path, counter, record_property, capsys):
    """Runs the tasks on a back-end, and prints the counts."""

    def run(executor, wreck, inside=None):
        harness = Harness(executor, tmp_path, counter, inside or str(counter), wreck, SEED)
        counts = harness.run(TASKS, timeout=200 + 25 * TASKS)
        with capsys.disabled():
            print(f"\n{executor.kind}: {counts} (seed {SEED})")
        assert not counts.faults, f"seed {SEED}: {counts}"
        assert executor.kind == "slurm" or not counts.restarted, f"seed {SEED}: {counts}"
        assert counts.jobs >= TASKS

    return run


def broken_for(lab, daemon, longest=3.0):
    """Kills a daemon, and starts it again after a while."""

    def kill():
        with chaos.killed(lab, daemon):
            time.sleep(random.uniform(0, longest))

    return kill


def hanging_for(lab, daemon, longest=4.0):
    """Stops a daemon, and lets it go on after a while."""

    def stop():
        with chaos.paused(lab, daemon):
            time.sleep(random.uniform(0, longest))

    return stop


def test_local(check, tmp_path):
    check(LocalExecutor(root=str(tmp_path / "jobs"), grace=1), {})


def test_ssh(check, slurm_to_break):
    lab = slurm_to_break
    wreck = {"connections": lambda: chaos.cut_logins(lab), "sshd": broken_for(lab, "sshd")}
    check(SSHExecutor(ssh_conn_id="chaos", root="~/chaos-ssh", grace=1), wreck)


def test_slurm(check, slurm_to_break):
    lab = slurm_to_break
    wreck = {
        "connections": lambda: chaos.cut_logins(lab),
        "slurmctld": broken_for(lab, "slurmctld"),
        "hanging slurmctld": hanging_for(lab, "slurmctld"),
        "slurmdbd": broken_for(lab, "slurmdbd"),
    }
    check(SlurmExecutor(ssh_conn_id="chaos", root="~/chaos", grace=1), wreck)


def test_docker(check, lab_to_break, lab_image, counter):
    lab_to_break.up("docker")
    executor = DockerExecutor(
        container_image=lab_image, docker_url=lab_to_break.docker_host, grace=1, volumes=(f"{counter.parent}:/count",)
    )
    wreck = {"dockerd": broken_for(lab_to_break, "dockerd"), "hanging dockerd": hanging_for(lab_to_break, "dockerd")}
    check(executor, wreck, inside=f"/count/{counter.name}")


def test_kubernetes(check, lab_to_break, lab_image, counter):
    lab_to_break.up("docker", "k8s")
    executor = KubernetesExecutor(
        container_image=lab_image, config_file=str(lab_to_break.kubeconfig), grace=1, linger=60,
        volumes=({"name": "count", "hostPath": {"path": str(counter.parent)}},),
        volume_mounts=({"name": "count", "mountPath": "/count"},),
    )  # fmt: skip
    wreck = {name: broken_for(lab_to_break, name) for name in ("kubelet", "kube-apiserver", "kube-scheduler")}
    check(executor, wreck, inside=f"/count/{counter.name}")


def test_ray(check):
    cluster = RayCluster().start()

    def lose_the_head():
        cluster.stop()
        time.sleep(random.uniform(0, 2))
        cluster.start()
        time.sleep(random.uniform(15, 30))

    try:
        check(RayExecutor(address=cluster.address, grace=1), {"head": lose_the_head})
    finally:
        cluster.remove()
