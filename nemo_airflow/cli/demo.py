"""``nemo-airflow demo``: the example pipeline from end to end, in an Airflow of its own."""

from __future__ import annotations

import datetime
import os
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from rich.panel import Panel
from rich.status import Status
from rich.table import Table

from nemo_airflow.cli.airflow_server import AirflowServer
from nemo_airflow.cli.examples import check_libraries, find_example_dags, is_in_clone
from nemo_airflow.cli.ports import check_port
from nemo_airflow.exceptions import NemoAirflowError

RETRAIN, ROLLBACK, SWEEP = "retrain_digits", "rollback_digits", "sweep_digits"

STORY = (
    ("a first model", RETRAIN, {"until": "2026-06-29"}),
    ("one that is worse", RETRAIN, {"until": "2026-06-29", "train.optimizer.epochs": 8}),
    ("one of later data, which may be better", RETRAIN, {"until": "2026-08-24"}),
    ("back again", ROLLBACK, {"why": "the demo shows a rollback"}),
)
"""A promotion, a refusal, an approval and a rollback: each with its DAG, and what the trigger form is given."""

_ENV = {
    # Only the demo's own runs: a weekly DAG that is switched on would start a scheduled one.
    "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
    # The links lead to the page of "nemo-airflow ui".
    "NEMO_AIRFLOW_MLFLOW_PAGE": "http://127.0.0.1:5000",
}

DEFAULT_HOME = ".demo"

_LIMIT = 600.0
_ENDED = ("success", "failed")
_ASKS = "awaiting_input"

_READS = 10.0
"""Seconds before a question is answered: Airflow fails a task whose answer comes before the scheduler has noted that
the task waits, which takes a second or two."""


def run(home: str, dags: str | None, port: int | None) -> int:
    """Runs the pipeline through its story, and the sweep beside it; shows the results, and leaves no process behind."""
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
            sweep = server.trigger(SWEEP)
            ran = []
            for title, dag_id, conf in STORY:
                run_id = server.trigger(dag_id, conf)
                values = ", ".join(f"{name}={value}" for name, value in conf.items())
                _say(status, console, f"{title}: {dag_id} with {values}")
                ran.append(run_id if _follow(server, dag_id, run_id, status, console) else "")
                if not ran[-1]:
                    break
            swept = _follow(server, SWEEP, sweep, status, console)
        if swept:
            _show_best(server, sweep, console)
        _show_story(server, ran, console)
        _show_where(server, "make ui" if is_in_clone(folder) else _ui_command(home), console)
    finally:
        server.stop()
    return 0 if swept and all(ran) else 1


def _say(status: Status, console: Console, text: str) -> None:
    """Shows the progress: as a changing line on a terminal, else as lines."""
    status.update(text)
    if not console.is_terminal:
        console.print(f"{datetime.datetime.now():%H:%M:%S} {text}", markup=False, highlight=False)


def _follow(server: AirflowServer, dag_id: str, run_id: str, status: Status, console: Console) -> bool:
    """Waits for the end of a run, approves what it asks for, and shows its tasks; returns whether it went well."""
    said = ""
    asked_at: dict[tuple[str, int], float] = {}

    def ended() -> str:
        nonlocal said
        tasks = server.tasks(dag_id, run_id)
        now = _progress(tasks)
        if now != said:
            said = now
            _say(status, console, f"{dag_id}: {now}")
        for task in tasks:
            if task["state"] == _ASKS:
                since = asked_at.setdefault((task["task_id"], task["try_number"]), time.monotonic())
                if time.monotonic() - since > _READS:
                    _approve(server, task, console)
        state = str(server.run(dag_id, run_id)["state"])
        return state if state in _ENDED else ""

    state = server.wait(ended, f"the end of {dag_id}", _LIMIT)
    tasks = server.tasks(dag_id, run_id)
    _show_tasks(dag_id, run_id, tasks, console)
    for task in tasks:
        if task["state"] == "failed":
            _show_log(server, task, console)
    return state == "success"


def _approve(server: AirflowServer, task: Mapping[str, Any], console: Console) -> None:
    """Shows what a person is asked, and answers as Airflow's page does when "Approve" is clicked."""
    run = f"/dags/{task['dag_id']}/dagRuns/{task['dag_run_id']}"
    path = f"{run}/taskInstances/{task['task_id']}/{task['map_index']}/hitlDetails"
    asked = server.call("GET", path)
    if asked["response_received"]:
        return
    console.print(Panel(Markdown(asked["body"]), title=asked["subject"]))
    server.call("PATCH", path, {"chosen_options": ["Approve"], "params_input": {}})


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
        colour = {"success": "green", "failed": "red", "skipped": "cyan"}.get(task["state"] or "", "yellow")
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


def _show_story(server: AirflowServer, ran: list[str], console: Console) -> None:
    """Shows what each run has decided, and the version in service after it."""
    table = Table("what", "champion", "why", title="The model digits")
    champion = "none"
    for run_id, (title, dag_id, _) in zip(ran, STORY, strict=False):
        if not run_id:
            continue
        task = "rollback" if dag_id == ROLLBACK else "promote"
        if server.task(dag_id, run_id, task)["state"] == "success":
            champion = f"version {server.xcom(dag_id, run_id, task)['version']}"
        table.add_row(title, champion, server.xcom(dag_id, run_id, task, "notice"))
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
