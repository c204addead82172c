"""Jobs of several processes: the work of each process, and the outcome of all.

One supervisor watches the whole job. Instead of the user's code it starts a launcher (``srun``,
``torchrun``, this package's own), which starts this module for each process. A process records in a file
how it ended, since it may run on another node than the supervisor.
"""

import json
import os
import signal
import socket
import sys
import time
from typing import Any, Dict, List, Optional

_FOLDER = "ranks"

ARRAY_OUTCOME = os.path.join("array", "outcome.json")
"""File with the end of a whole job array."""

ARRAY_TASK = "NEMO_AIRFLOW_ARRAY_TASK"
"""Environment variable with the number of an array task."""

_FROM_SLURM = {"RANK": "SLURM_PROCID", "LOCAL_RANK": "SLURM_LOCALID", "WORLD_SIZE": "SLURM_NTASKS"}
"""Slurm's variables for torch's names of a process."""


def run(folder: str) -> int:
    """Runs the job's config as one process of several; returns the exit code."""
    from nemo_airflow.runner import child, node_samples, report_files, signals
    from nemo_airflow.runner.channel import Channel
    from nemo_airflow.runner.masking import Masker

    with open(os.path.join(folder, "job.json"), encoding="utf-8") as file:
        job = json.load(file)
    for name, slurm_name in _FROM_SLURM.items():
        if slurm_name in os.environ:
            os.environ.setdefault(name, os.environ[slurm_name])
    node_samples.start_beside(folder, job)
    if place := _place_apart():
        os.environ["NEMO_AIRFLOW_EVENTS"] = report_files.path_of(folder, place)
    signal.signal(signal.SIGTERM, child.end_by_signal)
    for number in signals.WARNINGS:  # a launcher ignores these signals, and its children inherit that
        signal.signal(number, signal.SIG_DFL)
    child.set_path(os.path.join(folder, "work"), (job.get("env") or {}).get("PYTHONPATH", ""))
    for stream in (sys.stdout, sys.stderr):
        # Whole lines: torchrun starts Python with -u, where print() would write a line and its end one after the other,
        # and another process of this machine something between them.
        stream.reconfigure(line_buffering=True, write_through=False)  # type: ignore[union-attr]
    secrets = [os.environ[name] for name in job.get("secret_env") or () if name in os.environ]
    channel = _RankChannel(folder, Channel(os.environ.get("NEMO_AIRFLOW_EVENTS", "")), Masker(job, secrets))
    code = child.call(job, channel)
    if code and not channel.kept:
        channel.send("outcome", error={"type": "", "message": f"ended with exit code {code}", "traceback": ""})
    return code


def _place_apart() -> str:
    """Returns what to call this process where its machine has no supervisor; empty where it has one."""
    if task := os.environ.get(ARRAY_TASK):
        return f"task_{task}"
    node = os.environ.get("SLURM_NODEID") or "0"
    return f"node_{node}" if node != "0" else ""


def forget(folder: str) -> None:
    """Deletes the ends and reports of an earlier start's processes; the tasks of an array may still run."""
    from nemo_airflow.runner import report_files

    if os.path.exists(os.path.join(folder, "array", "id")):
        return
    for path in [*_files(folder), *_files(folder, report_files.FOLDER, report_files.END)]:
        os.unlink(path)


def outcome(folder: str) -> Optional[Dict[str, Any]]:
    """Returns the outcome of the processes: the first error of the last start, else the first process's result."""
    ends = [end for end in map(_read_end, _files(folder)) if end is not None]
    errors = sorted((end for end in ends if end.get("error")), key=lambda end: (-end["restart"], end["ts"]))
    if errors:
        first = errors[0]
        error = dict(first["error"])
        error["message"] = "{member} {rank} on {host}: {message}".format(
            member=first["member"], rank=first["rank"], host=first["host"], message=error.get("message", "")
        )
        return {"error": error, "failure": first.get("failure")}
    array = os.path.join(folder, ARRAY_OUTCOME)
    if os.path.exists(array):
        with open(array, encoding="utf-8") as file:
            return dict(json.load(file))
    return next(({"result": end["result"]} for end in ends if end["rank"] == "0" and "result" in end), None)


def _read_end(path: str) -> Optional[Dict[str, Any]]:
    """Returns the recorded end of a process; None where its file was cut by a crash of its machine."""
    try:
        with open(path, encoding="utf-8") as file:
            end = json.load(file)
    except (OSError, ValueError):
        return None
    return end if isinstance(end, dict) and {"rank", "restart", "ts"} <= end.keys() else None


def path_of(folder: str, rank: str) -> str:
    """Returns the path of the file with a process's end."""
    return os.path.join(folder, _FOLDER, rank + ".json")


def _files(folder: str, name: str = _FOLDER, end: str = ".json") -> List[str]:
    root = os.path.join(folder, name)
    names = sorted(os.listdir(root)) if os.path.isdir(root) else []
    return [os.path.join(root, name) for name in names if name.endswith(end)]


class _RankChannel:
    """Passes reports to the supervisor if it is on this machine; writes the outcome to a file."""

    def __init__(self, folder: str, channel: Any, masker: Any) -> None:
        self._channel = channel
        self._masker = masker
        self.kept = False
        task = os.environ.get(ARRAY_TASK)
        self._member = "rank" if task is None else "array task"
        self._rank = os.environ.get("RANK", "0") if task is None else task
        self._path = path_of(folder, self._rank)
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        if os.path.exists(self._path):
            os.unlink(self._path)  # from this process before its restart

    def send(self, kind: str, **fields: Any) -> None:
        if kind == "outcome":
            self._keep(fields)
        elif kind != "config" or self._rank == "0":
            self._channel.send(kind, **fields)

    def send_json(self, text: str) -> None:
        self._keep(json.loads(text))

    def _keep(self, end: Dict[str, Any]) -> None:
        self.kept = True
        if self._masker:
            masked = self._masker.fields("end", end)
            end = {name: masked[name] for name in end}
        end.update(
            rank=self._rank,
            member=self._member,
            host=socket.gethostname(),
            ts=time.time(),
            restart=int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")),
        )
        temporary = f"{self._path}.new"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(end, file)
        os.replace(temporary, self._path)
