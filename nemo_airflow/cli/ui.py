"""``nemo-airflow ui``: the demo's Airflow and an MLflow page, until Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx
from rich.console import Console

from nemo_airflow.cli.airflow_server import AirflowServer, until_interrupted
from nemo_airflow.cli.examples import find_dags
from nemo_airflow.cli.ports import check_port
from nemo_airflow.exceptions import NemoAirflowError


def run(home: str, dags: str | None, port: int, mlflow_port: int) -> int:
    """Starts both, prints their addresses, and waits for Ctrl-C."""
    for each, option in ((port, "--port"), (mlflow_port, "--mlflow-port")):
        check_port(each, option)
    folder = find_dags(dags, Path(home))
    console = Console(highlight=False)
    mlflow_url = f"http://127.0.0.1:{mlflow_port}"
    # The links on Airflow's page lead to this MLflow page.
    server = AirflowServer(Path(home), folder, port=port, env={"NEMO_AIRFLOW_MLFLOW_PAGE": mlflow_url})
    mlflow: subprocess.Popen[bytes] | None = None
    try:
        with console.status("starting Airflow and MLflow"):
            server.start()
            mlflow = _start_mlflow(server, mlflow_port)
            server.wait(lambda: _answers(mlflow_url, mlflow), "MLflow's page")
        user, password = server.login
        console.print(f"Airflow  {server.url}  user [bold]{user}[/], password [bold]{password}[/]")
        console.print(f"MLflow   {mlflow_url}")
        console.print("Ctrl-C ends both.")
        for _ in until_interrupted():
            if mlflow.poll() is not None:
                raise NemoAirflowError(f"MLflow ended; its output is in {server.home / 'mlflow.out'}")
    finally:
        if mlflow is not None:
            mlflow.send_signal(signal.SIGTERM)
            mlflow.wait()
        server.stop()
    return 0


def _start_mlflow(server: AirflowServer, port: int) -> subprocess.Popen[bytes]:
    store = server.home / "nemo"
    store.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{store / 'mlflow.db'}",
        "--artifacts-destination",
        str(store / "mlartifacts"),
    ]
    with (server.home / "mlflow.out").open("ab") as log:
        return subprocess.Popen(
            command, env=server.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def _answers(url: str, process: subprocess.Popen[bytes] | None) -> bool:
    if process is not None and process.poll() is not None:
        raise NemoAirflowError("MLflow did not start: see mlflow.out in the demo's folder")
    try:
        return httpx.get(f"{url}/health", timeout=5).is_success
    except httpx.HTTPError:
        return False
