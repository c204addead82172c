"""Unpacks a job's outputs from an archive that was made where the job ran, and is not trusted."""

from __future__ import annotations

import asyncio
import io
import posixpath
import queue
import tarfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Self, cast

from nemo_airflow.exceptions import BackendUnavailable
from nemo_airflow.executors.base import LeaveOut

_AT_ONCE = 16
_TRANSFERS = ThreadPoolExecutor(_AT_ONCE, "nemo-transfer")
"""Unpacks archives while they come: each holds a thread as long as its transfer lasts, so not one of asyncio's own."""

_AHEAD = 32
"""Pieces of an archive that may have come before they are unpacked."""


async def extract_stream(source: AsyncIterator[bytes], into: Path, leave_out: LeaveOut | None = None) -> list[Path]:
    """Unpacks an archive while it comes, as :func:`extract_outputs` does; ends where the archive says that it ends.

    Args:
        source: The archive in pieces of at most some tens of kilobytes; some are held in memory.
        into: Folder to unpack into.
        leave_out: Called with the name of each member that is left out, and why.

    Raises:
        BackendUnavailable: The archive ends too early.
    """
    inflow = _Inflow()
    archive = cast(IO[bytes], inflow)
    loop = asyncio.get_running_loop()
    extraction: asyncio.Future[Any] = loop.run_in_executor(_TRANSFERS, extract_outputs, archive, into, leave_out)
    filling: asyncio.Future[Any] = asyncio.create_task(inflow.fill(source))
    try:
        await asyncio.wait({extraction, filling}, return_when=asyncio.FIRST_COMPLETED)
        if filling.done():
            filling.result()
    finally:
        filling.cancel()
        await asyncio.wait({filling})
        inflow.end()
        await asyncio.wait({extraction})
    return list(extraction.result())


def extract_outputs(archive: IO[bytes], into: Path, leave_out: LeaveOut | None = None) -> list[Path]:
    """Unpacks a tar archive whose members are relative to the job's output folder.

    What leads outside, links to nothing or is neither file, folder nor link is left out: the other outputs of a job
    are not to be lost for one link.

    Args:
        archive: The archive, read once from its start to its end.
        into: Folder to unpack into; made when it is not there.
        leave_out: Called with the name of each member that is left out, and why.

    Returns:
        The paths of the files, relative to ``into``, sorted.

    Raises:
        BackendUnavailable: The archive ends too early.
    """
    into.mkdir(parents=True, exist_ok=True)
    names = []
    left_out: dict[str, str] = {}
    try:
        with tarfile.open(fileobj=archive, mode="r|", bufsize=1 << 20, tarinfo=_Member) as tar:
            for member in tar:
                name = posixpath.normpath(member.name)
                if name == ".":
                    continue
                reason = _why_not(member, name)
                if not reason and member.islnk() and not (into / posixpath.normpath(member.linkname)).is_file():
                    reason = f"is a hard link to {member.linkname}, which is not among the outputs"
                if reason:
                    left_out[name] = reason
                    continue
                member.name = name
                try:
                    tar.extract(member, into, filter="data")
                except tarfile.FilterError as error:
                    left_out[name] = f"leads out of the job's outputs: {error}"
                    continue
                if not member.isdir():
                    names.append(name)
    except tarfile.ReadError as error:
        raise BackendUnavailable(f"the outputs arrived incomplete: {error}") from error
    kept = [name for name in names if _is_there(into / name, name, left_out)]
    for name, reason in left_out.items():
        if leave_out is not None:
            leave_out(f"{name} {reason}")
    return sorted(map(Path, kept))


class _Member(tarfile.TarInfo):
    """A member of an archive that may have been cut off between two members, which tarfile takes for its end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Reads a member's header.

        Raises:
            tarfile.ReadError: The archive ends here, without its end mark.
        """
        if not buf:
            raise tarfile.ReadError("unexpected end of data")
        return super().frombuf(buf, encoding, errors)


def _why_not(member: tarfile.TarInfo, name: str) -> str:
    """Returns why a member of the archive cannot be kept, or an empty string."""
    if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
        return "is neither a file, a folder nor a link"
    if name.startswith(("/", "../")) or name == "..":
        return "leads out of the job's outputs"
    if member.issym() or member.islnk():
        base = posixpath.dirname(name) if member.issym() else ""
        target = posixpath.normpath(posixpath.join(base, member.linkname))
        if target.startswith(("/", "../")) or target == "..":
            return f"links to {member.linkname}, which is outside the job's outputs"
    return ""


def _is_there(path: Path, name: str, left_out: dict[str, str]) -> bool:
    """Returns whether an unpacked file is there; a link to nothing is removed."""
    if path.exists():
        return True
    left_out[name] = f"links to {path.readlink()}, which is not there"
    path.unlink()
    return False


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


class _Inflow(io.RawIOBase):
    """A file that a thread reads while the event loop fills it."""

    def __init__(self) -> None:
        self._pieces: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(_AHEAD)
        self._loop = asyncio.get_running_loop()
        self._rest = memoryview(b"")

    async def fill(self, source: AsyncIterator[bytes]) -> None:
        """Takes in all that comes, never much more than has been read."""
        async for data in source:
            await self._room.acquire()
            self._pieces.put(data)

    def end(self) -> None:
        """Ends the file."""
        self._pieces.put(b"")

    def readable(self) -> bool:
        """Returns True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer as far as one piece reaches."""
        if not self._rest:
            self._rest = memoryview(self._pieces.get())
            if not self._rest:
                self.end()  # for the next read
                return 0
            self._loop.call_soon_threadsafe(self._room.release)
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size
