"""Claims a job for one runner: the first process that links the claim runs the job, and no other ever does.

One exception: a batch system that restarts a job (preempted, node lost) starts it under
the same id. The id is in ``NEMO_AIRFLOW_OWNER``, and an owner may claim its own job again, unless the job
has ended: a controller that lost its last seconds in a crash restarts a finished job.
It may also start a running job on another node: then the later start waits until the earlier one ends.
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
"""Missed heartbeats after which a runner on another machine counts as dead."""

_LOOK_EVERY = 0.2


def take(folder: str, heartbeat: float) -> bool:
    """Claims the job in the folder for this process; returns whether that succeeded.

    The claim appears whole or not at all: it is written under another name, then linked.

    Args:
        folder: The job's folder.
        heartbeat: Seconds within which the job's runner shows that it is alive.
    """
    owner = os.environ.get(OWNER, "")
    claim = _claim(folder)
    temporary = f"{claim}.{socket.gethostname()}.{os.getpid()}"
    with open(temporary, "w") as file:
        json.dump({**_identity(), "owner": owner}, file)
    try:
        os.link(temporary, claim)
    except FileExistsError:
        if not owner or _read(claim).get("owner") != owner or not _succeeds(folder, heartbeat, temporary):
            os.unlink(temporary)
            return False
        os.replace(temporary, claim)
        _forget_end(folder)
        return True
    os.unlink(temporary)
    return True


def show_alive(folder: str) -> None:
    """Updates the claim's time to show that its runner is alive, for a later start on another machine."""
    if OWNER in os.environ:
        try:
            os.utime(_claim(folder))
        except OSError:  # the folder was removed, or the disk is unavailable: the job goes on
            return


def keep_end(folder: str, text: bytes, waiting: Callable[[], bool]) -> None:
    """Writes the end mark, the last file that a runner writes.

    Args:
        folder: The job's folder.
        text: How the job ended.
        waiting: Called repeatedly while the disk is full; returns whether to keep waiting.
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


def _succeeds(folder: str, heartbeat: float, temporary: str) -> bool:
    """Waits until the earlier start of a job is over; returns whether this process takes its place, and no other."""
    while True:
        ended = _wait_for_end(folder, heartbeat)
        if ended is None:
            return False
        while ended:
            successor = f"{_claim(folder)}.after.{ended.get('pid')}.{ended.get('ts')}"
            try:
                os.link(temporary, successor)
                return True
            except FileExistsError:  # another start was first; it may have died before it took the claim
                other = _read(successor)
                ended = other if _is_alive(other) is False else {}
        if signal.SIGTERM in signal.sigpending():
            return False
        time.sleep(_LOOK_EVERY)


def _wait_for_end(folder: str, heartbeat: float) -> Optional[Dict[str, Any]]:
    """Waits until the earlier start of a job is over; returns its claim if it was cancelled or died before its end.

    Returns None for a job that has ended, and where this process gets a (blocked) signal to end while it waits.
    """
    claim = _claim(folder)
    beat, since = 0, time.monotonic()
    while True:
        runner = _read(claim)
        alive = _is_alive(runner)
        if alive is None:
            with open(claim) as file:  # a network file system asks the server only when a file is opened
                seen = os.fstat(file.fileno()).st_mtime_ns
            if seen != beat:
                beat, since = seen, time.monotonic()
            alive = time.monotonic() - since < _SILENT * heartbeat
        # After that, since the end mark is the last file that a runner writes.
        end = _read(os.path.join(folder, "end.json"))
        if end or not alive:
            return None if end and not end.get("told_to_end") else runner
        if signal.SIGTERM in signal.sigpending():
            return None
        time.sleep(_LOOK_EVERY)


def _is_alive(runner: Dict[str, Any]) -> Optional[bool]:
    """Returns whether the runner of a claim is alive, or None where it is on another machine."""
    if runner.get("host") != socket.gethostname():
        return None
    if runner.get("boot_id") != _boot_id():
        return False
    return start_ticks(str(runner["pid"])) == runner.get("start_ticks")


def _read(path: str) -> Dict[str, Any]:
    """Returns the JSON object in a file; an empty one where the file is missing or empty."""
    try:
        with open(path) as file:
            return dict(json.load(file))
    except (FileNotFoundError, ValueError):
        return {}


def _forget_end(folder: str) -> None:
    """Deletes the end of the earlier start: the job begins anew."""
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
