"""What a job keeps: gathered at its end into one folder, and sent from there as one archive."""

import os
import shutil
import tarfile
from pathlib import Path
from typing import IO, Dict, Iterable

FOLDER = "outputs"
COLLECTED = "collected"
"""File of the job's folder that says that the outputs were fetched."""


def gather(folder: str, patterns: Iterable[str]) -> None:
    """Brings what the patterns match in the working directory into the output folder.

    A link is brought as the link that it is: whoever fetches the outputs judges where it leads.

    Raises:
        OSError: A file cannot be copied, or the disk is full.
        ValueError: A pattern is not one.
    """
    work, target = Path(folder, "work"), Path(folder, FOLDER)
    for pattern in patterns:
        for match in sorted(work.glob(pattern)):
            to = target / match.relative_to(work)
            to.parent.mkdir(parents=True, exist_ok=True)
            if match.is_dir() and not match.is_symlink():
                shutil.copytree(str(match), str(to), symlinks=True, dirs_exist_ok=True, copy_function=_link_or_copy)
            else:
                _link_or_copy(str(match), str(to))


def measure(folder: str) -> Dict[str, int]:
    """Returns how many files the output folder holds, and their bytes."""
    count = size = 0
    for parent, _, names in os.walk(os.path.join(folder, FOLDER)):
        for name in names:
            count += 1
            size += os.lstat(os.path.join(parent, name)).st_size
    return {"files": count, "bytes": size}


def send(folder: str, to: IO[bytes]) -> int:
    """Writes the output folder as a tar archive, then notes that it was fetched; returns an exit code."""
    root = os.path.join(folder, FOLDER)
    with tarfile.open(fileobj=to, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 20) as tar:
        for name in sorted(os.listdir(root)) if os.path.isdir(root) else ():
            tar.add(os.path.join(root, name), arcname=name)
    to.flush()
    Path(folder, COLLECTED).touch()
    return 0


def _link_or_copy(source: str, target: str) -> None:
    if os.path.lexists(target):
        os.unlink(target)
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # a disk without links
        shutil.copy2(source, target, follow_symlinks=False)
