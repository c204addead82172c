"""The checkpoints of a job: folders named by their number and content, and how the next attempt gets them.

``checkpoints/000012-3f2a0c...`` in the job's folder is the twelfth checkpoint of all attempts; the rest of its name is
the beginning of its digest. It gets that name when it is whole and on the disk, so a folder with another content was
cut or damaged, and is never loaded.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

from nemo_airflow.language.artifact import Artifact, place_in
from nemo_airflow.runner import digests
from nemo_airflow.runner.artifacts import link_or_copy

if TYPE_CHECKING:
    from nemo_airflow.runner.fetching import Fetcher

FOLDER = "checkpoints"
"""Folder, in the job's own, of its checkpoints. What begins with a dot in it is not whole."""

VARIABLE = "NEMO_AIRFLOW_CHECKPOINTS"
"""Environment variable with the path of that folder."""

ABOUT = "checkpoint.json"
"""File in a checkpoint with what is known of it; see :class:`Checkpoint`."""

_DIGITS = 16

_NAME = re.compile(r"([0-9]{6,})-([0-9a-f]{16})")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint.

    Attributes:
        path: Its folder.
        number: 1 for the first of all attempts.
        values: What the job said of it: ``{"step": 100, "loss": 0.25}``.
        saved_at: Seconds since the epoch.
        steps: The last step of each metric that the saving process had logged without one.
    """

    path: Path
    number: int
    values: Mapping[str, Any]
    saved_at: float
    steps: Mapping[str, int]

    def __fspath__(self) -> str:
        return os.fspath(self.path)


def name_of(number: int, digest: str) -> str:
    """Returns the name of a checkpoint's folder."""
    return f"{number:06d}-{digest[:_DIGITS]}"


def number_in(name: str) -> int:
    """Returns the number in the name of a checkpoint's folder; 0 where it is none."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else 0


def has_digest(name: str, digest: str) -> bool:
    """Returns whether the name of a checkpoint's folder is that of a content."""
    return number_in(name) > 0 and name.rpartition("-")[2] == digest[:_DIGITS]


def names_in(folder: str) -> List[str]:
    """Returns the names of the checkpoints in a folder, the newest last; none where there is no such folder."""
    try:
        return sorted(filter(number_in, os.listdir(folder)), key=number_in)
    except (FileNotFoundError, NotADirectoryError):
        return []


def read(folder: str, name: str) -> Checkpoint:
    """Returns a checkpoint of a folder.

    Raises:
        OSError: It was deleted meanwhile.
        ValueError: It is not one that was saved here.
    """
    path = os.path.join(folder, name)
    with open(os.path.join(path, ABOUT), encoding="utf-8") as file:
        about = json.load(file)
    return Checkpoint(Path(path), number_in(name), about["values"], float(about["saved_at"]), about["steps"])


def drop_damaged(folder: str, say: Callable[[str], None]) -> str:
    """Deletes the newest checkpoints as long as they are damaged; returns the name of the newest then, or nothing."""
    for name in reversed(names_in(folder)):
        path = os.path.join(folder, name)
        try:
            found = digests.digest_of(path)
        except (OSError, digests.UnfitError) as error:
            found = str(error)
        if has_digest(name, found):
            return name
        say(f"checkpoint {name} is damaged, so the one before it is used: its content has the digest {found[:12]}")
        shutil.rmtree(path)
    return ""


def bring(
    folder: str, job: Mapping[str, Any], fetcher: Fetcher | None, say: Callable[[str], None], watch: Callable[[], bool]
) -> str:
    """Brings the checkpoints of earlier attempts into a job's folder, from where the newest is.

    Args:
        folder: The job's folder. A job that is restarted there has its own.
        job: The job: the keys of ``earlier`` attempts, which may be beside it; and the ``checkpoint`` that a store has.
        fetcher: Fetches what was not brought; None where all was.
        say: Called with a line of progress.
        watch: Called several times a second meanwhile; returns whether the job is to end.

    Returns:
        The name of the newest checkpoint that is whole, or nothing.

    Raises:
        InputError: What was brought from the store is damaged.
        FetchError: It cannot be fetched.
        OSError: The disk is full, or refuses.
    """
    from nemo_airflow.runner.inputs import work_beside

    own, found = os.path.join(folder, FOLDER), [""]
    os.makedirs(own, exist_ok=True)
    for name in os.listdir(own):
        if name.startswith("."):  # of a process that was killed while it saved or deleted one
            shutil.rmtree(os.path.join(own, name), ignore_errors=True)

    def work(say: Callable[[str], None]) -> None:
        found[0] = drop_damaged(own, say)
        for _, source in [] if found[0] else sorted(_sources(folder, job), key=lambda each: -each[0]):
            place = source if isinstance(source, str) else _unpack(folder, job, source, fetcher, say)
            for name in reversed(names_in(place)):
                _copy(os.path.join(place, name), own, name)
            if newest := drop_damaged(own, say):
                found[0] = newest
                say(f"goes on from checkpoint {newest}")
                return

    work_beside(work, fetcher, say, watch)
    if not found[0] and (job.get("earlier") or job.get("checkpoint")):
        say("no checkpoint of an earlier attempt is here: the job begins anew")
    return found[0]


def _sources(folder: str, job: Mapping[str, Any]) -> List[Tuple[int, Any]]:
    """Returns where checkpoints are, each with the number of its newest: folders, or the artifact of a store."""
    found: List[Tuple[int, Any]] = []
    for key in job.get("earlier") or ():
        place = os.path.join(os.path.dirname(folder), key, FOLDER)
        if names := names_in(place):
            found.append((number_in(names[-1]), place))
    if given := job.get("checkpoint"):
        made = Artifact.from_json(given["artifact"])
        found.append((number_in(made.name), made))
    return found


def _unpack(
    folder: str, job: Mapping[str, Any], given: Artifact, fetcher: Fetcher | None, say: Callable[[str], None]
) -> str:
    from nemo_airflow.runner import inputs

    names: Dict[str, str] = {archive[0]: archive[3] for archive in job.get("inputs") or ()}
    inputs.bring_one(folder, given, names, fetcher, say)
    return place_in(os.path.join(folder, inputs.FOLDER), given)


def _copy(source: str, own: str, name: str) -> None:
    """Gives a checkpoint's files another name in a folder, where it appears whole."""
    target, new = os.path.join(own, name), os.path.join(own, f".new-{name}")
    if not os.path.lexists(target):
        shutil.copytree(source, new, symlinks=True, copy_function=link_or_copy)
        os.rename(new, target)


def kept_names(found: Sequence[Checkpoint], last: int, best: str, mode: str, every: float) -> List[str]:
    """Returns which checkpoints are kept.

    Args:
        found: The checkpoints, the newest last.
        last: How many of the newest.
        best: The value by which the best one is kept, too; empty for none.
        mode: ``min`` or ``max``: which one is the best.
        every: Minutes, of each of which the first one is kept, too; 0 for none.
    """
    kept = list(found[-last:])
    if ranked := [each for each in found if isinstance(each.values.get(best), (int, float))]:
        kept.append((max if mode == "max" else min)(ranked, key=lambda each: float(each.values[best])))
    spans: Dict[int, Checkpoint] = {}
    for each in found if every else ():
        spans.setdefault(int(each.saved_at // (every * 60)), each)
    return [each.path.name for each in (*kept, *spans.values())]


def read_all(folder: str) -> List[Checkpoint]:
    """Returns the checkpoints of a folder, the newest last; one that another process deletes is left out."""
    found: List[Optional[Checkpoint]] = []
    for name in names_in(folder):
        try:
            found.append(read(folder, name))
        except (OSError, ValueError, KeyError, TypeError):
            found.append(None)
    return [each for each in found if each is not None]
