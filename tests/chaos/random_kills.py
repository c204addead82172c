"""Whatever is killed, and whenever: each job runs once, and nothing of it is lost, doubled or left behind.

``make chaos`` runs this; ``make test`` does not: there, ``tests/kills`` kills at each step in turn. Which kills there
are, and in which order, is said at the end; NEMO_CHAOS_SEED brings them back.
"""

import os
import random
import tempfile
import time
from pathlib import Path

import pytest
from harness import Harness
from kill_plan import KillPlan
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

TASKS = int(os.environ.get("NEMO_CHAOS_TASKS", "40"))
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
    """Runs the tasks on a back-end, and prints the counts and the kills."""

    def run(executor, wreck, inside=None):
        plan = KillPlan.draw(SEED, TASKS, list(wreck))
        with capsys.disabled():
            print(f"\n{executor.kind}: NEMO_CHAOS_SEED={SEED} NEMO_CHAOS_TASKS={TASKS}")
            counts = Harness(executor, tmp_path, counter, inside or str(counter), wreck, plan).run(200 + 25 * TASKS)
            print(f"{executor.kind}: {counts}\nthe kills, in order (a worker may have been done before):\n{plan}")
        assert not counts.faults, f"seed {SEED}: {counts}"
        assert executor.kind == "slurm" or not counts.restarted, f"seed {SEED}: {counts}"
        assert counts.jobs >= TASKS

    return run


def broken_for(lab, daemon, longest=3.0):
    """Kills a daemon, and starts it again after a while."""

    def kill(share):
        with chaos.killed(lab, daemon):
            time.sleep(share * longest)

    return kill


def hanging_for(lab, daemon, longest=4.0):
    """Stops a daemon, and lets it go on after a while."""

    def stop(share):
        with chaos.paused(lab, daemon):
            time.sleep(share * longest)

    return stop


def test_local(check, tmp_path):
    check(LocalExecutor(root=str(tmp_path / "jobs"), grace=1), {})


def test_ssh(check, slurm_to_break):
    lab = slurm_to_break
    wreck = {"connections": lambda _: chaos.cut_logins(lab), "sshd": broken_for(lab, "sshd")}
    check(SSHExecutor(ssh_conn_id="chaos", root="~/chaos-ssh", grace=1), wreck)


def test_slurm(check, slurm_to_break):
    lab = slurm_to_break
    wreck = {
        "connections": lambda _: chaos.cut_logins(lab),
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

    def lose_the_head(share):
        cluster.stop()
        time.sleep(share * 2)
        cluster.start()
        time.sleep(15 + share * 15)

    try:
        check(RayExecutor(address=cluster.address, grace=1), {"head": lose_the_head})
    finally:
        cluster.remove()
