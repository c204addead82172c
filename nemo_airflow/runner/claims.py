"""Takes a job for one runner: whoever links the claim first runs it, and nobody else ever does.

But for one: a batch system that starts a job of its own anew (preempted, node lost) starts it under
the same id. It says so in ``NEMO_AIRFLOW_OWNER``, and such an owner takes its own job again, unless that
has come to its end: a controller that lost its last seconds in a crash starts what is done once more.
It may also start what still runs, on another node: the later start waits then for how the earlier one ends.
"""

import errno
import json
import os
import signal
import socket
import sys
import time
from typing import Any, Callable, Dict, Optional

OWNER = "NEMO_AIRFLOW_OWNER"

_SILENT = 3
"""Heartbeats without a sign of life after which a runner on another machine counts as dead."""

_LOOK_EVERY = 0.2


def take(folder: str, heartbeat: float) -> bool:
    """Returns whether this process has taken the job in the folder.

    The claim appears whole or not at all: it is written under another name, then linked.

    Args:
        folder: The job's folder.
        heartbeat: Seconds within which whoever has the job shows that it lives.
    """
    owner = os.environ.get(OWNER, "")
    claim = _claim(folder)
    temporary = f"{claim}.{socket.gethostname()}.{os.getpid()}"
    with open(temporary, "w") as file:
        json.dump({**_identity(), "owner": owner}, file)
    try:
        os.link(temporary, claim)
    except FileExistsError:
        if not owner or _read(claim).get("owner") != owner or not _ends_unfinished(folder, heartbeat):
            os.unlink(temporary)
            return False
        os.replace(temporary, claim)
        _forget_end(folder)
        return True
    os.unlink(temporary)
    return True


def show_alive(folder: str) -> None:
    """Shows on the claim that its runner lives, for a later start on another machine to see."""
    if OWNER in os.environ:
        try:
            os.utime(_claim(folder))
        except OSError:  # somebody removes the folder, or the disk is away: the job goes on
            return


def keep_end(folder: str, text: bytes, waiting: Callable[[], bool]) -> None:
    """Writes the end mark, the last that a runner leaves.

    Args:
        folder: The job's folder.
        text: How the job ended.
        waiting: Called again and again while the disk is full; returns whether to go on waiting.
    """
    temporary = os.path.join(folder, f".end.json.{os.getpid()}")
    while True:
        try:
            with open(temporary, "wb") as file:
                file.write(text)
            os.replace(temporary, os.path.join(folder, "end.json"))
            return
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not waiting():
                sys.stderr.write(f"the end mark of the job cannot be kept: {error}\n")
                return
        time.sleep(_LOOK_EVERY)


def _claim(folder: str) -> str:
    return os.path.join(folder, "claim")


def _ends_unfinished(folder: str, heartbeat: float) -> bool:
    """Waits until the earlier start of a job is over; returns whether it was told to end, or died, before that.

    False as well where this process is told to end while it waits, by a signal that is blocked.
    """
    claim = _claim(folder)
    beat, since = 0, time.monotonic()
    while True:
        alive = _is_alive(_read(claim))
        if alive is None:
            with open(claim) as file:  # a network file system asks the server when a file is opened, and only then
                seen = os.fstat(file.fileno()).st_mtime_ns
            if seen != beat:
                beat, since = seen, time.monotonic()
            alive = time.monotonic() - since < _SILENT * heartbeat
        # After that: the end mark is the last that a runner leaves.
        end = _read(os.path.join(folder, "end.json"))
        if end or not alive:
            return not end or bool(end.get("told_to_end"))
        if signal.SIGTERM in signal.sigpending():
            return False
        time.sleep(_LOOK_EVERY)


def _is_alive(runner: Dict[str, Any]) -> Optional[bool]:
    """Returns whether the runner of a claim lives, or None where it is another machine's."""
    if runner.get("host") != socket.gethostname():
        return None
    if runner.get("boot_id") != _boot_id():
        return False
    return start_ticks(str(runner["pid"])) == runner.get("start_ticks")


def _read(path: str) -> Dict[str, Any]:
    """Returns the object in a file; an empty one where there is none, or none yet."""
    try:
        with open(path) as file:
            return dict(json.load(file))
    except (FileNotFoundError, ValueError):
        return {}


def _forget_end(folder: str) -> None:
    """Drops how the earlier start ended: the job begins anew."""
    try:
        os.unlink(os.path.join(folder, "end.json"))
    except FileNotFoundError:
        return


def _identity() -> Dict[str, Any]:
    return {
        "pid": os.getpid(),
        "start_ticks": start_ticks("self"),
        "boot_id": _boot_id(),
        "host": socket.gethostname(),
        "ts": time.time(),
    }


def start_ticks(pid: str) -> Optional[int]:
    """Returns when a process started, in clock ticks since boot, or None without ``/proc``."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b") ")[2].split()[19])
    except OSError:
        return None


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""
