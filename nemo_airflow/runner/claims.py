"""Takes a job for one runner: whoever links the claim first runs it, and nobody else ever does.

But for one: a batch system that starts a job of its own anew (preempted, node lost) starts it under
the same id. It says so in ``NEMO_AIRFLOW_OWNER``, and such an owner takes its own job again, unless that
has come to its end: a controller that lost its last seconds in a crash starts what is done once more.
"""

import json
import os
import socket
import time
from typing import Any, Dict, Optional

OWNER = "NEMO_AIRFLOW_OWNER"


def take(folder: str) -> bool:
    """Returns whether this process has taken the job in the folder.

    The claim appears whole or not at all: it is written under another name, then linked.
    """
    owner = os.environ.get(OWNER, "")
    claim = os.path.join(folder, "claim")
    temporary = f"{claim}.{socket.gethostname()}.{os.getpid()}"
    with open(temporary, "w") as file:
        json.dump({**_identity(), "owner": owner}, file)
    try:
        os.link(temporary, claim)
    except FileExistsError:
        if not owner or _owner(claim) != owner or _is_over(folder):
            os.unlink(temporary)
            return False
        os.replace(temporary, claim)
        _forget_end(folder)
        return True
    os.unlink(temporary)
    return True


def _owner(claim: str) -> str:
    with open(claim) as file:
        return str(json.load(file).get("owner", ""))


def _is_over(folder: str) -> bool:
    """Returns whether the earlier start came to an end of its own; one that was told to end goes on."""
    try:
        with open(os.path.join(folder, "end.json")) as file:
            return not json.load(file).get("told_to_end")
    except (FileNotFoundError, ValueError):
        return False


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
