"""Unpacks a job's outputs from an archive that was made where the job ran, and is not trusted."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import posixpath
import queue
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Self, cast

from nemo_airflow.exceptions import BackendUnavailable, ExecutorError
from nemo_airflow.executors.base import LeaveOut
from nemo_airflow.executors.intake import Intake

_AT_ONCE = 16
TRANSFERS = ThreadPoolExecutor(_AT_ONCE, "nemo-transfer")
"""Unpacks archives while they come: each holds a thread as long as its transfer lasts, so not one of asyncio's own."""

_BLOCK = 1 << 18
"""Bytes that are written at once."""

_AHEAD = 32
"""Pieces of an archive that may have come before they are unpacked."""


async def extract_stream(
    source: AsyncIterator[bytes], into: Path, leave_out: LeaveOut | None = None, intake: Intake | None = None
) -> list[Path]:
    """Unpacks an archive while it comes, as :func:`extract_outputs` does; ends where the archive says that it ends.

    Args:
        source: The archive in pieces of at most some hundred kilobytes; some are held in memory.
        into: Folder to unpack into.
        leave_out: Called with the name of each member that is left out, and why.
        intake: What takes each member as soon as it has come.

    Raises:
        BackendUnavailable: The archive ends too early.
        ExecutorError: The disk here is full.
    """
    inflow = _Inflow()
    archive = cast(IO[bytes], inflow)
    loop = asyncio.get_running_loop()
    extraction: asyncio.Future[Any] = loop.run_in_executor(TRANSFERS, extract_outputs, archive, into, leave_out, intake)
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


def extract_outputs(
    archive: IO[bytes], into: Path, leave_out: LeaveOut | None = None, intake: Intake | None = None
) -> list[Path]:
    """Unpacks a tar archive whose members are relative to the job's output folder.

    What leads outside, links to nothing or is neither file, folder nor link is left out: the other outputs of a job
    are not to be lost for one link.

    Args:
        archive: The archive, read once from its start to its end.
        into: Folder to unpack into; made when it is not there.
        leave_out: Called with the name of each member that is left out, and why.
        intake: What takes each member as soon as it has come; links and folders are not made then.

    Returns:
        The paths of the files, relative to ``into``, sorted.

    Raises:
        BackendUnavailable: The archive ends too early.
        ExecutorError: The disk here is full.
    """
    into.mkdir(parents=True, exist_ok=True)
    unpacking = _Unpacking(into) if intake is None else _Passing(into, intake)
    forward = _Forward(archive)
    left_out: dict[str, str] = {}
    try:
        with tarfile.open(fileobj=cast(IO[bytes], forward), mode="r:", tarinfo=_Member) as tar:
            for member in _members(tar, forward):
                name = posixpath.normpath(member.name)
                if name == ".":
                    continue
                reason = _why_not(member, name) or unpacking.take(member, name, forward)
                if reason:
                    left_out[name] = reason
    except tarfile.ReadError as error:
        raise BackendUnavailable(f"the outputs arrived incomplete: {error}") from error
    left_out.update(unpacking.finish())
    for name, reason in left_out.items():
        if leave_out is not None:
            leave_out(f"{name} {reason}")
    return sorted(map(Path, unpacking.names))


class _Unpacking:
    """Writes members into a folder."""

    def __init__(self, into: Path) -> None:
        self._into = into
        self._root = os.path.realpath(into)
        self._ready: set[str] = set()
        self.names: list[str] = []

    def take(self, member: tarfile.TarInfo, name: str, content: _Forward) -> str:
        """Writes a member; returns why it is left out, or an empty string."""
        folder = name if member.isdir() else posixpath.dirname(name)
        if folder not in self._ready:
            with _disk_errors(self._into):
                if not self._has(self._into / folder):
                    return "leads out of the job's outputs"
                (self._into / folder).mkdir(parents=True, exist_ok=True)
            self._ready.add(folder)
        if member.isdir():
            return ""
        if not (member.issym() or member.islnk()):
            _write_member(member, f"{self._into}/{name}", content)
            self.names.append(name)
            return ""
        path = self._into / name
        self._ready.clear()  # what was inside may lead elsewhere now
        path.unlink(missing_ok=True)
        if member.issym():
            path.symlink_to(member.linkname)
        else:
            other = self._into / posixpath.normpath(member.linkname)
            if not other.is_file() or not self._has(other):
                return f"is a hard link to {member.linkname}, which is not among the outputs"
            os.link(other, path, follow_symlinks=False)
        self.names.append(name)
        return ""

    def finish(self) -> dict[str, str]:
        """Removes the links to nothing; returns these with the reasons."""
        left_out = {}
        for name in self.names:
            if not os.path.islink(f"{self._into}/{name}"):
                continue
            path = self._into / name
            if path.exists() and self._has(path):
                continue
            where = "which is not there" if not path.exists() else "which is outside the job's outputs"
            left_out[name] = f"links to {path.readlink()}, {where}"
        for name in left_out:
            (self._into / name).unlink()
        self.names = [name for name in self.names if name not in left_out]
        return left_out

    def _has(self, path: Path) -> bool:
        real = os.path.realpath(path)
        return real == self._root or real.startswith(self._root + os.sep)


class _Passing:
    """Hands members on as they come. Only files touch the disk, so that no link can lead anywhere."""

    def __init__(self, into: Path, intake: Intake) -> None:
        self._into = into
        self._intake = intake
        self._ready: set[Path] = set()
        self.names: list[str] = []

    def take(self, member: tarfile.TarInfo, name: str, content: _Forward) -> str:
        """Hands a member on; returns an empty string."""
        if member.isdir():
            self._intake.take_folder(name)
            return ""
        self.names.append(name)
        if member.issym():
            self._intake.take_link(name, member.linkname)
        elif member.islnk():
            self._intake.take_link(name, posixpath.normpath(member.linkname), hard=True)
        else:
            self._pass_file(member, name, content)
        return ""

    def finish(self) -> dict[str, str]:
        """Returns nothing: the intake knows better which links lead nowhere."""
        return {}

    def _pass_file(self, member: tarfile.TarInfo, name: str, content: _Forward) -> None:
        path = self._into / name
        self._intake.make_room(member.size)
        try:
            if path.parent not in self._ready:
                with _disk_errors(self._into):
                    path.parent.mkdir(parents=True, exist_ok=True)
                self._ready.add(path.parent)
            _write_member(member, str(path), content, self._intake.note_bytes)
        except BaseException:
            path.unlink(missing_ok=True)
            self._intake.give_back(member.size)
            raise
        self._intake.take_file(name, path, passing=True)


def _write_member(
    member: tarfile.TarInfo, path: str, content: _Forward, note_bytes: Callable[[int], None] | None = None
) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with _disk_errors(path):
        try:
            file = os.open(path, flags, 0o600)
        except FileExistsError:
            os.unlink(path)
            file = os.open(path, flags, 0o600)
    try:
        content.copy_to(file, member.size, note_bytes)
        mode = member.mode & 0o755 | 0o600
        os.fchmod(file, mode if mode & 0o100 else mode & ~0o111)
        os.utime(file, (member.mtime, member.mtime))
    finally:
        os.close(file)


@contextlib.contextmanager
def _disk_errors(folder: Path | str) -> Iterator[None]:
    """Makes errors of the disk here others than those of a network, which may go by themselves."""
    try:
        yield
    except OSError as error:
        raise ExecutorError(f"the outputs cannot be written to {folder}: {error.strerror or error}") from error


class _Forward:
    """An archive that is read once, as :mod:`tarfile` reads a file: it goes to a later place, and never back.

    The content of members does not pass through tarfile, which copies it several times.
    """

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._at = 0
        self._buffer = memoryview(bytearray(_BLOCK))
        self._ahead = self._buffer[:0]
        """What has been read of the source and not from here."""

    def tell(self) -> int:
        """Returns the place of the next byte."""
        return self._at

    def seek(self, place: int) -> None:
        """Goes forward to a place.

        Raises:
            tarfile.ReadError: The archive ends before that.
        """
        self.copy_to(None, place - self._at)

    def read(self, size: int) -> bytes:
        """Reads so many bytes, or those that are left."""
        data = bytearray()
        while len(data) < size and self._fill():
            data += self._take(size - len(data))
        return bytes(data)

    def peek(self, size: int) -> memoryview:
        """Returns the next bytes, at most a block, or those that are left; they stay the next ones."""
        while len(self._ahead) < size:
            kept = len(self._ahead)
            self._buffer[:kept] = self._ahead
            got = self._read_into(self._buffer[kept:])
            self._ahead = self._buffer[: kept + got]
            if not got:
                break
        return self._ahead[:size]

    def copy_to(self, file: int | None, size: int, note_bytes: Callable[[int], None] | None = None) -> None:
        """Writes what comes next to an open file, or drops it.

        Raises:
            tarfile.ReadError: The archive ends before that.
        """
        while size:
            if not self._fill():
                raise tarfile.ReadError("unexpected end of data")
            view = self._take(size)
            size -= len(view)
            if file is not None:
                _write(file, view)
            if note_bytes is not None:
                note_bytes(len(view))

    def _take(self, size: int) -> memoryview:
        view, self._ahead = self._ahead[:size], self._ahead[size:]
        self._at += len(view)
        return view

    def _fill(self) -> bool:
        """Returns whether anything is left."""
        if not self._ahead:
            self._ahead = self._buffer[: self._read_into(self._buffer)]
        return bool(self._ahead)

    def _read_into(self, view: memoryview) -> int:
        got: int = self._source.readinto(view) or 0  # type: ignore[attr-defined]
        return got


def _members(tar: tarfile.TarFile, content: _Forward) -> Iterator[tarfile.TarInfo]:
    """Yields the members of an archive; the content of each is the next to be read.

    Raises:
        tarfile.ReadError: The archive is damaged, or ends too early.
    """
    while member := tar.next():
        tar.members.clear()  # type: ignore[attr-defined]  # it would keep the headers of all
        yield member
        content.seek(tar.offset)
        # Most are plain files, and tarfile takes four times as long for one.
        while member := _plain_file(content.peek(tarfile.BLOCKSIZE)):
            end = content.tell() + tarfile.BLOCKSIZE + member.size + -member.size % tarfile.BLOCKSIZE
            content.seek(content.tell() + tarfile.BLOCKSIZE)
            yield member
            content.seek(end)
            tar.offset = end


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


def _plain_file(header: memoryview) -> tarfile.TarInfo | None:
    """Reads the header of a file that has a short name and no other names; None for any other."""
    block = bytes(header)
    if block[156:157] != tarfile.REGTYPE or block[345]:
        return None
    name, _, rest = block[:100].partition(b"\0")
    if rest.strip(b"\0") or not name.isascii():
        return None
    try:
        checksum, *numbers = (int(block[place], 8) for place in _NUMBERS)
    except ValueError:
        return None
    if checksum != sum(block) - sum(block[148:156]) + 8 * ord(" "):
        return None
    member = tarfile.TarInfo(name.decode("ascii"))
    member.mode, member.size, member.mtime = numbers
    return member


_NUMBERS = (slice(148, 154), slice(100, 107), slice(124, 135), slice(136, 147))
"""Where a header has its checksum, and a file's mode, size and time, as octal digits."""


def _write(file: int, data: memoryview) -> None:
    try:
        while data:
            data = data[os.write(file, data) :]
    except OSError as error:
        raise ExecutorError(f"the outputs cannot be written here: {error.strerror}") from error


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
