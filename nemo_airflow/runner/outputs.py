"""Gathers the files that a job keeps into one folder at its end, and sends them as one archive."""

import contextlib
import fcntl
import io
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any, Dict, List

from nemo_airflow.runner.archive import write_folder

FOLDER = "outputs"
COLLECTED = "collected"
"""File in the job's folder that marks the outputs as fetched."""
SENDING = "sending"
"""File in the job's folder that is locked while outputs are being sent, and whose time changes as they move on."""
_SHOWN_EACH = 1 << 16
"""Bytes that are sent between two changes of that time."""


def check_patterns(patterns: Any) -> None:
    """Checks the patterns of files to keep.

    Raises:
        TypeError: The patterns are a text instead of a list, or one is not a text.
        ValueError: One leads out of the working directory, or matches no file.
    """
    if isinstance(patterns, (str, bytes, Mapping)) or not isinstance(patterns, Iterable):
        raise TypeError(f"outputs={patterns!r} is not a list of patterns: write outputs=['models/*.pt']")
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"outputs has {pattern!r}, which is not a text: write a pattern such as 'models/*.pt'")
        check_pattern(pattern)


def check_pattern(pattern: str) -> None:
    """Checks one pattern; see :func:`check_patterns`."""
    path = PurePosixPath(pattern)
    if path.is_absolute() or ".." in path.parts or pattern.startswith("~"):
        raise ValueError(
            f"outputs has {pattern!r}, which leads out of the job's working directory: patterns are relative to it; "
            "files elsewhere are kept when the job writes them below output_dir(), or calls log_artifact(path)"
        )
    if any("**" in part and part != "**" for part in path.parts):
        raise ValueError(
            f"outputs has {pattern!r}: ** stands for folders of any depth: write it alone between two slashes"
        )
    if not path.parts:
        raise ValueError(f"outputs has {pattern!r}, which matches no file: write '*' for all of the working directory")


def gather(folder: str, patterns: "Iterable[str]") -> List[str]:
    """Moves the files that the patterns match in the working directory into the output folder.

    A link stays a link: whoever fetches the outputs decides whether to follow it.

    Returns:
        Which files could not be moved, and why. A failing pattern does not affect the others.
    """
    complaints = []
    for pattern in patterns:
        try:
            check_pattern(pattern)
        except ValueError as error:
            complaints.append(str(error))
            continue
        try:
            _gather_matches(Path(folder, "work"), Path(folder, FOLDER), pattern)
        except Exception as error:  # noqa: BLE001 - whatever a pattern does to pathlib: the job itself is done
            complaints.append(f"{pattern}: {str(error) or type(error).__name__}")
    return complaints


def _gather_matches(work: Path, target: Path, pattern: str) -> None:
    for match in sorted(work.glob(pattern)):
        to = target / match.relative_to(work)
        to.parent.mkdir(parents=True, exist_ok=True)
        if match.is_dir() and not match.is_symlink():
            shutil.copytree(str(match), str(to), symlinks=True, dirs_exist_ok=True, copy_function=_link_or_copy)
        else:
            _link_or_copy(str(match), str(to))


def measure(folder: str) -> Dict[str, int]:
    """Returns the number of files in the output folder, and their bytes."""
    count = size = 0
    for parent, _, names in os.walk(os.path.join(folder, FOLDER)):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # processes that the job left running may delete files
                size += os.lstat(os.path.join(parent, name)).st_size
                count += 1
    return {"files": count, "bytes": size}


def send(folder: str, to: IO[bytes]) -> int:
    """Writes the output folder as a tar archive, then marks it as fetched; returns an exit code."""
    root = os.path.join(folder, FOLDER)
    # The outputs' own folder may be somebody else's, who sends them by a link to it.
    sending = os.path.join(os.path.dirname(os.path.realpath(root)), SENDING)
    with _locked(sending), io.BufferedWriter(_Shown(to, sending), _SHOWN_EACH) as shown:
        write_folder(root, shown)
    to.flush()
    Path(folder, COLLECTED).touch()
    return 0


def is_sent(folder: str) -> bool:
    """Returns whether the outputs were fetched, and nobody else fetches them at this moment."""
    if not os.path.exists(os.path.join(folder, COLLECTED)):
        return False
    try:
        with open(os.path.join(folder, SENDING), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # nobody has fetched any, or the disk has no locks
        return True
    return True


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Holds a file's lock together with others that send the same outputs; goes with the process."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a full disk, or one without locks
            file = stack.enter_context(open(path, "ab"))
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


class _Shown(io.RawIOBase):
    """A stream that shows in a file's time that it moves on."""

    def __init__(self, to: IO[bytes], path: str) -> None:
        super().__init__()
        self._to = to
        self._path = Path(path)
        self._at = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        size = len(data)
        for begin in range(0, size, _SHOWN_EACH):
            self._to.write(data[begin : begin + _SHOWN_EACH])
            with contextlib.suppress(OSError):  # a full disk: who waits then waits no longer than for nobody
                self._path.touch()
        self._at += size
        return size


def _link_or_copy(source: str, target: str) -> None:
    if os.path.lexists(target):
        os.unlink(target)
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # a disk without links
        shutil.copy2(source, target, follow_symlinks=False)
