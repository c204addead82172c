"""Runs a config once for each task of a Slurm job array.

Instead of the user's code the supervisor starts this module: it submits the array, forwards what
its tasks write, and waits for them. Each task runs the config like one process of several, see
:mod:`nemo_airflow.runner.ranks`; the job's result is the list of their results, by number.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import Any, Dict, List

from nemo_airflow.runner import ranks

SCRIPT = "array.sh"
LOGS = "array"
NAME_PREFIX = "array-"
"""Prefix of the array's name, before the job's name."""

_PART = re.compile(r"(\d+)(?:-(\d+)(?::([1-9]\d*))?)?")
_MOST = 1_000_000

_LOOK_EVERY = 5.0
_MISSES = 3
"""Looks at a queue without the array before missing ends count as lost: a shared disk is slow."""

_AWAY = ("unable to contact", "socket timed out", "connection refused", "communication", "temporarily")


def numbers(text: str) -> List[int]:
    """Returns the numbers of the tasks in ``--array``'s notation, for example ``0-7:2,9%2``.

    Raises:
        ValueError: The text is not in that notation.
    """
    tasks, _, at_once = text.partition("%")
    found: List[int] = []
    for part in tasks.split(","):
        match = _PART.fullmatch(part)
        if match is None or (at_once and not at_once.isdigit()) or text.endswith("%"):
            raise ValueError(f"{text!r} is not a list of array task numbers, such as '0-7' or '1,3,5-9:2%4'")
        first = int(match.group(1))
        last = int(match.group(2) or first)
        if last < first or last > _MOST:
            raise ValueError(f"{part!r} is not a range of array task numbers, such as 0-7")
        found.extend(range(first, last + 1, int(match.group(3) or 1)))
    return sorted(set(found))


def run(tasks: str, folder: str) -> int:
    """Runs the array and returns 0, or 1 where a task has failed."""
    return _Array(numbers(tasks), folder).run()


class _Array:
    def __init__(self, tasks: List[int], folder: str) -> None:
        self._tasks = tasks
        self._folder = folder
        self._name = NAME_PREFIX + os.environ.get("SLURM_JOB_NAME", "")
        self._offsets_path = os.path.join(folder, LOGS, "offsets.json")
        self._offsets = self._passed_on()
        self._told_to_end = False
        # Variables of the enclosing job, which the array must not inherit.
        self._env = {k: v for k, v in os.environ.items() if k == "SLURM_CONF" or not k.startswith("SLURM_")}

    def run(self) -> int:
        signal.signal(signal.SIGTERM, self._on_signal)
        os.makedirs(os.path.join(self._folder, LOGS), exist_ok=True)
        array_id = self._submit()
        if not array_id:
            return 1
        cancelled = False
        misses, next_look = 0, time.monotonic() + 1
        while misses < (1 if self._all_said() else _MISSES):
            if self._told_to_end and not cancelled:
                if self._is_started_again():
                    return 128 + signal.SIGTERM
                cancelled = True
                self._slurm("scancel", array_id)
            moved = self._pass_on()
            if time.monotonic() >= next_look:
                misses = 0 if self._is_queued(array_id) else misses + 1
                next_look = time.monotonic() + (1.0 if misses or cancelled or self._all_said() else _LOOK_EVERY)
            time.sleep(0.1 if moved else 0.5)
        self._pass_on(to_the_end=True)
        return self._end()

    def _passed_on(self) -> Dict[int, int]:
        """Returns the bytes of each task's log that an earlier start of this job has forwarded."""
        if not os.path.exists(self._offsets_path):
            return {}
        with open(self._offsets_path) as file:
            return {int(task): offset for task, offset in json.load(file).items()}

    def _on_signal(self, number: int, frame: Any) -> None:
        self._told_to_end = True

    def _submit(self) -> str:
        """Submits the array, or finds the one of an earlier start; returns its id, empty where Slurm refused it."""
        path = os.path.join(self._folder, LOGS, "id")
        if os.path.exists(path):
            with open(path) as file:
                return file.read()
        found = ""
        while not found and not self._told_to_end:
            queue = self._slurm("squeue", "-h", "-t", "all", "-n", self._name, "-o", "%F")
            found = queue.stdout.strip().split("\n")[0]
            if found or queue.returncode:
                time.sleep(1)
                continue
            answer = self._slurm("sbatch", "--parsable", SCRIPT)
            found = answer.stdout.strip().split(";")[0]
            if answer.returncode and not any(words in answer.stderr.lower() for words in _AWAY):
                complaint = answer.stderr.strip()
                sys.stderr.write(f"{complaint}\n")
                self._say(
                    {"error": _error(f"Slurm refused the array: {complaint.splitlines()[-1] if complaint else ''}")}
                )
                return ""
        _write(path, found)
        return found

    def _is_queued(self, array_id: str) -> bool:
        answer = self._slurm("squeue", "-h", "-j", array_id, "-o", "%i")
        if answer.returncode:  # an unreachable controller has not lost the array
            return "invalid job id" not in answer.stderr.lower()
        return bool(answer.stdout.strip())

    def _is_started_again(self) -> bool:
        """Returns whether Slurm ends this job in order to restart it: the array then goes on."""
        job = self._slurm("scontrol", "--oneliner", "show", "job", os.environ.get("SLURM_JOB_ID", "")).stdout
        restarts = re.search(r" Restarts=(\d+)", job)
        return restarts is not None and int(restarts.group(1)) > int(os.environ.get("SLURM_RESTART_COUNT") or 0)

    def _slurm(self, *command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, cwd=self._folder, env=self._env, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )

    def _all_said(self) -> bool:
        return all(os.path.exists(ranks.path_of(self._folder, str(task))) for task in self._tasks)

    def _pass_on(self, to_the_end: bool = False) -> bool:
        """Prints new output of each task, line by line with its number; returns whether there was any."""
        moved = False
        for task in self._tasks:
            path = os.path.join(self._folder, LOGS, f"{task}.log")
            offset = self._offsets.get(task, 0)
            try:
                if os.stat(path).st_size <= offset:
                    continue
                with open(path, "rb") as file:
                    file.seek(offset)
                    data = file.read(None if to_the_end else 1 << 20)
            except FileNotFoundError:
                continue
            whole = data if to_the_end else data[: data.rfind(b"\n") + 1] or (data if len(data) >= 1 << 20 else b"")
            self._offsets[task] = offset + len(whole)
            for line in whole.splitlines():
                sys.stdout.buffer.write(b"[%d] %s\n" % (task, line))
            moved = moved or bool(whole)
        if moved:
            sys.stdout.buffer.flush()
            _write(self._offsets_path, json.dumps(self._offsets))
        return moved

    def _end(self) -> int:
        ends = {}
        for task in self._tasks:
            try:
                with open(ranks.path_of(self._folder, str(task)), encoding="utf-8") as file:
                    ends[task] = json.load(file)
            except FileNotFoundError:
                continue
        silent = [str(task) for task in self._tasks if task not in ends]
        if silent:
            self._say(
                {
                    "error": _error(
                        "array tasks {} ended without a result: see their logs in the job's folder".format(
                            ", ".join(silent)
                        )
                    )
                }
            )
        elif not any(end.get("error") for end in ends.values()):
            self._say({"result": [ends[task].get("result") for task in self._tasks]})
            return 0
        return 1

    def _say(self, outcome: Dict[str, Any]) -> None:
        _write(os.path.join(self._folder, ranks.ARRAY_OUTCOME), json.dumps(outcome))


def _write(path: str, text: str) -> None:
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(path + ".new", path)


def _error(message: str) -> Dict[str, str]:
    return {"type": "", "message": message, "traceback": ""}
