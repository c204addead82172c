"""``nemo-airflow demo``: the example pipeline from end to end, in an Airflow of its own."""

from __future__ import annotations

import datetime
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.status import Status
from rich.table import Table

from nemo_airflow.cli.airflow_server import AirflowServer
from nemo_airflow.cli.examples import check_libraries, find_example_dags, is_in_clone
from nemo_airflow.cli.ports import check_port
from nemo_airflow.exceptions import NemoAirflowError

OVERRIDES = {"train.optimizer.learning_rate": 0.01, "train.optimizer.epochs": 15}
"""The demo's changes of the pipeline's config, as a person would make them in the trigger form."""

_ENV = {
    # Only the demo's own runs: a weekly DAG that is switched on would start a scheduled one.
    "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
    # The links lead to the page of "nemo-airflow ui".
    "NEMO_AIRFLOW_MLFLOW_PAGE": "http://127.0.0.1:5000",
}

DEFAULT_HOME = ".demo"

_LIMIT = 600.0
_ENDED = ("success", "failed")


def run(home: str, dags: str | None, port: int | None) -> int:
    """Runs the pipeline and the sweep, shows their results, and leaves no process behind."""
    check_libraries()
    if port is not None:
        check_port(port, "--port")
    folder = find_example_dags(dags, Path(home))
    console = Console(width=min(120, Console().width) if os.isatty(1) else 120)
    server = AirflowServer(Path(home), folder, port=port, env=_ENV)
    try:
        with console.status("") as status:
            _say(status, console, f"starting Airflow in {server.home}")
            server.start()
            retrained = _run_dag(server, "retrain_digits", OVERRIDES, status, console)
            swept = _run_dag(server, "sweep_digits", {}, status, console)
        if swept:
            _show_best(server, swept, console)
        if retrained:
            _show_champion(server, retrained, console)
        _show_where(server, "make ui" if is_in_clone(folder) else _ui_command(home), console)
    finally:
        server.stop()
    return 0 if retrained and swept else 1


def _say(status: Status, console: Console, text: str) -> None:
    """Shows the progress: as a changing line on a terminal, else as lines."""
    status.update(text)
    if not console.is_terminal:
        console.print(f"{datetime.datetime.now():%H:%M:%S} {text}", markup=False, highlight=False)


def _run_dag(server: AirflowServer, dag_id: str, conf: Mapping[str, Any], status: Status, console: Console) -> str:
    """Runs a DAG and shows how its tasks ended; returns the run's id, or an empty string when it failed."""
    run_id = server.trigger(dag_id, conf)
    with_conf = f" with {', '.join(f'{name}={value}' for name, value in conf.items())}" if conf else ""
    _say(status, console, f"{dag_id}: triggered{with_conf}")
    said = ""

    def ended() -> str:
        nonlocal said
        now = _progress(server.tasks(dag_id, run_id))
        if now != said:
            said = now
            _say(status, console, f"{dag_id}: {now}")
        state = str(server.run(dag_id, run_id)["state"])
        return state if state in _ENDED else ""

    state = server.wait(ended, f"the end of {dag_id}", _LIMIT)
    tasks = server.tasks(dag_id, run_id)
    _show_tasks(dag_id, run_id, tasks, console)
    for task in tasks:
        if task["state"] == "failed":
            _show_log(server, task, console)
    return run_id if state == "success" else ""


def _progress(tasks: list[dict[str, Any]]) -> str:
    counts: dict[str, int] = {}
    for task in tasks:
        state = task["state"] or "waiting"
        counts[state] = counts.get(state, 0) + 1
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))


def _show_tasks(dag_id: str, run_id: str, tasks: list[dict[str, Any]], console: Console) -> None:
    console.print(f"[bold]{dag_id}[/]  {run_id}", highlight=False)
    table = Table()
    for column in ("task", "state", "tries", "seconds"):
        table.add_column(column, justify="right" if column in ("tries", "seconds") else "left")
    started: dict[str, str] = {}
    for task in tasks:
        started[task["task_id"]] = min(started.get(task["task_id"], "~"), task["start_date"] or "~")
    for task in sorted(tasks, key=lambda task: (started[task["task_id"]], task["map_index"])):
        index = f"[{task['map_index']}]" if task["map_index"] >= 0 else ""
        colour = {"success": "green", "failed": "red"}.get(task["state"] or "", "yellow")
        table.add_row(
            f"{task['task_id']}{index}".replace("[", "\\["),
            f"[{colour}]{task['state']}[/]",
            str(task["try_number"]),
            f"{task['duration'] or 0:.1f}",
        )
    console.print(table)


def _show_log(server: AirflowServer, task: Mapping[str, Any], console: Console) -> None:
    console.print(f"the end of the log of {task['task_id']}:", style="red")
    records = server.log(task["dag_id"], task["dag_run_id"], task["task_id"], task["try_number"], task["map_index"])
    for record in records[-30:]:
        console.print(f"  {record.get('event', '')}", markup=False, highlight=False)


def _show_best(server: AirflowServer, run_id: str, console: Console) -> None:
    best = server.xcom("sweep_digits", run_id, "best")
    hidden = ", ".join(str(units) for units in best["hidden"])
    console.print(
        f"The best of the sweep: {hidden} hidden units, learning rate {best['learning_rate']}, "
        f"held-out accuracy {best['accuracy']:.4f}",
        highlight=False,
    )


def _show_champion(server: AirflowServer, run_id: str, console: Console) -> None:
    outcome = server.xcom("retrain_digits", run_id, "promote")
    trained = server.xcom("retrain_digits", run_id, "train")
    console.print("[bold]The model[/]")
    table = Table(show_header=False)
    rows = {
        "digits trained on": str(trained["samples"]),
        **{
            f"held-out {name}": f"{value:.4f}" if isinstance(value, float) else str(value)
            for name, value in outcome["metrics"].items()
        },
        "champion before": f"version {outcome['champion_before']}" if outcome["champion_before"] else "none",
        "champion after": f"version {outcome['champion_after']}",
        "why": outcome["reason"],
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)


def _ui_command(home: str) -> str:
    return f"nemo-airflow ui{'' if home == DEFAULT_HOME else f' --home {shlex.quote(home)}'}"


def _show_where(server: AirflowServer, command: str, console: Console) -> None:
    try:
        user, password = server.login
    except (OSError, ValueError) as error:
        raise NemoAirflowError(f"Airflow wrote no password: {error}") from error
    console.print(
        f"Look at it all with [bold]{command}[/]: Airflow at http://127.0.0.1:8080 "
        f"(user [bold]{user}[/], password [bold]{password}[/]), MLflow at http://127.0.0.1:5000.",
        highlight=False,
    )
