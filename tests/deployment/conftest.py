"""The services of docker/compose.yaml on the lab's Docker, started from a new checkout by the commands of the docs."""

import os
import re
import shutil
import subprocess
from contextlib import ExitStack

import pytest
from compose_stack import PAGE, ROOT, Stack, copy_checkout, install_compose
from side_by_side import end_after_group

from nemo_airflow.cli.ports import hold_port, port_of

PORTS = ("AIRFLOW_PORT", "MLFLOW_PORT", "RAY_PORT")


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deployment")
    copy_checkout(folder)
    return folder


@pytest.fixture(scope="session")
def stand_ins(lab_docker):
    """The URL of a dockerd that has images with the names of the public ones."""
    uv = shutil.which("uv") or str(ROOT / ".venv/uv/bin/uv")
    build = ROOT / "tests/lab/stand_ins/build.sh"
    subprocess.run([build, uv], env={**os.environ, "DOCKER_HOST": lab_docker}, check=True)
    return lab_docker


@pytest.fixture(scope="session")
def stack(request, stand_ins, checkout):
    """All services, started from images that are built here, on ports of their own; they go with the tests."""
    install_compose()
    with ExitStack() as held:
        ports = {name: port_of(held.enter_context(hold_port())) for name in PORTS}
        stack = Stack(checkout, stand_ins, ports)
        end_after_group(request, lambda: stack.compose("down", "--volumes", "--timeout", "1"))
        try:
            [commands] = re.findall(r"^```bash\n(docker/make-env.sh.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
            for command in commands.splitlines():
                done = stack.sh(command)
                assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            yield stack
        finally:
            stack.compose("down", "--volumes", "--timeout", "1")
