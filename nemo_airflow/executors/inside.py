"""The command that runs another one in the environment of a running job, for each way to where the job runs. Pure."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Sequence
from pathlib import Path

from nemo_airflow.exceptions import ExecutorError
from nemo_airflow.runner import inside


@functools.cache
def _program() -> str:
    return Path(inside.__file__).read_text("utf-8")


def command_inside(python: str, folder: str, command: Sequence[str]) -> list[str]:
    """Returns the arguments that run a command in a job's environment; a shell, where none is given.

    Args:
        python: An interpreter there, 3.9 or newer; nothing of the job has to be installed for it.
        folder: The job's folder there.
        command: The command.
    """
    return [python, "-c", _program(), folder, *command]


def script_inside(enter: str, command: Sequence[str]) -> str:
    """Returns the same as a shell script.

    Args:
        enter: Lines that go to the job's folder.
        command: The command.
    """
    program = shlex.join(["-c", _program()])
    # The interpreter of the job itself: another one on the path may be too old, or missing.
    return (
        f"{enter}\nIFS=' ,' read -r _ pid _ <claim\n"
        f'exec "$(readlink /proc/$pid/exe || command -v python3)" {program} "$PWD" {shlex.join(command)}'
    )


def no_way_in(kind: str) -> ExecutorError:
    """Returns the error of a back-end that lets nobody into a running job."""
    return ExecutorError(
        f"the {kind} back-end has no way into a running job: 'nemo-airflow logs -f KEY' shows what it writes"
    )
