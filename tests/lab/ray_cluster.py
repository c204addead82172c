"""Real Ray clusters on the loopback interface, each a group of processes of its own."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import psutil
import pytest

from nemo_airflow.cli.ports import hold_port, port_of

_START = 600.0

_TOO_SLOW = ("The current node timed out during startup", "Timed out waiting for node info")
"""What Ray's processes end with where others take more than half a minute: ``ray start`` then ends them all."""

_ENV = {
    # On a busy machine the dashboard takes more than the minute after which ``ray start`` gives up.
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300",
    "RAY_agent_register_timeout_ms": "300000",
    # What nobody looks at here: how much each process uses, and workers for tasks that may come.
    "REPORTER_UPDATE_INTERVAL_MS": "60000",
    "RAY_metrics_report_interval_ms": "60000",
    "RAY_prestart_worker_first_driver": "0",
}


class NodeEnded(RuntimeError):
    """A node has ended by itself."""


class RayCluster:
    """A head node, to which worker nodes can be added.

    Args:
        cpus: CPU cores that the head says it has.
        env: Further environment variables for Ray.
    """

    def __init__(self, cpus: int = 4, env: dict[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: Ray puts sockets there
        self.cpus = cpus
        self._env = env or {}
        self._held = [_hold_port() for _ in range(4)]
        self._port, self._dashboard, self.agent, self._client_port = (port_of(holder) for holder in self._held)
        self._nodes: list[subprocess.Popen[bytes]] = []
        token = self._env.get("RAY_AUTH_TOKEN")
        self._client = httpx.Client(headers={"Authorization": f"Bearer {token}"} if token else {}, timeout=30.0)

    @property
    def address(self) -> str:
        """The dashboard's address."""
        return f"http://127.0.0.1:{self._dashboard}"

    @property
    def head(self) -> subprocess.Popen[bytes]:
        """The head node."""
        return self._nodes[0]

    def start(self) -> RayCluster:
        """Starts the head; after :meth:`stop` at the same address, and with nothing remembered."""
        self._nodes = []
        arguments = (
            "--head",
            f"--port={self._port}",
            f"--num-cpus={self.cpus}",
            "--include-dashboard=true",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={self._dashboard}",
            f"--dashboard-agent-listen-port={self.agent}",
            f"--ray-client-server-port={self._client_port}",
            "--no-monitor",  # nothing is scaled
        )
        self._add(arguments, "head", None, self._is_head_up)
        return self

    def _is_head_up(self) -> bool:
        # The client's server comes last, and all end with it where it gives up.
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._client_port), timeout=1):
            # The job API answers once the agent of the head's node has registered.
            return self.get("/api/jobs/").is_success and len(self.nodes()) == 1
        return False

    def add_worker(
        self, resources: dict[str, float], agent: int | None = None, env: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Adds a node with one CPU and some custom resources.

        Args:
            resources: Amounts by name.
            agent: The port that its agent listens on; a free one when None.
            env: Further environment variables for this node.
        """
        self._held.append(_hold_port())
        arguments = (
            f"--address=127.0.0.1:{self._port}",
            "--num-cpus=1",
            f"--resources={json.dumps(resources)}",
            f"--dashboard-agent-listen-port={agent or port_of(self._held[-1])}",
        )
        return self._add(arguments, f"w{len(self._held)}", env, lambda: len(self.nodes()) == len(self._nodes))

    def nodes(self) -> list[dict[str, object]]:
        """Returns the living nodes."""
        answer = self.get("/api/v0/nodes").raise_for_status().json()
        return [node for node in answer["data"]["result"]["result"] if node["state"] == "ALIVE"]

    def has_nodes(self, count: int) -> bool:
        """Returns whether the head runs and knows of so many nodes."""
        return bool(self._nodes) and len(self.nodes()) == count

    def stop(self) -> None:
        """Kills all nodes, as a power cut would."""
        while self._nodes:
            _kill_session(self._nodes.pop())

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """Kills a node that is not the head, and waits until the head knows."""
        self._nodes.remove(node)
        _kill_session(node)
        self._wait(lambda: len(self.nodes()) == len(self._nodes))

    def remove(self) -> None:
        """Kills all nodes, and deletes what they wrote."""
        self.stop()
        for holder in self._held:
            holder.close()
        self._client.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def get(self, path: str) -> httpx.Response:
        """Asks the dashboard."""
        return self._client.get(f"{self.address}{path}")

    def _add(
        self, arguments: Sequence[str], name: str, env: dict[str, str] | None, is_up: Callable[[], bool]
    ) -> subprocess.Popen[bytes]:
        """Starts a node, again where it gives up: on a busy machine it takes more than Ray's own thirty seconds."""
        deadline = time.monotonic() + _START
        while True:
            node = self._start(*arguments, name=name, env=env)
            self._nodes.append(node)
            try:
                self._wait(is_up, deadline)
            except NodeEnded:
                self._nodes.remove(node)
                _kill_session(node)
                log = (self.folder / f"{name}.log").read_text()
                if not any(text in log for text in _TOO_SLOW) or time.monotonic() > deadline:
                    raise
                shutil.rmtree(self.folder / name, ignore_errors=True)
                (self.folder / f"{name}.log").unlink()
            else:
                return node

    def _start(self, *arguments: str, name: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        ray = str(Path(sys.executable).with_name("ray"))
        command = [
            ray, "start", "--block", "--disable-usage-stats", "--include-log-monitor=false",
            "--object-store-memory=200000000",
            # As on machines of their own, nodes share no folder.
            f"--temp-dir={self.folder / name}",
            *arguments,
        ]  # fmt: skip
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "NEMO_AIRFLOW"))}
        # As in Ray's images, the interpreter that has Ray is the one that jobs find.
        inherited["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{inherited['PATH']}"
        with open(self.folder / f"{name}.log", "ab") as log:
            return subprocess.Popen(
                command,
                env={**inherited, **_ENV, **self._env, **(env or {})},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def _wait(self, condition: Callable[[], bool], deadline: float | None = None) -> None:
        deadline = deadline or time.monotonic() + _START
        while time.monotonic() < deadline:
            for node in self._nodes:
                if node.poll() is not None:
                    raise NodeEnded(f"a Ray node ended with {node.returncode}:\n{self._logs()}")
            with contextlib.suppress(httpx.HTTPError):
                if condition():
                    return
            time.sleep(0.2)
        raise RuntimeError(f"Ray did not start within {_START:.0f} s:\n{self._logs()}")

    def _logs(self) -> str:
        """Returns the ends of what the nodes have written: a gate keeps nothing else of them."""
        logs = [*self.folder.glob("*.log"), *self.folder.glob("*/session_latest/logs/*")]
        tails = ((path, path.read_text(errors="replace")[-800:].strip()) for path in sorted(logs) if path.is_file())
        return "\n".join(f"-- {path.relative_to(self.folder)}\n{tail}" for path, tail in tails if tail)


def _kill_session(node: subprocess.Popen[bytes]) -> None:
    processes = []
    with contextlib.suppress(psutil.NoSuchProcess):  # it has ended by itself; what it started may run
        processes = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
    session = node.pid
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(process.pid) == session and process not in processes:
                processes.append(process)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    node.wait()
    psutil.wait_procs(processes, timeout=10)


def _hold_port() -> socket.socket:
    """Holds a port that is below those the kernel gives to clients, and above those that Ray gives to its workers."""
    for port in range(20_000, 30_000):
        with contextlib.suppress(OSError):
            return hold_port(port)
    raise AssertionError("all ports are in use")


_shared: list[RayCluster] = []


def shared_address() -> str:
    """Returns the dashboard's address of ``$RAY_ADDRESS``, else of a cluster that the tests share."""
    if address := os.environ.get("RAY_ADDRESS"):
        return address
    if not _shared:
        cluster = RayCluster(env={"RUNTIME_ENV_RETRY_TIMES": "1"})
        atexit.register(cluster.remove)
        _shared.append(cluster.start())
    return _shared[0].address


def end_shared() -> None:
    """Ends the cluster that tests shared; who asks for it again gets another."""
    while _shared:
        _shared.pop().remove()


@pytest.fixture
def ray_address(lab_ray: str) -> str:
    """The address of a Ray cluster that tests share."""
    return lab_ray
