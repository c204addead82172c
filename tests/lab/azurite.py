"""Azure's blob storage on this machine: Azurite, from npm, on a port of the loopback."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.backends import HOME, LabError

from nemo_airflow.cli.ports import hold_port, port_of

VERSION = "3.35.0"
ACCOUNT = "devstoreaccount1"
# The account and key that Azurite has for everybody; no secret.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_PATIENCE = 180


@contextmanager
def azurite(folder: Path) -> Iterator[str]:
    """Runs an Azurite and gives its connection string; it is installed once, in the lab's folder.

    Args:
        folder: Where it keeps its blobs.
    """
    program = _installed()
    with hold_port() as holder:
        port = port_of(holder)
        options = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder), "--silent"]
        command = [program, *options, "--skipApiVersionCheck", "--disableTelemetry"]
        # The node on the path is a script of Python, whose child is the real one: both are ended.
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=_env(), start_new_session=True)
        try:
            _await(port, process)
            address = f"http://127.0.0.1:{port}/{ACCOUNT}"
            yield f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={address};"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(300)


def _env() -> dict[str, str]:
    """Returns an environment with the Node.js that comes with the tests' packages."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "CI": "true"}


def _installed() -> str:
    home = HOME / "azurite"
    program = home / "node_modules" / ".bin" / "azurite-blob"
    home.mkdir(parents=True, exist_ok=True)
    with open(home / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(home), f"azurite@{VERSION}"]
            done = subprocess.run(command, capture_output=True, text=True, env=_env())
            if done.returncode:
                raise LabError(f"azurite cannot be installed: {done.stderr.strip().splitlines()[-1:]}")
    return str(program)


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            raise LabError(f"azurite ended with exit code {process.returncode}")
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise LabError(f"azurite did not listen on port {port} within {_PATIENCE} s")
