"""Leaves word where jobs keep their packages: whether those of this interpreter and set-up read ``tar.zst``.

The word is an empty file, ``<mark>.yes`` or ``<mark>.no``: nothing in it can be half written, and of many jobs at
once none overwrites another's. Both may be there, on a cluster whose nodes differ; then *no* counts.
"""

import contextlib
import os

MARK = "NEMO_AIRFLOW_ZSTD_MARK"
"""The mark's path, seen from the job's folder; set where the executor keeps one."""

YES, NO = ".yes", ".no"


def take(folder: str) -> str:
    """Returns the mark's path and takes it out of the environment: it is not that of jobs that this one starts."""
    mark = os.environ.pop(MARK, "")
    return os.path.join(folder, mark) if mark else ""


def leave(mark: str, folder: str) -> None:
    """Leaves word after a package was unpacked.

    Args:
        mark: From :func:`take`; nothing is done where it is empty.
        folder: The job's folder.
    """
    if not mark or os.path.exists(mark + NO):
        return
    with contextlib.suppress(OSError):  # no room to try, which says nothing
        say(mark, _reads_zstd(folder))


def say(mark: str, reads: bool) -> None:
    """Leaves word; a disk that is full or cannot be written keeps no job from running."""
    path = mark + (YES if reads else NO)
    if not mark or os.path.exists(path):
        return
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


def _reads_zstd(folder: str) -> bool:
    if os.path.exists(os.path.join(folder, "package.tar.zst")):
        return True  # it has just been unpacked
    from nemo_airflow.runner.unpack import reads_zstd

    return reads_zstd()
