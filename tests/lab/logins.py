"""A login of one's own on the lab's host, whose programs and start-up files a test may replace."""

import dataclasses
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from lab.backends import Lab, Ssh


@dataclasses.dataclass(frozen=True)
class Login:
    """A user of this machine, as the lab's host is.

    Attributes:
        ssh: How to log in.
        home: The user's home folder.
    """

    ssh: Ssh
    home: Path

    @property
    def _keys(self) -> Path:
        return self.home / ".ssh/authorized_keys"

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        """Writes a file of the user's, and the folders above it."""
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        for each in (path, path.parent):
            shutil.chown(each, self.ssh.user)
        return path

    def replace(self, program: str, script: str) -> None:
        """Puts a shell script before a program of the machine, which is ``$program`` in it."""
        found = shutil.which(program)
        self.write(f"bin/{program}", f"#!/bin/sh\nprogram={found}\n{script}", 0o755)

    def refuse(self) -> None:
        """Has sshd refuse the user from now on, and cuts what is open."""
        self._keys.chmod(0)
        shutil.chown(self._keys, "nobody")
        self.cut()

    def admit(self) -> None:
        """Has sshd let the user in again."""
        self._keys.chmod(0o600)
        shutil.chown(self._keys, self.ssh.user)

    def cut(self) -> None:
        """Ends the user's connections at the server, also those that are only being made."""
        for process in psutil.process_iter(["name", "cmdline"]):
            if process.info["name"] == "sshd" and self.ssh.user in " ".join(process.info["cmdline"] or ()):
                process.kill()


@contextmanager
def own_login(
    lab: Lab, ssh: Ssh, bashrc: str = "export PATH=~/bin:$PATH\n", *, uses_slurm: bool = True
) -> Iterator[Login]:
    """Makes a login, and removes it in the end."""
    user = f"lab-{uuid.uuid4().hex[:8]}"
    subprocess.run(["useradd", "-m", "-s", "/bin/bash", "-p", "*", user], check=True)
    try:
        if uses_slurm:
            lab.command("sacctmgr", "-i", "add", "user", user, "account=science")
        login = Login(dataclasses.replace(ssh, user=user), Path(f"/home/{user}"))
        login.write(".bashrc", bashrc)
        login.write(".ssh/authorized_keys", Path(f"{ssh.key_file}.pub").read_text(), 0o600)
        (login.home / ".ssh").chmod(0o700)
        yield login
    finally:
        if uses_slurm:
            lab.command("sacctmgr", "-i", "delete", "user", user)
        # By force: the drivers that the tests share keep their logins until the tests end.
        subprocess.run(["userdel", "-f", "-r", user], check=False, capture_output=True)
