"""Sends signals to the job's processes; a warning signal only to those that handle it.

Slurm and people send SIGUSR1 or SIGUSR2 to make a job write a checkpoint. A process without a handler would
die: a shell around a training script, ``torchrun``, a helper program. These do not get it.
"""

import os
import signal
import sys
from typing import Dict, List, Set

from nemo_airflow.runner.resources import processes

WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)

IGNORED = frozenset(number for number in WARNINGS if signal.getsignal(number) is signal.SIG_IGN)
"""Those that whoever started the runner ignores, since the scheduler sends them to every process of the job."""


def reset_warnings() -> None:
    """Has this process, and what it starts, treat warning signals as the runner was told to, without a handler."""
    for number in WARNINGS:
        signal.signal(number, signal.SIG_IGN if number in IGNORED else signal.SIG_DFL)


def pass_on(root: int, number: int) -> bool:
    """Sends a signal to the topmost processes of the job that handle it; returns whether there was one.

    Descendants of a process that handles it inherited the handler (the workers of a data loader), or
    are managed by it (the commands of a script with a ``trap``).

    Args:
        root: Process id of the job's first process, whose process group is the job's.
        number: The signal.
    """
    if not sys.platform.startswith("linux"):
        os.kill(root, number)  # this system does not show which process handles a signal
        return True
    children: Dict[int, List[int]] = {}
    members: Set[int] = set()
    for process in processes():
        children.setdefault(process.parent, []).append(process.pid)
        if process.group == root:
            members.add(process.pid)
    passed_on = False
    # Also processes of the group whose parent has ended.
    below = {child for pid in members for child in children.get(pid, ())}
    waiting = sorted((members - below) | {root})
    while waiting:
        pid = waiting.pop()
        if _handles(pid, number):
            passed_on = _send(pid, number) or passed_on
        else:
            waiting.extend(children.get(pid, ()))
    return passed_on


def _handles(pid: int, number: int) -> bool:
    """Returns whether a process has a handler for a signal, or blocks it in order to use ``sigwait``."""
    try:
        with open(f"/proc/{pid}/status") as file:
            masks = dict(line.split(":\t", 1) for line in file if line.startswith(("SigCgt", "SigBlk")))
    except OSError:  # it has ended meanwhile
        return False
    bit = 1 << (number - 1)
    return any(int(mask, 16) & bit for mask in masks.values())


def _send(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def explain_unhandled(number: int) -> str:
    """Returns advice for a warning signal that no process of the job handles."""
    name = signal.Signals(number).name
    return (
        f"{name} arrived, but no process of the job handles it: in Python, signal.signal(signal.{name}, save) "
        f"calls save(number, frame) when it arrives; in a shell, trap '...' {name[3:]} runs a command"
    )


def kill(pid: int, number: int) -> None:
    """Sends a signal to a process, if it still exists."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def kill_group(group: int, number: int) -> None:
    """Sends a signal to a process group, if it still exists."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


def group_lives(group: int) -> bool:
    """Returns whether the group has a process other than its ended leader."""
    return any(process.group == group and process.state not in ("Z", "X") for process in processes())
