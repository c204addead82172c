"""A whole Airflow on this machine in its own folder, for the demo, for trying things, and for tests."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx

from nemo_airflow.cli.ports import check_port, hold_port, port_of
from nemo_airflow.exceptions import NemoAirflowError
from nemo_airflow.executors.processes import kill_marked

T = TypeVar("T")

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")

_READY = 600.0
_STOP = 20.0
_LONGEST_PAUSE = 1.0
"""Seconds between two looks: an answer of the API takes a core a tenth of one."""
_MARK = "NEMO_AIRFLOW_SERVER"


class AirflowServer:
    """Airflow with a sqlite database, a few workers, and one process for each component.

    It listens on the loopback address only.

    Args:
        home: Folder of its database and logs (``airflow``), and of jobs, packages and runs (``nemo``).
        dags: Folder of the DAGs.
        port: Port of its page; a free one when None.
        env: Further environment variables of its processes.
        open_to_all: Whether its page needs no login; for tests.
        path: Path below which it is served, as behind a proxy, for example ``/airflow``.
    """

    def __init__(
        self,
        home: Path,
        dags: Path,
        *,
        port: int | None = None,
        env: Mapping[str, str] | None = None,
        open_to_all: bool = False,
        path: str = "",
    ) -> None:
        self.home = home.absolute()
        self._held = [hold_port() for _ in range(2 if port is not None else 3)]
        self.port = port if port is not None else port_of(self._held[2])
        self.url = f"http://127.0.0.1:{self.port}{path}"
        self._mark = secrets.token_hex(8)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._client = httpx.Client(base_url=self.url, timeout=120.0)  # a busy machine answers slowly
        self.env = {**os.environ, **self._settings(dags.absolute(), open_to_all), **(env or {})}

    def _settings(self, dags: Path, open_to_all: bool) -> dict[str, str]:
        return {
            _MARK: self._mark,
            "AIRFLOW_HOME": str(self.airflow_home),
            "NEMO_AIRFLOW_HOME": str(self.home / "nemo"),
            # One process writes at a time: on a busy machine the others wait longer than sqlite's five seconds.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.airflow_home}/airflow.db?timeout=60",
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            # Few workers: an idle one takes 170 MB, and the default is 32 of them.
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": str(open_to_all),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            # On a busy machine the one API process may take longer than the five seconds a worker would wait: the task
            # would fail before it has begun.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(64),
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(port_of(self._held[0])),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(port_of(self._held[1])),
        }

    @property
    def airflow_home(self) -> Path:
        """Airflow's own folder."""
        return self.home / "airflow"

    @property
    def login(self) -> tuple[str, str]:
        """The user and password of its page."""
        passwords = json.loads((self.airflow_home / "simple_auth_manager_passwords.json.generated").read_text())
        user, password = next(iter(passwords.items()))
        return str(user), str(password)

    def start(self) -> None:
        """Creates or upgrades the database, and starts all components.

        Raises:
            SettingsError: The port is in use.
            NemoAirflowError: A component did not start; the message has the end of its output.
        """
        check_port(self.port, "--port")
        self.airflow_home.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NemoAirflowError(f"'airflow db migrate' failed in {self.airflow_home}: {done.stderr.strip()[-2000:]}")
        for component in COMPONENTS:
            self.start_component(component)
        self.wait(self._is_healthy, "Airflow to be healthy")

    def start_component(self, component: str) -> None:
        """Starts one of the :data:`COMPONENTS`."""
        with (self.airflow_home / f"{component}.out").open("ab") as log:
            self._processes[component] = subprocess.Popen(
                [sys.executable, "-m", "airflow", component],
                env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def kill_component(self, component: str) -> None:
        """Kills a component and all its processes at once, like the loss of its machine."""
        process = self._processes.pop(component)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """Stops all components with all their processes. Running jobs go on."""
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + _STOP
        for process in self._processes.values():
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._processes.clear()
        # Jobs do not inherit the mark; a process that has it now was left by a component.
        kill_marked(_MARK, self._mark)
        self._client.close()
        for holder in self._held:
            holder.close()

    # Talking to it

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, accept: str = "application/json"
    ) -> Any:
        """Calls the REST API, as ``/api/v2<path>``; returns JSON, or text for another type.

        Raises:
            NemoAirflowError: The API refuses; the message is the API's.
        """
        if "Authorization" not in self._client.headers:
            self._client.headers["Authorization"] = f"Bearer {self._token()}"
        answer = self._client.request(method, f"/api/v2{path}", json=body, headers={"Accept": accept})
        if answer.is_error:
            raise ApiError(f"{method} {path}: {answer.status_code} {answer.text[:500]}", answer.status_code)
        return answer.json() if accept == "application/json" else answer.text

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Starts a run of a DAG as soon as Airflow has read the DAG, and returns the run's id."""
        self.unpause(dag_id)
        return str(
            self.call("POST", f"/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": dict(conf or {})})["dag_run_id"]
        )

    def unpause(self, dag_id: str) -> None:
        """Has a DAG's runs begin, as soon as Airflow has read the DAG."""
        self.wait(lambda: self._knows(dag_id), f"the DAG {dag_id}")
        self.call("PATCH", f"/dags/{dag_id}", {"is_paused": False})

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Returns a DAG run."""
        return dict(self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}"))

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Returns the task instances of a run."""
        return list(self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"])

    def task(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        """Returns a task instance that is not mapped."""
        return dict(self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"))

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """Returns an XCom of a task."""
        return self.call(
            "GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}?deserialize=true"
        )["value"]

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int, map_index: int = -1) -> list[dict[str, Any]]:
        """Returns the records of a try's log, as the page shows them."""
        instance = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
        path = f"{instance}/logs/{try_number}?full_content=true&map_index={map_index}"
        text = self.call("GET", path, accept="application/x-ndjson")
        return [json.loads(line) for line in text.splitlines() if line.strip()]

    def wait(self, condition: Callable[[], T], what: str, limit: float = _READY) -> T:
        """Waits until the condition is true, and returns its value.

        Raises:
            NemoAirflowError: It was not true within ``limit`` seconds, or a component has ended.
        """
        deadline = time.monotonic() + limit
        pause = 0.2
        while not (result := condition()):
            for component, process in self._processes.items():
                if process.poll() is not None:
                    tail = self._tail(component)
                    raise NemoAirflowError(f"Airflow's {component} ended with exit code {process.returncode}:\n{tail}")
            if time.monotonic() > deadline:
                raise NemoAirflowError(
                    f"waited {limit:.0f} s for {what}; the components' output is in {self.airflow_home}/*.out"
                )
            time.sleep(pause)
            pause = min(pause * 1.3, _LONGEST_PAUSE)
        return result

    def _knows(self, dag_id: str) -> bool:
        try:
            return bool(self.call("GET", f"/dags/{dag_id}"))
        except ApiError as error:
            if error.status != 404:
                raise
        for problem in self.call("GET", "/importErrors")["import_errors"]:
            raise NemoAirflowError(f"the DAG file {problem['filename']} cannot be read:\n{problem['stack_trace']}")
        return False

    def _is_healthy(self) -> bool:
        try:
            health = self._client.get("/api/v2/monitor/health").json()
        except (httpx.HTTPError, ValueError):
            return False
        return all(
            health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "triggerer", "dag_processor")
        )

    def _token(self) -> str:
        if self.env["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"] == "True":
            answer = self._client.get("/auth/token")
        else:
            user, password = self.login
            answer = self._client.post("/auth/token", json={"username": user, "password": password})
        return str(answer.raise_for_status().json()["access_token"])

    def _tail(self, component: str) -> str:
        return (self.airflow_home / f"{component}.out").read_text(errors="replace")[-3000:]


class ApiError(NemoAirflowError):
    """Airflow's API refused a call."""

    def __init__(self, message: str, status: int) -> None:
        self.status = status
        super().__init__(message)


def until_interrupted() -> Iterator[None]:
    """Yields each second, until Ctrl-C or SIGTERM."""
    ended = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.append(True))
    while not ended:
        yield
        time.sleep(1)
