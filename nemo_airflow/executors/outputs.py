"""Takes a job's outputs out of an archive that came from where it ran, which is not to be trusted."""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from nemo_airflow.exceptions import BackendUnavailable, ExecutorError


def extract_outputs(archive: IO[bytes], into: Path) -> list[Path]:
    """Unpacks a tar archive whose members are relative to the job's output folder.

    Args:
        archive: The archive, read once from its start to its end.
        into: Folder to unpack into; made when it is not there.

    Returns:
        The paths of the files, relative to ``into``, sorted.

    Raises:
        ExecutorError: A member, or a link among them, leads outside, or is neither file, folder nor link.
        BackendUnavailable: The archive ends too early.
    """
    into.mkdir(parents=True, exist_ok=True)
    files = []
    try:
        with tarfile.open(fileobj=archive, mode="r|", bufsize=1 << 20) as tar:
            for member in tar:
                name = posixpath.normpath(member.name)
                if name == ".":
                    continue
                _check(member, name)
                member.name = name
                tar.extract(member, into, filter="data")
                if not member.isdir():
                    files.append(Path(name))
    except tarfile.FilterError as error:
        raise ExecutorError(f"an output leads out of the job's folder: {error}") from error
    except tarfile.ReadError as error:
        raise BackendUnavailable(f"the outputs did not arrive whole: {error}") from error
    return sorted(files)


def _check(member: tarfile.TarInfo, name: str) -> None:
    if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
        raise ExecutorError(f"output {name} is neither a file, a folder nor a link: it cannot be kept")
    if name.startswith(("/", "../")):
        raise ExecutorError(f"output {name} leads out of the job's folder")
    if member.issym() or member.islnk():
        base = posixpath.dirname(name) if member.issym() else ""
        target = posixpath.normpath(posixpath.join(base, member.linkname))
        if target.startswith(("/", "../")) or target == "..":
            raise ExecutorError(
                f"output {name} links to {member.linkname}, which is outside the job's folder: copy it instead"
            )


def file_of(pieces: Iterator[bytes]) -> IO[bytes]:
    """Returns a file to read, once from start to end, that consists of these pieces."""
    return io.BufferedReader(_Pieces(pieces), 1 << 20)


class _Pieces(io.RawIOBase):
    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size
