"""Where the back-ends of a lab are and how one gets at them; ``lab.sh`` beside this file makes them."""

import os
import shlex
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

SCRIPT = Path(__file__).with_name("lab.sh")
HOME = Path(os.environ.get("NEMO_LAB", "/tmp/nemo-lab"))
HOW_TO = "bring it up with `make lab`"
# The part of the lab that `lab.sh up` has to be given for a daemon to come back.
PARTS = {
    "docker": ("dockerd",),
    "slurm": ("mariadbd", "slurmdbd", "slurmctld", "slurmd.n1", "slurmd.n2", "slurmd.n3", "slurmd.n4", "sshd"),
    "postgres": ("postgres",),
    "k8s": ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet"),
}


class LabError(Exception):
    """A back-end is not there, or the lab could not be brought up or down."""


@dataclass(frozen=True)
class Ssh:
    """A login on a machine: what any SSH client needs, host key included."""

    host: str
    port: int
    user: str
    key_file: Path
    host_key: str  # type and key, as in a public key file

    @property
    def known_hosts(self) -> str:
        """The host's line of a ``known_hosts`` file."""
        name = self.host if self.port == 22 else f"[{self.host}]:{self.port}"
        return f"{name} {self.host_key}\n"

    @classmethod
    def at(cls, uri: str, key_file: str | Path) -> "Ssh":
        """Reads ``ssh://user@host:port`` and asks the host for its key.

        Raises:
            LabError: nothing answers there.
        """
        parts = urlsplit(uri)
        host, port, user = parts.hostname or "", parts.port or 22, parts.username or ""
        try:
            scan = _output("ssh-keyscan", "-T", "10", "-t", "ed25519", "-p", str(port), host)
            [key] = [line.split(maxsplit=1)[1].strip() for line in scan.splitlines() if not line.startswith("#")]
        except (LabError, ValueError) as error:
            raise LabError(f"no SSH server with an ed25519 key answers at {uri}") from error
        return cls(host, port, user, Path(key_file), key)

    def run(self, script: str, timeout: float = 60) -> str:
        """Runs a shell script there, by the machine's ``ssh``, and returns what it printed.

        Raises:
            LabError: it exited with anything but 0.
        """
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes")
        named = [word for option in options for word in ("-o", option)]
        to = ["-i", str(self.key_file), "-p", str(self.port), f"{self.user}@{self.host}", "bash -s"]
        return _output("ssh", *named, *to, input=script, timeout=timeout)


@dataclass(frozen=True)
class Lab:
    """One lab: its folder, and what sets a second one apart."""

    home: Path = HOME
    port_base: int | None = None
    builds: Path | None = None

    def up(self, *parts: str) -> None:
        """Starts what of the parts does not run."""
        self._script("up", *parts)

    def down(self, *parts: str) -> None:
        """Ends the parts' daemons and what runs in them."""
        self._script("down", *parts)

    @cached_property
    def env(self) -> dict[str, str]:
        """What ``lab.sh env`` exports."""
        return dict(word.split("=", 1) for word in shlex.split(self._script("env"))[1:])

    @property
    def docker_host(self) -> str:
        """The URL of dockerd's socket."""
        return self.env["DOCKER_HOST"]

    @property
    def kubeconfig(self) -> Path:
        """The file with the admin's access."""
        return Path(self.env["KUBECONFIG"])

    @property
    def ssh(self) -> Ssh:
        """The login from which Slurm is used."""
        return Ssh.at(self.env["NEMO_TEST_SSH"], self.env["NEMO_TEST_SSH_KEY"])

    @property
    def postgres(self) -> str:
        """The address of an empty database, as SQLAlchemy has it."""
        return self.env["NEMO_TEST_POSTGRES"]

    @property
    def gridengine_settings(self) -> Path:
        """What a shell sources to use the lab's Grid Engine."""
        return self.home / "gridengine/root/default/common/settings.sh"

    def command(self, *words: str, timeout: float = 60) -> str:
        """Runs a client (docker, kubectl, squeue) on this machine, as the administrator of this lab."""
        return _output(*words, env={**os.environ, **self.env}, timeout=timeout)

    def process(self, daemon: str) -> psutil.Process:
        """The running process of a daemon, by the name that ``lab.sh status`` gives it.

        Raises:
            LabError: it does not run.
        """
        pid_file = self.home / "run" / f"{daemon}.pid"
        try:
            process = psutil.Process(int(pid_file.read_text()))
            if process.name()[:15] == daemon.partition(".")[0][:15] and process.status() != psutil.STATUS_ZOMBIE:
                return process
        except (FileNotFoundError, psutil.NoSuchProcess):
            pass
        raise LabError(f"{daemon} of the lab in {self.home} does not run: {HOW_TO}")

    def _script(self, *words: str) -> str:
        env = {**os.environ, "NEMO_LAB": str(self.home)}
        if self.port_base is not None:
            env["NEMO_LAB_PORT_BASE"] = str(self.port_base)
        if self.builds is not None:
            env["NEMO_LAB_BUILDS"] = str(self.builds)
        return _output("bash", str(SCRIPT), *words, env=env, timeout=1200)


def part_of(daemon: str) -> str:
    """Returns the part of the lab that a daemon belongs to."""
    return next(part for part, daemons in PARTS.items() if daemon in daemons)


def _output(*words: str, **options: Any) -> str:
    done: subprocess.CompletedProcess[str] = subprocess.run(
        words, text=True, capture_output=True, check=False, **options
    )
    if done.returncode != 0:
        raise LabError(f"{shlex.join(words)} exited with {done.returncode}: {done.stderr.strip()}")
    return done.stdout
