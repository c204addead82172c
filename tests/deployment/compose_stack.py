"""What docker/compose.yaml starts, and how tests reach it from outside."""

import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from functools import cached_property
from pathlib import Path

import httpx
from lab.backends import HOME
from shared_airflow import commit_all

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/deploying.md").read_text()


def copy_checkout(folder):
    """Makes a repository of all files that git tracks or would, as they are here; others may read it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    commit_all(folder)
    folder.chmod(0o755)


def install_compose():
    """Installs Debian's ``docker-compose`` if it is not there."""
    HOME.mkdir(parents=True, exist_ok=True)
    with open(HOME / "compose.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if shutil.which("docker-compose") is None:
            for command in (["update"], ["install", "-y", "--no-install-recommends", "docker-compose"]):
                subprocess.run(
                    ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", *command], check=True, capture_output=True
                )


class Stack:
    """What ``docker compose up`` has started, and how one reaches it from outside."""

    def __init__(self, folder, docker_host, ports):
        self.folder = folder
        self.ports = ports
        self.env = {
            **os.environ,
            "PATH": f"/usr/bin:{os.environ['PATH']}",  # Debian's client of Docker, whose BuildKit needs no plugin
            "DOCKER_HOST": docker_host,
            "DOCKER_BUILDKIT": "1",
            "COMPOSE_DOCKER_CLI_BUILD": "1",
            "COMPOSE_PROJECT_NAME": f"nemo{secrets.token_hex(3)}",
            "COMPOSE_FILE": f"docker/compose.yaml:{Path(__file__).with_name('impatient.yaml')}",
            "NEMO_AIRFLOW_TAG": "test",
            "RAY_TAG": "test",
            **{name: str(port) for name, port in ports.items()},
        }

    def sh(self, command, timeout=1800):
        """Runs a command of the docs in the checkout; this Compose is an older one, of another name."""
        command = re.sub(r"\bdocker compose( --file docker/compose.yaml)?", "docker-compose", command)
        return subprocess.run(
            ["bash", "-euc", command], cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=timeout
        )

    def compose(self, *words):
        done = self.sh(f"docker compose {' '.join(words)}")
        assert done.returncode == 0, f"docker compose {' '.join(words)}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def container(self, service):
        """Returns the id of a service's container; Docker's own client is asked, which is quick."""
        label = "label=com.docker.compose."
        own = f"--filter {label}project={self.env['COMPOSE_PROJECT_NAME']} --filter {label}service={service}"
        return self.sh(f"docker ps --all --quiet --no-trunc {own}").stdout.strip()

    def inspect(self, service):
        """Returns what Docker knows of a service's container."""
        return json.loads(self.sh(f"docker inspect {self.container(service)}").stdout)[0]

    def execute(self, service, command):
        """Runs a command in a service's container, and returns its exit code and what it printed."""
        done = self.sh(f"docker exec {self.container(service)} {command}")
        return done.returncode, done.stdout + done.stderr

    def kill(self, service):
        """Kills all processes of a service's container at once, as the kernel does where memory is short."""
        os.kill(self.inspect(service)["State"]["Pid"], signal.SIGKILL)

    @cached_property
    def services(self):
        """The names of all services."""
        return set(self.compose("config", "--services").split())

    @property
    def secrets(self):
        """What make-env.sh has written."""
        return dict(re.findall(r"^(\w+)=(.*)$", (self.folder / "docker/.env").read_text(), re.MULTILINE))

    def wait(self, condition, what, limit=600.0):
        """Returns the condition's first true value."""
        end = time.monotonic() + limit
        while True:
            try:
                if value := condition():
                    return value
            except httpx.TransportError:
                pass  # it has not started to listen
            if time.monotonic() > end:
                states = self.sh("docker compose ps; docker compose logs --tail 40").stdout
                raise TimeoutError(f"waited {limit:.0f} s for {what}\n{states[-20000:]}")
            time.sleep(0.5)
