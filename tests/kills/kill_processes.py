"""The worker and the triggerer of a task, each a process of its own, as far as Airflow has a part in them.

They run the real operator and the real trigger. What Airflow would keep in its database is a file of the task's folder:
the state store of the task, what the task deferred to, the trigger's event, the task's end. Run as a program it imports
all that they need, once, and forks one of them for each line that it reads.
"""

from __future__ import annotations

import asyncio
import datetime
import gc
import importlib
import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import structlog
from airflow.sdk import DAG
from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.exceptions import TaskDeferred
from kill_jobs import count_and_talk, stop_and_go_on
from kill_steps import CHAIN_STEPS, STARTS, die_at, is_in_worker

from nemo_airflow import Config, MLflowTracker, NemoRunOperator, PatternPackager
from nemo_airflow.executors.registry import executor_class, executor_from_json
from nemo_airflow.job import Job
from nemo_airflow.operators import worker_phase

HERE = Path(__file__).parent
MAX_TRIES = 3


class Told:
    """What Airflow was told of a task, in the task's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def deferral(self, deferred: TaskDeferred) -> None:
        """The task waits for a trigger; what an earlier one has told is past."""
        self.drop("event")
        self.put("deferral", deferred.trigger.serialize())

    def event(self, payload: Any) -> None:
        """The trigger has fired."""
        self.put("event", payload)

    def get(self, name: str, default: Any = None) -> Any:
        """Returns what is kept under a name."""
        path = self._folder / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else default

    def put(self, name: str, value: Any) -> None:
        """Keeps a value, whole or not at all."""
        new = self._folder / f".{name}.{os.getpid()}"
        new.write_text(json.dumps(value))
        new.replace(self._folder / f"{name}.json")

    def drop(self, name: str) -> None:
        """Forgets a value."""
        (self._folder / f"{name}.json").unlink(missing_ok=True)


class _Store:
    """The state store of the task; it outlives a try."""

    def __init__(self, told: Told) -> None:
        self._told = told

    def get(self, key: str, default: Any = None) -> Any:
        return self._told.get("store", {}).get(key, default)

    def set(self, key: str, value: Any) -> None:
        self._told.put("store", {**self._told.get("store", {}), key: value})


def work(folder: Path, given: dict[str, Any], number: int) -> None:
    """Does a try of the task: from its start, or from the trigger's event."""
    told = Told(folder)
    with DAG(given["dag_id"], schedule=None) as dag:
        operator = NemoRunOperator(
            task_id="task",
            config=Config(stop_and_go_on if given["step"] in CHAIN_STEPS else count_and_talk, counter=given["counter"]),
            job_executor=executor_from_json(given["executor"]),
            packager=PatternPackager(path=str(HERE), include=["/kill_jobs.py"]),
            tracker=MLflowTracker(tracking_uri=given["tracking_uri"]),
            # The job ends in the worker, or is the triggerer's from its start.
            defer_after=600 if is_in_worker(given["step"]) else 0,
        )
    if is_in_worker(given["step"]):
        worker_phase.QUEUED = 600.0  # a job that waits for its start as well
    _log_to(folder, given, number)
    context: Any = {
        "ti": SimpleNamespace(**_task(given, number), max_tries=MAX_TRIES, xcom_push=lambda **_: None),
        "dag": dag,
        "dag_run": SimpleNamespace(
            run_after=datetime.datetime(2026, 1, 1), run_type="manual", logical_date=None, conf={}
        ),
        "task_state_store": _Store(told),
    }
    ExecutorSafeguard.test_mode = True
    event = told.get("event")
    try:
        result = operator.execute(context) if event is None else operator.execute_complete(context, event)
    except TaskDeferred as deferred:
        told.deferral(deferred)
    else:
        told.put("result", result)


def trigger(folder: Path, given: dict[str, Any], number: int) -> None:
    """Runs what the task deferred to, until it fires; its log is the task's, as the triggerer has it."""
    told = Told(folder)
    task = SimpleNamespace(**_task(given, number))
    _log_to(folder, given, number, f".trigger.{os.getpid()}.log")
    path, arguments = told.get("deferral")
    module, _, name = path.rpartition(".")
    instance = getattr(importlib.import_module(module), name)(**arguments)
    instance.task_instance = task

    async def fire() -> None:
        async for event in instance.run():
            told.event(event.payload)
            return

    asyncio.run(fire())


def _log_to(folder: Path, given: dict[str, Any], number: int, suffix: str = "") -> None:
    """Has what is logged go to a log of the try, as Airflow names those of a worker and of a triggerer."""
    task = SimpleNamespace(**_task(given, number))
    log = folder / "logs" / f"dag_id={task.dag_id}/run_id={task.run_id}/task_id={task.task_id}/attempt={number}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    structlog.configure(
        processors=[
            lambda logger, method, event: {"logger": event.pop("logger_name", ""), **event},
            _stamp,
            structlog.processors.JSONRenderer(default=str),
        ],
        logger_factory=structlog.PrintLoggerFactory(log.with_name(f"{log.name}{suffix}").open("a")),
        cache_logger_on_first_use=False,
    )


def _stamp(logger: Any, method: str, event: Any) -> Any:
    event.setdefault("timestamp", f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%S.%f}Z")
    return event


def _task(given: dict[str, Any], number: int) -> dict[str, Any]:
    return {"dag_id": given["dag_id"], "run_id": "run", "task_id": "task", "map_index": -1, "try_number": number}


# Forking


def serve(database: str) -> None:
    """Forks a process for each line of the standard input, and writes how it ended, as a line, when it has.

    Args:
        database: Path of an MLflow database to make first; it can be copied for the tasks.
    """
    _import_all(database)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)
    for line in sys.stdin:
        if os.fork() == 0:
            _keep(json.loads(line))


def _import_all(database: str) -> None:
    """Imports and looks up what the processes use, so that none of them has to."""
    for name in (
        "mlflow.tracking", "nemo_airflow.tracking.mlflow.client", "nemo_airflow.triggers.run",
        "nemo_airflow.executors.docker.driver", "nemo_airflow.executors.kubernetes.driver",
        "nemo_airflow.executors.ray.driver", "nemo_airflow.executors.batch.driver",
        "nemo_airflow.executors.ssh.driver", "nemo_airflow.executors.local", "nemo_airflow.hooks.packaging",
        "nemo_airflow.config.plan.versions", "nemo_airflow.store.trees",
        "docker", "kubernetes_asyncio.client", "kubernetes_asyncio.config", "kubernetes_asyncio.stream", "asyncssh",
        "airflow.configuration", "airflow.utils.helpers", "airflow.sdk.log",
        "mlflow.store.artifact.artifact_repository_registry",
    ):  # fmt: skip
        importlib.import_module(name)
    for kind in STARTS:
        executor_class(kind)
    # The first use of an MLflow store in a process takes seconds: here it is the last.
    job = Job(key="warm", name="warm", plan={"version": 1, "root": {"_target_": "os:getpid"}})
    tracker = MLflowTracker(tracking_uri=f"sqlite:///{database}")
    tracker.open(job, experiment="warm", parent="warm", shares_filesystem=False)
    assert threading.active_count() == 1, "a process with threads must not be forked"
    gc.freeze()  # else each fork, looking for garbage, would copy all of this


def _keep(request: dict[str, Any]) -> None:
    """Forks the process, and waits for it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _be(**request)
            code = 0
        except BaseException:  # noqa: BLE001 - the end of a process
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # threads and sessions need not be ended well
    _, status = os.waitpid(pid, 0)
    os.write(1, json.dumps({"id": request["id"], "code": os.waitstatus_to_exitcode(status)}).encode() + b"\n")
    os._exit(0)


def _be(id: str, part: str, folder: str, number: int, env: dict[str, str]) -> None:
    home = Path(folder)
    output = os.open(home / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(env)
    given = json.loads((home / "given.json").read_text())
    marker = home / "killed"
    if not marker.exists():
        die_at(given["step"], given["kind"], marker)
    {"worker": work, "triggerer": trigger}[part](home, given, number)


if __name__ == "__main__":
    sys.modules["kill_processes"] = sys.modules["__main__"]  # where the steps look for it
    serve(sys.argv[1])
    os._exit(0)  # to end all that was imported in good order takes seconds, on a busy machine half a minute
