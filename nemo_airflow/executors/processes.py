"""Processes of this machine, named so that a recycled process id is never taken for the old one."""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")


@dataclasses.dataclass(frozen=True)
class ProcessRef:
    """One process, for all time.

    Attributes:
        pid: Its id.
        start_ticks: Field 22 of ``/proc/<pid>/stat``: clock ticks from boot to its start.
        boot_id: The boot that it belongs to, from ``/proc/sys/kernel/random/boot_id``.
        host: Name of its machine.
        time: When it was noted, seconds since the epoch.
    """

    pid: int
    start_ticks: int | None = None
    boot_id: str = ""
    host: str = ""
    time: float = 0.0


@functools.cache
def boot_id() -> str:
    """Returns the id of the machine's present boot, or an empty string where there is none."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def is_alive(process: ProcessRef) -> bool | None:
    """Returns whether the process runs, or None when it is one of another machine."""
    if process.host != socket.gethostname():
        return None
    if process.boot_id and process.boot_id != boot_id():
        return False
    if not _PROC.joinpath("self").exists():  # no /proc, as on macOS: the id is all there is
        return _signal(process.pid, 0)
    try:
        stat = (_PROC / str(process.pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    fields = stat[stat.rindex(b")") + 2 :].split()  # the name may hold spaces and brackets
    state, start_ticks = fields[0], int(fields[19])
    return state not in (b"Z", b"X") and process.start_ticks in (None, start_ticks)


def terminate(process: ProcessRef) -> None:
    """Sends SIGTERM to the process."""
    _signal(process.pid, signal.SIGTERM)


def kill_marked(name: str, value: str) -> list[int]:
    """Kills every process whose environment has ``name=value``, and returns their ids.

    The environment is inherited through any number of forks and new sessions, which neither a
    parent id nor a process group is.
    """
    return [pid for pid in _marked(f"{name}={value}".encode()) if _signal(pid, signal.SIGKILL)]


def _marked(entry: bytes) -> Iterator[int]:
    for folder in _PROC.iterdir() if _PROC.is_dir() else ():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if entry in (folder / "environ").read_bytes().split(b"\0"):
                    yield int(folder.name)
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # it ended, or it is not ours


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
