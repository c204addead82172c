"""Brings the artifacts that are given to a job to where its function finds them, and checks them by their digests."""

from __future__ import annotations

import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Dict, List, Tuple

from nemo_airflow.language import artifact
from nemo_airflow.language.artifact import TAG, Artifact, place_in
from nemo_airflow.runner import digests

if TYPE_CHECKING:
    from nemo_airflow.runner.fetching import Fetcher

FOLDER = "inputs"
"""Folder, in the job's own, of the artifacts that are given to it."""

_WATCH_EVERY = 0.2


class InputError(Exception):
    """An artifact that is given to the job is not there, or is not what it should be.

    Attributes:
        failure: The kind of failure, as in the end record.
    """

    failure = "artifact"


def bring(
    folder: str,
    plan: Mapping[str, Any],
    archives: Sequence[Sequence[Any]],
    fetcher: Fetcher | None,
    say: Callable[[str], None],
    watch: Callable[[], bool],
) -> None:
    """Brings all artifacts of a plan below a job's folder. Done again, as by a restarted job, it changes nothing.

    Args:
        folder: The job's folder, to which the archives were brought.
        plan: The plan.
        archives: Digest, format, size and file name of each archive.
        fetcher: Fetches those archives that were not brought; None where all were.
        say: Called with a line of progress.
        watch: Called several times a second meanwhile; returns whether the job is to end.

    Raises:
        InputError: An artifact is missing or damaged.
        FetchError: One cannot be fetched from the store.
        OSError: The disk is full, or refuses.
    """
    names = {archive[0]: archive[3] for archive in archives}

    def work(say: Callable[[str], None]) -> None:
        for given in artifacts_in(plan):
            bring_one(folder, given, names, fetcher, say)

    work_beside(work, fetcher, say, watch)


def fetch_package(fetcher: Fetcher, say: Callable[[str], None], watch: Callable[[], bool]) -> None:
    """Fetches the archives of the job's package, as far as it was not sent; see :func:`bring`."""

    def work(say: Callable[[str], None]) -> None:
        for name in fetcher.names:
            if name.startswith("package."):
                fetcher.bring(name, say)

    work_beside(work, fetcher, say, watch)


def work_beside(
    work: Callable[[Callable[[str], None]], None],
    fetcher: Fetcher | None,
    say: Callable[[str], None],
    watch: Callable[[], bool],
) -> None:
    """Works in a thread, since the supervisor has to show that it is alive, and keeps the time limit."""
    errors: List[BaseException] = []
    lines: List[str] = []

    def attempt() -> None:
        try:
            work(lines.append)
        except BaseException as error:  # noqa: BLE001 - handed to the other thread
            errors.append(error)

    thread = threading.Thread(target=attempt, name="nemo-inputs", daemon=True)
    thread.start()
    is_done = False
    while not is_done:
        thread.join(_WATCH_EVERY)
        is_done = not thread.is_alive()
        if watch() and fetcher is not None:
            fetcher.stop()
        while lines:  # also those of work that was done before anybody looked
            say(lines.pop(0))
    if errors:
        raise errors[0]


def artifacts_in(plan: Mapping[str, Any]) -> List[Artifact]:
    """Returns the artifacts of a plan, each content once for each file name."""
    from nemo_airflow.language.plan.contents import check

    found: Dict[Tuple[str, str], Artifact] = {}
    for node, kind, _ in check(plan, list_nodes=True).nodes:
        if kind == TAG:
            given = Artifact.from_json(node)
            found.setdefault((given.digest, given.file), given)
    return list(found.values())


def bring_one(
    folder: str, given: Artifact, names: Mapping[str, str], fetcher: Fetcher | None, say: Callable[[str], None]
) -> None:
    """Brings one artifact below a job's folder; ``names`` are those of the archives, by digest. See :func:`bring`."""
    target = place_in(os.path.join(folder, FOLDER), given)
    if os.path.lexists(target):
        return
    name = names.get(given.digest, "no archive")
    archive = os.path.join(folder, name)
    begun = time.monotonic()
    if fetcher is not None:
        fetcher.bring(name, say)
    if not os.path.exists(archive):
        raise InputError(f"{given} was not brought to this job: clear its task, so that it is sent again")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".input-") as scratch:
        new = os.path.join(scratch, "new")
        if given.kind == artifact.FOLDER:
            from nemo_airflow.runner.unpack import UnpackError, unpack

            os.mkdir(new)
            try:
                unpack(archive, new)
            except UnpackError as error:
                raise InputError(f"{given} cannot be unpacked: {error}") from error
        else:
            _link_or_copy(archive, new)
        _check(new, given)
        os.rename(new, target)
    say(f"{given}: here after {time.monotonic() - begun:.1f} s, as {target}")


def _check(path: str, given: Artifact) -> None:
    if given.kind == artifact.FILE and digests.is_checked(path, given.digest):
        return  # an earlier job on this host has read it
    try:
        digest = digests.digest_of(path)
    except digests.UnfitError as error:
        raise InputError(f"{given} is damaged: {error}") from error
    if digest != given.digest:
        raise InputError(
            f"{given} is damaged: what was brought to this job has the digest {digest[:12]}; its copy on this host "
            "or in the store was changed: delete that, and clear the task"
        )
    if given.kind == artifact.FILE:
        digests.note_checked(path, digest)


def _link_or_copy(source: str, target: str) -> None:
    """Gives a file another name. It is read-only then: a job must not change the copy that others use."""
    import shutil

    try:
        os.link(source, target)
    except OSError:  # a disk without links
        shutil.copyfile(source, target)
    os.chmod(target, stat.S_IMODE(os.stat(target).st_mode) & ~0o222)
