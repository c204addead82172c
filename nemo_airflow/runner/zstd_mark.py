"""Records beside the packages whether jobs of this interpreter and set-up can read ``tar.zst``.

The record is an empty file, ``<mark>.yes`` or ``<mark>.no``: it cannot be half written, and of many jobs at
once none overwrites another's. On a cluster whose nodes differ, both may exist; then *no* counts.
"""

import contextlib
import os

MARK = "NEMO_AIRFLOW_ZSTD_MARK"
"""Environment variable with the mark's path, relative to the job's folder; set where the executor keeps one."""

YES, NO = ".yes", ".no"


def take(folder: str) -> str:
    """Returns the mark's path and removes it from the environment, so that jobs started by this one do not get it."""
    mark = os.environ.pop(MARK, "")
    return os.path.join(folder, mark) if mark else ""


def record_result(mark: str, folder: str) -> None:
    """Records the result after a package was unpacked.

    Args:
        mark: From :func:`take`; an empty one does nothing.
        folder: The job's folder.
    """
    if not mark or os.path.exists(mark + NO):
        return
    with contextlib.suppress(OSError):  # no room for the attempt: the result is unknown
        write_record(mark, _reads_zstd(folder))


def write_record(mark: str, reads: bool) -> None:
    """Writes the record; a full or read-only disk does not keep the job from running."""
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
