"""Runs a task whose worker or triggerer kills itself at a step, and has a new one go on, as Airflow does."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow.utils.log.file_task_handler import _interleave_logs
from kill_jobs import LINES
from kill_steps import is_in_worker
from mlflow import MlflowClient

from nemo_airflow import blocking
from nemo_airflow.executors.base import Executor
from nemo_airflow.store.address import open_store
from nemo_airflow.store.trees import get_tree
from nemo_airflow.tracking.base import OUTPUTS_DIGEST
from nemo_airflow.triggers.logged_lines import LOGGER

HERE = Path(__file__).parent
_LIMIT = 600.0
"""Seconds within which one process has to come to its end."""

_LEFT_LIMIT = 60.0


class Forks:
    """A process that has imported everything, and forks workers and triggerers.

    Args:
        database: Where it makes an MLflow database, to be copied.
    """

    def __init__(self, database: Path) -> None:
        self.database = database
        env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
        command = [sys.executable, str(HERE / "kill_processes.py"), str(database)]
        self._server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True, bufsize=1
        )
        self._waiting: dict[str, queue.SimpleQueue[int]] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == "ready\n", "the process that forks the others did not start"
        threading.Thread(target=self._hear, daemon=True).start()

    def run(self, part: str, folder: Path, number: int, env: dict[str, str]) -> int:
        """Runs a worker or a triggerer, and returns its exit code: minus the number of the signal that killed it."""
        with self._lock:
            name = str(next(self._numbers))
            ended = self._waiting[name] = queue.SimpleQueue()
            request = {"id": name, "part": part, "folder": str(folder), "number": number, "env": env}
            assert self._server.stdin is not None
            print(json.dumps(request), file=self._server.stdin, flush=True)
        try:
            return ended.get(timeout=_LIMIT)
        except queue.Empty:
            raise TimeoutError(f"a {part} did not end within {_LIMIT:.0f} s: {shown(folder)}") from None

    def _hear(self) -> None:
        assert self._server.stdout is not None
        for line in self._server.stdout:
            answer = json.loads(line)
            self._waiting.pop(answer["id"]).put(answer["code"])

    def close(self) -> None:
        """Ends the process that forks; what it has forked goes on."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(300)


@dataclass
class Killed:
    """What came of a task one of whose processes killed itself.

    Attributes:
        was_killed: Whether a process has come to the step, and died there.
        deaths: How many processes were killed.
        deferred: Whether a triggerer has followed the job.
        result: What the task returned.
        runs: How often the job ran.
        lines: The job's lines in the log of the task's last try, as Airflow shows them.
        tracked: Status of each run that the tracker has of the task.
        points: The points of the run, as (step, value).
        kept: The outputs that the tracker has, by path.
        shared: The outputs in the shared store that the run's tag names, by path.
        left: Jobs of the task that the back-end still runs.
        output: What all processes wrote, for people.
    """

    was_killed: bool = False
    deaths: int = 0
    deferred: bool = False
    result: Any = None
    runs: int = 0
    lines: list[str] = field(default_factory=list)
    tracked: list[str] = field(default_factory=list)
    points: list[tuple[int, float]] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    output: str = ""


class Matrix:
    """Runs tasks on one back-end.

    Args:
        forks: Where the processes come from.
        folder: For what the tasks keep.
        counters: A folder on this machine in which jobs count how often they run, one file a task.
        tracking_uri: An MLflow store.
    """

    def __init__(self, forks: Forks, folder: Path, counters: Path, tracking_uri: str) -> None:
        self._forks = forks
        self.folder = folder
        self._counters = counters
        self._tracking_uri = tracking_uri
        self._prefix = f"kills-{uuid.uuid4().hex[:6]}"  # others may use the same back-end

    def run(self, executor: Executor, inside: str, step: str, connections: Mapping[str, str]) -> Killed:
        """Runs a task of which a process dies at that step.

        Args:
            executor: The back-end.
            inside: What its jobs call the folder of the counters.
            step: ``"before"`` or ``"after"``, and the step.
            connections: Airflow's, as variables of the environment.
        """
        name = name_of(executor, step)
        folder = self.folder / name
        folder.mkdir()
        dag_id = f"{self._prefix}-{name}"
        given = {
            "step": step,
            "kind": executor.kind,
            "dag_id": dag_id,
            "executor": executor.to_json(),
            "counter": f"{inside}/{name}",
            "tracking_uri": self._tracking_uri,
        }
        (folder / "given.json").write_text(json.dumps(given))
        killed = Killed()
        try:
            self._be_airflow(folder, killed, connections)
            self._look(executor, folder, name, dag_id, killed)
        finally:
            killed.output = shown(folder)
        return killed

    def _be_airflow(self, folder: Path, killed: Killed, connections: Mapping[str, str]) -> None:
        """Starts worker and triggerer, again where they were killed, until the task has ended.

        A try whose worker dies is followed by the next, which begins from the start. What was told before the death
        counts. A trigger whose triggerer dies before the event came is run by another.
        """
        env = {
            "NEMO_AIRFLOW_HOME": str(folder / "home"),
            "NEMO_AIRFLOW_STORE": str(folder / "shared"),
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
            **connections,
        }
        number = 1
        while True:
            code = self._start("worker", folder, number, env, killed)
            if (folder / "result.json").exists():
                killed.result = json.loads((folder / "result.json").read_text())
                return
            if (folder / "deferral.json").exists() and not (folder / "event.json").exists():
                while not (folder / "event.json").exists():
                    self._start("triggerer", folder, number, env, killed)
            elif code:  # the next try
                number += 1
                for told in ("deferral", "event"):
                    (folder / f"{told}.json").unlink(missing_ok=True)
            else:
                raise AssertionError(f"a worker ended without a word: {shown(folder)}")

    def _start(self, part: str, folder: Path, number: int, env: dict[str, str], killed: Killed) -> int:
        killed.deferred = killed.deferred or part == "triggerer"
        code = self._forks.run(part, folder, number, env)
        if code == -signal.SIGKILL:
            killed.deaths += 1
        elif code:
            raise AssertionError(f"a {part} ended with exit code {code}: {shown(folder)}")
        assert killed.deaths < 2, f"a second process was killed: {shown(folder)}"
        return code

    def _look(self, executor: Executor, folder: Path, name: str, dag_id: str, killed: Killed) -> None:
        killed.was_killed = (folder / "killed").exists()
        counter = self._counters / name
        killed.runs = len(counter.read_text().splitlines()) if counter.exists() else 0
        killed.lines = _lines(folder / "logs")
        key = json.loads((folder / "store.json").read_text())["nemo_job"]["key"]
        killed.left = _left(executor, key.rsplit("-", 2)[0])
        client = MlflowClient(self._tracking_uri)
        experiment = client.get_experiment_by_name(dag_id)
        runs = client.search_runs([experiment.experiment_id]) if experiment else []
        children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
        killed.tracked = [run.info.status for run in runs]
        for run in children[:1]:
            history = client.get_metric_history(run.info.run_id, "loss")
            killed.points = sorted((point.step, point.value) for point in history)
            with tempfile.TemporaryDirectory() as into:
                client.download_artifacts(run.info.run_id, "", into)
                killed.kept = _files(Path(into))
            get_tree(open_store(str(folder / "shared")), run.data.tags[OUTPUTS_DIGEST], folder / "tree")
            killed.shared = _files(folder / "tree")


def name_of(executor: Executor, step: str) -> str:
    """Returns the name of the task that dies at a step."""
    return re.sub(r"[^a-z]+", "-", f"{executor.kind} {step.replace(chr(39), '')}")


def assert_nothing_is_lost_or_done_twice(killed: Killed, name: str, step: str) -> None:
    """Says of a task that it came to what it would have come to had nobody died."""
    assert not (killed.deferred and is_in_worker(step)), f"the worker has not followed the job: {killed.output}"
    assert killed.was_killed, f"no process came to the step, so none died: {killed.output}"
    assert killed.deaths == 1, killed.output
    assert killed.result == f"result of {name}"
    assert killed.runs == 1, killed.output
    assert killed.lines == [f"line {number}" for number in range(LINES)]
    assert killed.tracked == ["FINISHED", "FINISHED"], "the run of the job, and its parent"
    assert killed.points == [(number, 1 / (number + 1)) for number in range(LINES)]
    assert killed.kept["model.txt"] == f"weights of {name}"
    assert killed.kept["nemo_airflow/log.txt"].splitlines() == killed.lines
    assert killed.shared["model.txt"] == f"weights of {name}", killed.output
    assert killed.left == []


def shown(folder: Path) -> str:
    """Returns what the processes of a task wrote, and their logs."""
    parts = [folder / "output.txt", *sorted((folder / "logs").rglob("*.log"))]
    return "\n".join(f"-- {path}\n{path.read_text(errors='replace')[-4000:]}" for path in parts if path.exists())


def _lines(logs: Path) -> list[str]:
    """Returns the lines of the job as Airflow shows them, of the last try that has any."""
    attempts = sorted({path.name.partition(".")[0] for path in logs.rglob("attempt=*")})
    if not attempts:
        return []
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(path.open()) for path in sorted(logs.rglob(f"{attempts[-1]}.*"))]
        records = list(_interleave_logs(*streams))
    return [record.event for record in records if getattr(record, "logger", "") == LOGGER]


def _left(executor: Executor, prefix: str) -> list[str]:
    """Returns which jobs of any attempt still run after a while: what a job needs to end, it may take."""

    async def survey() -> list[str]:
        driver = executor.connect()
        try:
            return [handle.key for handle in await driver.survey() if handle.key.startswith(prefix)]
        finally:
            await driver.close()

    deadline = time.monotonic() + _LEFT_LIMIT
    while (left := blocking.run(survey())) and time.monotonic() < deadline:
        time.sleep(0.5)
    return left


def _files(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


@contextlib.contextmanager
def counters_for_any_user() -> Iterator[Path]:
    """Makes a folder in which jobs of any user can make files."""
    with tempfile.TemporaryDirectory(prefix="nemo-kills-") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)
