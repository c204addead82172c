"""Fetches what a job is given straight from the shared store: by signed addresses, or from where it is mounted.

The worker signs an address for each blob, and sends nothing. An archive consists of parts of blobs, one after the
other; a folder that is in the store as single files becomes a plain tar here. What arrives is compared with its
SHA-256. Where anything does not work, the job ends before its code begins, and the task submits it again with the
archives sent by the worker.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import http.client
import os
import socket
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, Deque, Dict, List, Tuple, cast
from urllib.parse import parse_qsl, urlsplit

from nemo_airflow.runner.upload_targets import ANSWER_WITHIN, CONNECT_WITHIN, describe_error, error_in

HOST_START = "start.sh"
"""Script that starts a job in a folder of a host, where jobs share what was brought there, in ``../../packages``."""

SEGMENT = 8 << 20
"""Bytes of a request."""

_READERS = 4
_AHEAD = 6
"""Segments that are read before they are written: at most so much of them is in memory."""

_BLOCK = 1 << 20
_LOOK_EVERY = 0.5
_PATIENCE = 2.5 * ANSWER_WITHIN
"""Seconds for which a piece is asked for of a store that was reached: again, where no answer comes."""

_SAY_EVERY = 15.0
_SIGNATURES = ("x-amz-signature", "x-amz-security-token", "x-goog-signature", "sig")

Part = Tuple[str, int, int]
"""Part of a blob: its SHA-256, offset and size."""


class FetchError(Exception):
    """The store cannot be reached from here, or refuses; the message never quotes an address.

    Attributes:
        failure: The kind of failure, as in the end record.
    """

    failure = "fetch"


def signatures_in(urls: Iterable[str]) -> List[str]:
    """Returns the secret parts of addresses: without its signature one is of no use."""
    queries = [parse_qsl(urlsplit(url).query) for url in urls]
    return sorted({value for query in queries for name, value in query if name.lower() in _SIGNATURES})


class Fetcher:
    """Brings archives into a job's folder.

    Args:
        folder: The job's folder.
        grant: ``urls`` of blobs by their SHA-256, and ``archives`` by the names that they get. An archive has its
            ``digest``, ``format`` and ``size``, and either ``sha256`` and ``parts``, or ``files`` with path, mode,
            size, SHA-256 and parts of each.
    """

    def __init__(self, folder: str, grant: Mapping[str, Any]) -> None:
        self._folder = folder
        self._urls: Mapping[str, str] = grant["urls"]
        self._archives: Mapping[str, Mapping[str, Any]] = grant["archives"]
        self.secrets = signatures_in(self._urls.values())
        """What must be in no output."""
        self._stopped = threading.Event()
        self._reason = ""
        self._connections = _Connections()

    @property
    def names(self) -> List[str]:
        """The names of the archives that it knows."""
        return sorted(self._archives)

    def stop(self) -> None:
        """Gives up, and cuts off what is being read."""
        self._stopped.set()
        self._connections.cut()

    def bring(self, name: str, say: Callable[[str], None]) -> None:
        """Brings an archive into the folder, unless it is there, or nothing is known of it.

        Args:
            name: Its file name.
            say: Called with a line of progress now and then.

        Raises:
            FetchError: The store cannot be reached, or refuses.
            OSError: The disk is full, or refuses.
        """
        target, archive = os.path.join(self._folder, name), self._archives.get(name)
        if archive is None or os.path.exists(target):
            return
        shared = os.path.join(self._folder, os.pardir, os.pardir, "packages")
        is_host = os.path.isfile(os.path.join(self._folder, HOST_START)) and os.path.isdir(shared)
        if not is_host:
            self._fetch(archive, target, say)
            return
        kept = os.path.join(shared, f"{archive['digest']}.{archive['format']}")
        with self._alone(os.path.join(shared, f".fetch-{archive['digest'][:16]}"), say):
            if os.path.exists(kept):
                _link_or_copy(kept, target)
                return
            self._fetch(archive, target, say)
            _link_or_copy(target, kept)

    @contextlib.contextmanager
    def _alone(self, path: str, say: Callable[[str], None]) -> Iterator[None]:
        """Lets one job of a host fetch what the others wait for."""
        import fcntl

        with open(path, "w") as lock:
            waits = False
            while not self._stopped.is_set():
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if not waits:
                        say("another job on this host fetches the same artifact: waiting for it")
                    waits = True
                    self._stopped.wait(_LOOK_EVERY)
                except OSError:  # a disk without locks: each job fetches for itself
                    break
                else:
                    break
            yield

    def _fetch(self, archive: Mapping[str, Any], target: str, say: Callable[[str], None]) -> None:
        files = archive.get("files")
        parts = archive["parts"] if files is None else [part for file in files for part in file[4]]
        progress = _Progress(int(archive["size"]), say)
        scratch = tempfile.mkdtemp(dir=self._folder, prefix=".fetch-")
        new = os.path.join(scratch, "new")
        try:
            with _Stream(segments_of(parts), self._read, progress) as stream, open(new, "wb") as file:
                if files is None:
                    content = _Content(stream, int(archive["size"]), str(archive["sha256"]))
                    while block := content.read(_BLOCK):
                        file.write(block)
                else:
                    _write_tar(files, stream, file)
            os.replace(new, target)
        finally:
            if os.path.exists(new):
                os.unlink(new)
            os.rmdir(scratch)

    def _read(self, segment: Part) -> bytes:
        sha256, offset, size = segment
        url = self._urls[sha256]
        if url.startswith("/"):
            return _read_file(url, offset, size)
        pause, began, was_reached = 0.5, time.monotonic(), False
        while True:
            status, data, reason = self._get(url, offset, size)
            if status in (200, 206) and len(data) == size:
                return data
            was_reached = was_reached or status != 0
            where = f"the store at {urlsplit(url).scheme}://{urlsplit(url).netloc}"
            may_succeed = status in (0, 200, 206, 408, 429) or status >= 500
            if not may_succeed or time.monotonic() - began >= (_PATIENCE if was_reached else CONNECT_WITHIN):
                self._reason = self._reason or f"{where} {reason or 'sends less than there is'}"
                self.stop()  # the other readers, too
            if self._stopped.wait(pause):
                raise FetchError(self._reason or "it was given up")
            pause = min(pause * 2, 8.0)

    def _get(self, url: str, offset: int, size: int) -> Tuple[int, bytes, str]:
        """Returns an answer's status, its content, and why it is no success; status 0 where there is no answer."""
        at = urlsplit(url)
        target = f"{at.path}?{at.query}" if at.query else at.path
        try:
            with self._connections.borrow(at.scheme, at.netloc) as connection:
                connection.request("GET", target, headers={"Range": f"bytes={offset}-{offset + size - 1}"})
                answer = connection.getresponse()
                if answer.status not in (200, 206):
                    text = answer.read(1 << 16).decode("utf-8", "replace")
                    return answer.status, b"", f"refuses: {error_in(text, answer.status)}"
                data = answer.read(size)
                if answer.status == 200 and (offset or answer.read(1)):
                    connection.close()
                    return 416, b"", "refuses: it sends no part of an object"
                return answer.status, data, ""
        except (OSError, http.client.HTTPException) as error:
            return 0, b"", f"cannot be reached from the job: {describe_error(error)}"


class _Connections:
    """Kept connections, which several threads use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: Dict[Tuple[str, str], List[http.client.HTTPConnection]] = {}
        self._busy: List[http.client.HTTPConnection] = []

    @contextlib.contextmanager
    def borrow(self, scheme: str, netloc: str) -> Iterator[http.client.HTTPConnection]:
        """Yields a connection; it is closed where it was not used to the end of an answer."""
        with self._lock:
            idle = self._idle.setdefault((scheme, netloc), [])
            kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
            connection = idle.pop() if idle else kind(netloc, timeout=CONNECT_WITHIN)
            self._busy.append(connection)
        try:
            opened: socket.socket | None = connection.sock
            if opened is None:
                connection.connect()
                opened = connection.sock
            if opened is not None:
                opened.settimeout(ANSWER_WITHIN)
            yield connection
        except BaseException:
            connection.close()
            raise
        finally:
            with self._lock:
                self._busy.remove(connection)
                idle.append(connection)

    def cut(self) -> None:
        """Cuts off those that are in use."""
        with self._lock:
            for connection in self._busy:
                if connection.sock is not None:
                    with contextlib.suppress(OSError):  # the other side has closed it
                        connection.sock.shutdown(socket.SHUT_RDWR)


class _Progress:
    """Says now and then how far a fetch has come."""

    def __init__(self, total: int, say: Callable[[str], None]) -> None:
        self._total = total
        self._moved = 0
        self._say = say
        self._said_at = time.monotonic()

    def add(self, size: int) -> None:
        self._moved += size
        if time.monotonic() >= self._said_at + _SAY_EVERY:
            self._said_at = time.monotonic()
            self._say(f"fetched from the store: {self._moved >> 20} of {self._total >> 20} MiB")


class _Stream:
    """The bytes of segments in their order, several of which are read ahead."""

    def __init__(self, segments: Sequence[Part], read: Callable[[Part], bytes], progress: _Progress) -> None:
        from concurrent.futures import Future, ThreadPoolExecutor

        self._left = iter(segments)
        self._read_segment = read
        self._progress = progress
        self._readers = ThreadPoolExecutor(_READERS, "nemo-fetch")
        self._futures: Deque[Future[bytes]] = collections.deque()
        self._block = memoryview(b"")

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: object) -> None:
        for future in self._futures:
            future.cancel()
        self._readers.shutdown()

    def read(self, size: int) -> bytes:
        """Returns so many bytes; fewer at the end alone."""
        found = bytearray()
        while len(found) < size and (self._block or self._next()):
            taken = self._block[: size - len(found)]
            found += taken
            self._block = self._block[len(taken) :]
        return bytes(found)

    def _next(self) -> bool:
        while len(self._futures) < _AHEAD and (segment := next(self._left, None)) is not None:
            self._futures.append(self._readers.submit(self._read_segment, segment))
        if not self._futures:
            return False
        self._block = memoryview(self._futures.popleft().result())
        self._progress.add(len(self._block))
        return True


def segments_of(parts: Sequence[Sequence[Any]]) -> List[Part]:
    """Returns the requests for parts of blobs: parts that stand beside each other together, large ones cut."""
    found: List[Part] = []
    for sha256, offset, size in parts:
        while size:
            last = found[-1] if found else ("", 0, 0)
            if last[0] == sha256 and last[1] + last[2] == offset and last[2] < SEGMENT:
                taken = min(size, SEGMENT - last[2])
                found[-1] = (sha256, last[1], last[2] + taken)
            else:
                taken = min(size, SEGMENT)
                found.append((sha256, offset, taken))
            offset, size = offset + taken, size - taken
    return found


class _Content:
    """The next bytes of a stream, which have to have a SHA-256."""

    def __init__(self, stream: _Stream, size: int, sha256: str) -> None:
        self._stream = stream
        self._left = size
        self._sha256 = sha256
        self._digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        block = self._stream.read(min(size, self._left))
        self._left -= len(block)
        self._digest.update(block)
        if not self._left and self._digest.hexdigest() != self._sha256:
            raise FetchError(f"what the store has as {self._sha256[:12]} is damaged")
        return block


def _write_tar(files: Sequence[Sequence[Any]], stream: _Stream, file: IO[bytes]) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, mode, size, sha256, _ in files:
            member = tarfile.TarInfo(str(path))
            member.size, member.mode = int(size), int(mode)
            tar.addfile(member, cast("IO[bytes]", _Content(stream, int(size), str(sha256))))


def _read_file(path: str, offset: int, size: int) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return os.pread(file.fileno(), size, offset)
    except OSError as error:
        raise FetchError(f"the store's file {path} cannot be read here: {error.strerror}") from error


def _link_or_copy(source: str, target: str) -> None:
    import shutil

    new = f"{target}.{os.getpid()}.new"
    try:
        try:
            os.link(source, new)
        except OSError:  # a disk without links
            shutil.copyfile(source, new)
        os.replace(new, target)
    finally:
        with contextlib.suppress(FileNotFoundError):  # os.replace() leaves the name where both are one file
            os.unlink(new)
