"""A worker or a triggerer may be killed at any step of a job: the job runs once, and nothing of it is lost or doubled.

For each back-end, at each step, one case: the process kills itself just before, or just after; see ``kill_steps``.
"""

import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from kill_matrix import LINES, Forks, Matrix, assert_nothing_is_lost_or_done_twice, counters_for_any_user, name_of
from kill_steps import CHAIN_STEPS, STEPS

from nemo_airflow.executors import (
    DockerExecutor,
    GridEngineExecutor,
    KubernetesExecutor,
    LocalExecutor,
    RayExecutor,
    SlurmExecutor,
    SSHExecutor,
)

AT_ONCE = 6
"""Tasks of one back-end that run at a time: they mostly wait."""

at_each_step = pytest.mark.parametrize("step", STEPS)


@pytest.fixture(scope="session")
def forks(tmp_path_factory):
    forks = Forks(tmp_path_factory.mktemp("forks") / "mlflow.db")
    yield forks
    forks.close()


@pytest.fixture(scope="module")
def counters():
    with counters_for_any_user() as folder:
        yield folder


@pytest.fixture(scope="module")
def matrix(forks, counters, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    shutil.copy(forks.database, folder / "mlflow.db")
    return Matrix(forks, folder, counters, f"sqlite:///{folder}/mlflow.db")


@pytest.fixture(scope="module")
def killed_at(request, matrix):
    """Returns what came of the task that dies at a step; those of all steps of the back-end are run at once."""
    pool = ThreadPoolExecutor(AT_ONCE)
    futures: dict[tuple[str, str], Future] = {}

    def killed(executor, inside, step):
        test = request.node
        asked = {
            item.callspec.params["step"]: None
            for item in request.session.items
            if getattr(item, "originalname", "") == f"test_{executor.kind}" and item.path == test.path
        }
        # Read here, and not in the threads: pytest changes the environment for each test.
        connections = {name: value for name, value in os.environ.items() if name.startswith("AIRFLOW_CONN_")}
        for each in asked:
            if (executor.kind, each) not in futures:
                futures[executor.kind, each] = pool.submit(matrix.run, executor, str(inside), each, connections)
        return futures[executor.kind, step].result()

    yield killed
    pool.shutdown(cancel_futures=True)


@pytest.fixture
def check(killed_at, counters):
    def check(executor, step, inside=None):
        killed = killed_at(executor, inside or counters, step)
        assert_nothing_is_lost_or_done_twice(killed, name_of(executor, step), step)

    return check


@at_each_step
def test_local(check, matrix, step):
    check(LocalExecutor(root=str(matrix.folder / "jobs"), grace=1), step)


@at_each_step
def test_ssh(check, lab_ssh, ssh_conn_id, step):
    check(SSHExecutor(ssh_conn_id=ssh_conn_id, root="~/kills-ssh", grace=1), step)


@at_each_step
def test_slurm(check, lab_slurm, ssh_conn_id, step):
    check(SlurmExecutor(ssh_conn_id=ssh_conn_id, root="~/kills", grace=1), step)


@at_each_step
def test_gridengine(check, lab_gridengine, ssh_conn_id, step):
    executor = GridEngineExecutor(ssh_conn_id=ssh_conn_id, settings=lab_gridengine, root="~/kills-gridengine", grace=1)
    check(executor, step)


@at_each_step
def test_docker(check, lab_docker, lab_image, counters, step):
    executor = DockerExecutor(
        container_image=lab_image, docker_url=lab_docker, grace=1, volumes=(f"{counters}:/count",)
    )
    check(executor, step, inside="/count")


@at_each_step
def test_kubernetes(check, lab_kubeconfig, lab_image, counters, step):
    executor = KubernetesExecutor(
        container_image=lab_image, config_file=lab_kubeconfig, grace=1,
        volumes=({"name": "count", "hostPath": {"path": str(counters)}},),
        volume_mounts=({"name": "count", "mountPath": "/count"},),
    )  # fmt: skip
    check(executor, step, inside="/count")


@at_each_step
def test_ray(check, lab_ray, step):
    check(RayExecutor(address=lab_ray, grace=1), step)


@pytest.mark.parametrize("step", CHAIN_STEPS)
def test_job_that_was_preempted_is_continued_once(matrix, counters, step):
    executor = LocalExecutor(root=str(matrix.folder / "jobs"), grace=1)
    killed = matrix.run(executor, str(counters), step, {})
    name = name_of(executor, step)
    assert killed.was_killed, killed.output
    assert (killed.deaths, killed.result, killed.runs, killed.left) == (1, f"result of {name}", 2, []), killed.output
    assert killed.tracked == ["FINISHED", "FINISHED"], "the one run of both attempts, and its parent"
    assert killed.points == [(number, 1 / (number + 1)) for number in range(LINES)]
    assert killed.kept["model.txt"] == f"weights of {name}"
