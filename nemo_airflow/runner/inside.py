"""Runs a command in the environment of a running job: its variables, its folder, its code first on Python's path.

Sent as text to where the job runs, so that it is the same whichever version has submitted the job: it imports nothing
of this package. Secrets of the job are not among the variables, and what the command reports goes nowhere.
"""

import json
import os
import shutil
import sys
from typing import Any, Dict, List

NOT_THERE = 126
"""Exit code where there is no running job, or the command cannot be run; as a shell has it."""


def main(folder: str, command: List[str]) -> int:
    """Becomes the command, or a shell where none is given; returns only if it cannot."""
    try:
        with open(os.path.join(folder, "job.json"), encoding="utf-8") as file:
            job = json.load(file)
        with open(os.path.join(folder, "claim"), encoding="utf-8") as file:
            runner = int(json.load(file)["pid"])
        begun = _begun_with(runner)
        work = os.path.join(folder, "work")
        environment = _environment(folder, job, runner, begun)
        os.chdir(work)
    except (OSError, ValueError, KeyError) as error:
        sys.stderr.write(f"nemo-airflow: the job in {folder} does not run here: {error}\n")
        return NOT_THERE
    if not command:
        shell = environment.get("SHELL", "")
        command = [shell if os.access(shell, os.X_OK) else shutil.which("bash") or "sh"]
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606 - a list of arguments, and no shell
    except OSError as error:
        sys.stderr.write(f"nemo-airflow: {command[0]}: {error.strerror}\n")
        return NOT_THERE


def _begun_with(runner: int) -> Dict[str, str]:
    """Returns the variables with which the job's runner was started: those of its set-up and its scheduler."""
    with open(f"/proc/{runner}/environ", "rb") as file:
        pairs = [os.fsdecode(each).partition("=") for each in file.read().split(b"\0") if each]
    return {name: value for name, _, value in pairs}


def _environment(folder: str, job: Dict[str, Any], runner: int, begun: Dict[str, str]) -> Dict[str, str]:
    with open(f"/proc/{runner}/cmdline", "rb") as file:
        python, entry = [os.fsdecode(each) for each in file.read().split(b"\0")][:2]
    own = job.get("env") or {}
    environment = {**begun, **own}
    # The runner's package, for code that imports it, behind all that is installed.
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.join(folder, entry))))
    before = [os.path.join(folder, "work"), *own.get("PYTHONPATH", "").split(os.pathsep)]
    path = [*before, *begun.get("PYTHONPATH", "").split(os.pathsep), os.path.normpath(package)]
    environment.update(
        NEMO_AIRFLOW_KEY=job["key"],
        NEMO_AIRFLOW_OUTPUT_DIR=os.path.join(folder, "outputs"),
        NEMO_AIRFLOW_INPUTS=os.path.join(folder, "inputs"),
        NEMO_AIRFLOW_RUN=job.get("run_id") or "",
        PYTHONPATH=os.pathsep.join(dict.fromkeys(each for each in path if each)),
        TERM=os.environ.get("TERM", "dumb"),
    )
    if os.path.isabs(python):  # so that "python" is the job's
        environment["PATH"] = os.pathsep.join([os.path.dirname(python), environment.get("PATH", os.defpath)])
    return environment


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
