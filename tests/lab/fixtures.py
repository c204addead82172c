"""Pytest plugin: the real back-ends, each as what a client needs to reach it.

A back-end that one has already is taken from the environment instead of the lab: DOCKER_HOST (with an image that has
Python and git in NEMO_TEST_IMAGE), KUBECONFIG, NEMO_TEST_POSTGRES, NEMO_TEST_SSH (``ssh://user@host:port`` of a Slurm
login node) with NEMO_TEST_SSH_KEY, RAY_ADDRESS. A test without its back-end fails: what was not tried does not work.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.backends import HOME, HOW_TO, Lab, LabError, Ssh
from side_by_side import end_after_group

_TORCH = ("torch==2.13.0", "scikit-learn", "numpy", "nvidia-resiliency-ext==0.4.1")

# Not lab_ray, which starts its cluster itself wherever Ray is installed, and not lab_image, which is a name.
_FIXTURES = {
    "lab",
    "lab_docker",
    "lab_kubeconfig",
    "lab_ssh",
    "lab_slurm",
    "lab_gridengine",
    "lab_postgres",
    "lab_to_break",
}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "lab: needs a real back-end; set on every test that uses a fixture of the lab")
    config.addinivalue_line("markers", "spooler: needs task spooler's command tsp")
    config.addinivalue_line("markers", "browser: needs Chromium; set on every test that uses the fixture browser")


# First, so that `-m "not lab"` finds the marks.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if _FIXTURES.intersection(fixtures):
            item.add_marker("lab")
        if "browser" in fixtures:
            item.add_marker("browser")


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Removes the ended pods of a file's tests: the kubelet and dockerd list all there are, each second."""
    if "KUBECONFIG" in os.environ or (nextitem is not None and nextitem.path == item.path):
        return
    if path := getattr(item, "funcargs", {}).get("lab_kubeconfig"):
        import kubernetes

        with kubernetes.config.new_client_from_config(path) as client:
            for phase in ("Succeeded", "Failed"):
                kubernetes.client.CoreV1Api(client).delete_collection_namespaced_pod(
                    "default", field_selector=f"status.phase={phase}", grace_period_seconds=0
                )


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The lab that all tests share; NEMO_LAB_AUTO=1 brings up what of it is asked for."""
    return Lab()


@pytest.fixture(scope="session")
def lab_docker(lab: Lab) -> str:
    """The URL of a dockerd."""
    import docker

    url = os.environ.get("DOCKER_HOST") or _bring_up(lab, "docker").docker_host
    try:
        client = docker.DockerClient(base_url=url, timeout=10)
        client.ping()
        client.close()
    except docker.errors.DockerException as error:
        pytest.fail(f"no dockerd at {url}: {HOW_TO}, or set DOCKER_HOST ({error})", pytrace=False)
    return url


@pytest.fixture(scope="session")
def lab_image() -> str:
    """An image with Python and git that Docker and Kubernetes have at hand."""
    return os.environ.get("NEMO_TEST_IMAGE", "python-lab:3.11")


@pytest.fixture(scope="session")
def lab_kubeconfig(lab: Lab) -> str:
    """The path of a kubeconfig with access to a cluster."""
    import kubernetes

    path = os.environ.get("KUBECONFIG") or str(_bring_up(lab, "k8s").kubeconfig)
    try:
        client = kubernetes.config.new_client_from_config(path)
        kubernetes.client.VersionApi(client).get_code(_request_timeout=10)
        client.close()
    except Exception as error:  # noqa: BLE001 - the client passes on what its layers raise
        pytest.fail(f"no Kubernetes behind {path}: {HOW_TO}, or set KUBECONFIG ({error})", pytrace=False)
    return path


@pytest.fixture(scope="session")
def lab_ssh(lab: Lab) -> Ssh:
    """A login by SSH, on a machine where Slurm's commands are."""
    try:
        if uri := os.environ.get("NEMO_TEST_SSH"):
            return Ssh.at(uri, os.environ.get("NEMO_TEST_SSH_KEY", Path.home() / ".ssh/id_ed25519"))
        return _bring_up(lab, "slurm").ssh
    except LabError as error:
        pytest.fail(f"{error}: {HOW_TO}, or set NEMO_TEST_SSH and NEMO_TEST_SSH_KEY", pytrace=False)


@pytest.fixture(scope="session")
def lab_slurm(lab_ssh: Ssh) -> Ssh:
    """The same login, where Slurm is known to answer."""
    try:
        lab_ssh.run("scontrol ping && sinfo -h | grep -q .")
    except LabError as error:
        pytest.fail(f"no Slurm behind {lab_ssh.host}:{lab_ssh.port}: {HOW_TO} ({error})", pytrace=False)
    return lab_ssh


@pytest.fixture(scope="session")
def lab_gridengine(lab: Lab, lab_ssh: Ssh) -> str:
    """The path of a Grid Engine's ``settings.sh`` on the machine of the login; it is known to answer."""
    settings = os.environ.get("NEMO_TEST_SGE_SETTINGS") or str(_bring_up(lab, "gridengine").gridengine_settings)
    try:
        lab_ssh.run(f". {settings} && qstat -f")
    except LabError as error:
        how = f"{HOW_TO}, or set NEMO_TEST_SGE_SETTINGS"
        pytest.fail(f"no Grid Engine behind {settings} on {lab_ssh.host}: {how} ({error})", pytrace=False)
    return settings


@pytest.fixture(scope="session")
def lab_postgres(lab: Lab) -> Iterator[str]:
    """The address of a database of one's own, as SQLAlchemy has it; it is dropped with the tests."""
    import psycopg2
    from sqlalchemy import make_url

    url = make_url(os.environ.get("NEMO_TEST_POSTGRES") or _bring_up(lab, "postgres").postgres)
    name = f"mlflow_{os.getpid()}_{secrets.token_hex(4)}"
    try:
        with contextlib.closing(psycopg2.connect(url.render_as_string(hide_password=False))) as connection:
            connection.autocommit = True  # a database is not made in a transaction
            with connection.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {name}")
                # By name: of the drivers for PostgreSQL this is the one that is there.
                own = url.set(drivername="postgresql+psycopg2", database=name)
                yield own.render_as_string(hide_password=False)
                cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
    except psycopg2.OperationalError as error:
        pytest.fail(f"no PostgreSQL at {url}: {HOW_TO}, or set NEMO_TEST_POSTGRES ({error})", pytrace=False)


@pytest.fixture(scope="session")
def lab_ray(request: pytest.FixtureRequest) -> str:
    """The dashboard's address of a Ray cluster; it needs nothing but Ray, so it is not a part of the lab."""
    from lab.ray_cluster import end_shared, shared_address

    end_after_group(request, end_shared)
    return shared_address()


@pytest.fixture(scope="session")
def lab_to_break(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A second lab, of one's own, on other ports: ``up`` the parts that the test wants, then kill what you like.

    Made from what the shared one was built of, so it is up within seconds; ended with the tests.
    """
    home = Path(f"{HOME}-to-break")
    if not (HOME / "builds").is_dir():
        pytest.fail(f"nothing was built in {HOME / 'builds'}: {HOW_TO}", pytrace=False)
    with Path(f"{home}.lock").open("w") as lock:  # one session of tests at a time
        fcntl.flock(lock, fcntl.LOCK_EX)
        lab = Lab(home, port_base=31000, builds=HOME / "builds")
        end_after_group(request, lab.down)
        try:
            yield lab
        finally:
            lab.down()


def _bring_up(lab: Lab, part: str) -> Lab:
    if os.environ.get("NEMO_LAB_AUTO") == "1":
        lab.up(part)
    return lab


@pytest.fixture(scope="session")
def lab_torch(lab_slurm: Ssh) -> str:
    """An interpreter with PyTorch that the cluster's user can run; NEMO_TEST_TORCH names one that is there."""
    if python := os.environ.get("NEMO_TEST_TORCH"):
        return python
    folder = HOME / "torch"
    ready = folder / ".ready"
    if not ready.exists() or ready.read_text() != " ".join(_TORCH):
        shutil.rmtree(folder, ignore_errors=True)
        # The system's Python: the cluster's user may not read the folders of the one that runs the tests.
        subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", str(folder)], check=True)
        python = str(folder / "bin/python")
        subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", *_TORCH], check=True)
        ready.write_text(" ".join(_TORCH))
    return str(folder / "bin/python")
