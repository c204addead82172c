"""A real Airflow whose components are processes of their own, so that a test can kill one of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

READY = 120.0


class Airflow:
    """Airflow on sqlite in a folder of its own.

    Args:
        home: The folder.
        dags: The DAGs' folder.
        env: Further environment variables of its processes.
    """

    def __init__(self, home: Path, dags: Path, env: dict[str, str]) -> None:
        self.home = home
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.env = {
            **os.environ,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "6",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(_free_port()),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(_free_port()),
            "AIRFLOW__API_AUTH__JWT_SECRET": "of-the-tests-only-0123456789abcdef0123456789abcdef",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            **env,
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._token = ""

    def start(self) -> None:
        """Makes the database and starts all components."""
        self.home.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], env=self.env, check=True, capture_output=True)
        for component in ("api-server", "scheduler", "dag-processor", "triggerer"):
            self.start_component(component)
        self.wait(self._healthy, "Airflow to be healthy")

    def start_component(self, component: str) -> None:
        """Starts one component, in a session of its own."""
        log = (self.home / f"{component}.out").open("ab")
        self.processes[component] = subprocess.Popen(
            [sys.executable, "-m", "airflow", component], env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )

    def kill_component(self, component: str) -> None:
        """Kills a component and all its processes at once, as a lost machine would."""
        os.killpg(self.processes.pop(component).pid, signal.SIGKILL)

    def stop(self) -> None:
        """Stops all components."""
        for process in self.processes.values():
            os.killpg(process.pid, signal.SIGINT)
        deadline = time.monotonic() + 20
        for process in self.processes.values():
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, accept: str = "application/json") -> Any:
        """Calls the REST API."""
        if not self._token:
            self._token = self._request("POST", "/auth/token", {}, "application/json", token="")["access_token"]  # noqa: S106
        return self._request(method, f"/api/v2{path}", body, accept, self._token)

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None) -> str:
        """Triggers a DAG, once Airflow knows it, and returns the run's id."""
        self.wait(lambda: self._knows(dag_id), f"the DAG {dag_id}")
        self.call("PATCH", f"/dags/{dag_id}", {"is_paused": False})
        return str(self.call("POST", f"/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf or {}})["dag_run_id"])

    def task(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        """Returns a task instance."""
        return dict(self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"))

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int) -> list[dict[str, Any]]:
        """Returns the records of a try's log, as the web page shows them."""
        text = self.call(
            "GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}?full_content=true", accept="application/x-ndjson"
        )
        return [json.loads(line) for line in text.splitlines() if line.strip()]

    def wait(self, condition: Any, what: str, limit: float = READY) -> Any:
        """Waits until something has come about, and returns it."""
        deadline = time.monotonic() + limit
        while True:
            if result := condition():
                return result
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {limit:.0f} s for {what}\n{self.tails()}")
            time.sleep(0.3)

    def tails(self) -> str:
        """Returns the ends of the components' outputs."""
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in sorted(self.home.glob("*.out")))

    def _knows(self, dag_id: str) -> bool:
        try:
            return bool(self.call("GET", f"/dags/{dag_id}"))
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return False
            raise

    def _healthy(self) -> bool:
        try:
            health = self._request("GET", "/api/v2/monitor/health", None, "application/json", "")
        except OSError:
            return False
        return all(health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "triggerer", "dag_processor"))

    def _request(self, method: str, path: str, body: dict[str, Any] | None, accept: str, token: str) -> Any:
        headers = {"Accept": accept, "Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        data = json.dumps(body).encode() if body is not None else None
        if path == "/auth/token":
            method, data = "GET", None  # all are admins here
        request = urllib.request.Request(self.url + path, data, headers, method=method)  # noqa: S310 - loopback
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            text = response.read().decode()
        return json.loads(text) if accept == "application/json" else text


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
