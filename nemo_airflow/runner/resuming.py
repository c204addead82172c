"""What user code imports to save checkpoints, and to find them again in the job's next attempt."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import tempfile
import time
from typing import TYPE_CHECKING, Any, Dict, Iterator, Optional, Tuple

from nemo_airflow.runner import checkpoints, digests, report
from nemo_airflow.runner.channel import in_job, send
from nemo_airflow.runner.checkpoints import Checkpoint

if TYPE_CHECKING:
    from pathlib import Path

_policy: Tuple[int, str, str, float] = (2, "", "min", 0.0)


def checkpoint_dir(last: int = 2, best: str = "", mode: str = "min", every: float = 0.0) -> Path:
    """Returns the folder of the job's checkpoints, which the job's next attempt finds again, on another back-end too.

    The arguments say which checkpoints this process keeps from now on when it saves one; all others are deleted.
    Outside a job it is ``./checkpoints``.

    Args:
        last: How many of the newest, at least 1.
        best: Name of a value that is given to :func:`save_checkpoint`: the one with the best is kept, too.
        mode: ``min`` or ``max``: which value is the best.
        every: Minutes: the first checkpoint of each such span is kept, too; 0 for none.

    Raises:
        ValueError: An argument is none of these.
        RuntimeError: This is a task of a job array, whose tasks would share the folder.
    """
    from pathlib import Path

    global _policy
    if last < 1 or mode not in ("min", "max") or every < 0:
        raise ValueError(
            f"checkpoint_dir: last={last!r}, mode={mode!r}, every={every!r}: last is 1 or more, mode is 'min' or "
            "'max', and every a number of minutes"
        )
    _policy = (last, best, mode, every)
    if "NEMO_AIRFLOW_ARRAY_TASK" in os.environ:
        raise RuntimeError(
            "checkpoint_dir: the tasks of a job array have one folder: map the operator instead of array"
        )
    folder = Path(os.environ.get(checkpoints.VARIABLE) or checkpoints.FOLDER).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def latest_checkpoint() -> Optional[Checkpoint]:
    """Returns the newest checkpoint that is whole, or None where there is none.

    Metrics that are logged without a step go on from where they were when it was saved.
    """
    folder = _folder()
    if not in_job():  # the runner has looked before the job began
        checkpoints.drop_damaged(folder, print)
    found = checkpoints.read_all(folder)
    if not found:
        return None
    for name, step in found[-1].steps.items():
        report.continue_steps(name, step)
    return found[-1]


@contextlib.contextmanager
def save_checkpoint(**values: Any) -> Iterator[Path]:
    """Yields a new folder to write a checkpoint into, which becomes one as a whole, or not at all.

    It is one when this ends without an error: on the disk, and never changed again. In a job of several processes one
    of them saves it; others may write into its folder until then.

    Args:
        values: Numbers or texts that describe it: ``step=100, loss=0.25``.

    Raises:
        TypeError: A value is neither.
        ValueError: Nothing was written into the folder, or there is a link in it.
    """
    from pathlib import Path

    folder = _folder()
    described = {name: _plain(name, value) for name, value in values.items()}
    os.makedirs(folder, exist_ok=True)
    new = tempfile.mkdtemp(dir=folder, prefix=".new-")
    try:
        yield Path(new)
        if not os.listdir(new):
            raise ValueError("save_checkpoint: nothing was written into the folder that it gave")
        name, size = _complete(folder, new, described)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    _delete_others(folder)
    send("checkpoint", path=name, bytes=size, values=described)


def _folder() -> str:
    return os.path.abspath(os.environ.get(checkpoints.VARIABLE) or checkpoints.FOLDER)


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, (str, int)):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"save_checkpoint: {name} is {value!r}, neither a number nor a text") from None
    return number if math.isfinite(number) else str(number)  # JSON has no such numbers


def _complete(folder: str, new: str, values: Dict[str, Any]) -> Tuple[str, int]:
    """Gives a folder its name as a checkpoint; returns that, and its bytes."""
    known = checkpoints.names_in(folder)
    number = checkpoints.number_in(known[-1]) + 1 if known else 1
    about = {"values": values, "saved_at": time.time(), "steps": report.last_steps(), "number": number}
    with open(os.path.join(new, checkpoints.ABOUT), "w", encoding="utf-8") as file:
        json.dump(about, file)
    entries = digests.list_files(new)
    if links := [entry.path for entry in entries if entry.mode == digests.LINK]:
        raise ValueError(f"save_checkpoint: {links[0]} is a link, which not every store keeps: copy its target instead")
    for parent, _, names in os.walk(new):
        for each in (*(os.path.join(parent, name) for name in names), parent):
            if not os.path.islink(each):
                _flush(each)
    name = checkpoints.name_of(number, digests.folder_digest(entries))
    os.rename(new, os.path.join(folder, name))
    _flush(folder)
    return name, sum(entry.size for entry in entries)


def _flush(path: str) -> None:
    """Has the disk keep a file, or the names in a folder."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _delete_others(folder: str) -> None:
    found = checkpoints.read_all(folder)
    kept = checkpoints.kept_names(found, *_policy)
    for each in found:
        if each.path.name not in kept:
            gone = os.path.join(folder, f".old-{each.path.name}")
            os.rename(each.path, gone)  # at once: never half of it under its name
            shutil.rmtree(gone)
