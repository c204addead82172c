"""Sends the outputs of a job straight into the shared store: in pieces, each named by its SHA-256.

A job that was given a grant may write below one prefix of the store, and nothing else. What it announces
with ``log_artifact`` goes while it runs, all the rest at its end. A manifest, which is written last, says what there is
and in which pieces. Whatever does not work here is left to the worker, which collects outputs as from any job.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import os
import stat
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Deque, Dict, List, NamedTuple, Tuple

from nemo_airflow.runner import outputs
from nemo_airflow.runner.upload_targets import BucketTarget, FolderTarget, SendError, Target

MANIFEST = "manifest.json"
"""Name of the list of all that was sent; see :func:`manifest_name`."""

MANIFEST_VERSION = 1

SENT = "outputs.sent"
"""File in the job's folder with the pieces that the store has: digest, and name there, a line each."""

WORTH_IT = 1 << 20
"""Bytes of outputs below which the worker is quicker, if none was announced."""

PACK = 8 << 20
PIECE = 32 << 20

_SENDERS = 4
_AHEAD = 8
"""Pieces that may wait for a sender."""

_BLOCK = 1 << 20


def open_target(grant: Mapping[str, Any], machine: int = 0) -> Target:
    """Returns the target of a grant; connects only when used.

    Args:
        grant: ``folder``; or ``url``, ``prefix`` and ``fields`` of signed POST requests; or what
            :class:`~nemo_airflow.runner.blob_target.BlobTarget` takes. ``machines`` is the number of those that write.
        machine: Which of these this one is.
    """
    if "folder" in grant:
        return FolderTarget(str(grant["folder"]))
    if "blobs" in grant:
        from nemo_airflow.runner.blob_target import BlobTarget  # jobs of other stores need none of it

        return BlobTarget(grant, machine)
    return BucketTarget(grant)


def manifest_name(machine: int) -> str:
    """Returns the name of the list of what one machine of a job has sent."""
    return f"manifest-{machine}.json" if machine else MANIFEST


class _Changed(Exception):
    """A file was written to while it was read."""


class File(NamedTuple):
    """A file among the outputs: its path with slashes, mode, bytes, and SHA-256."""

    path: str
    mode: int
    size: int
    sha256: str


@dataclasses.dataclass
class Survey:
    """What is below some paths: files, targets of links, and what cannot be kept, and why."""

    files: Dict[str, os.stat_result] = dataclasses.field(default_factory=dict)
    links: Dict[str, str] = dataclasses.field(default_factory=dict)
    left_out: List[str] = dataclasses.field(default_factory=list)


class Uploader:
    """Sends the outputs of one job, in threads of its own.

    Args:
        folder: The job's folder.
        grant: Where they may go.
        machine: Which machine of a job of several this is, each of which sends its own outputs.
    """

    refusal = "the outputs do not go straight to the store, so the worker collects them"
    """What is said with the reason why nothing is sent any more."""

    def __init__(self, folder: str, grant: Mapping[str, Any], machine: int = 0) -> None:
        self._folder = folder
        self._root = os.path.join(folder, outputs.FOLDER)
        self._record = os.path.join(folder, SENT)
        self._target: Target = open_target(grant, machine)
        self._name = manifest_name(machine)
        self._is_one_of_several = int(grant.get("machines", 1)) > 1
        self._waiting: Deque[str] = collections.deque()
        self._wake = threading.Condition()
        self._ends = False
        self._thread: threading.Thread | None = None
        self._messages: Deque[str] = collections.deque()
        self._reason = ""
        self._sent: Dict[str, str] = {}
        """Name of each piece that the store has, by its SHA-256."""
        self._putting: Dict[str, threading.Lock] = {}
        self._done: Dict[str, Tuple[int, int, File]] = {}
        """Size and time of change of each file that was read, by path."""
        self._packs: Dict[str, Dict[str, Any]] = {}
        self._pieces: Dict[str, List[Tuple[str, int]]] = {}
        self._lock = threading.Lock()
        self._total = self._moved = 0
        self._manifest = ""

    def announce(self, path: str) -> None:
        """Has a file or folder of the outputs sent now; returns at once."""
        relative = os.path.normpath(path)
        if relative.startswith(("/", "..")):
            return
        with self._wake:
            self._waiting.append(relative)
            self._wake.notify_all()
        self._start()

    def take_warnings(self) -> List[str]:
        """Returns what people should know since the last call, a line each."""
        found = []
        while self._messages:
            found.append(self._messages.popleft())
        return found

    def finish(self) -> None:
        """Has all outputs sent that were not, where that is worth it; see :meth:`wait`."""
        with self._wake:
            self._ends = True
            self._wake.notify_all()
        # Of several machines each has a list, also of nothing: else nobody would know that nothing is missing.
        if self._is_one_of_several or outputs.measure(self._folder)["bytes"] >= WORTH_IT:
            self._start()

    def wait(self, seconds: float) -> bool:
        """Returns whether all is done, at the latest after so many seconds."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is None or not self._thread.is_alive()

    def stop(self) -> None:
        """Gives up: what is being sent is cut off."""
        if not self.wait(0):
            self._give_up("the job was told to end")

    @property
    def manifest(self) -> str:
        """SHA-256 of the manifest of all outputs; empty if not all of them were sent."""
        return self._manifest

    @property
    def progress(self) -> Tuple[int, int]:
        """Bytes that were sent, and that there are to send as far as is known."""
        return self._moved, self._total

    # In the thread

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="nemo-uploads", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        from concurrent.futures import ThreadPoolExecutor

        try:
            self._read_record()
            with ThreadPoolExecutor(_SENDERS, "nemo-upload") as senders:
                while not self._reason:
                    with self._wake:
                        while not (self._waiting or self._ends or self._reason):
                            self._wake.wait()
                        path = "" if self._ends or self._reason else self._waiting.popleft()
                    if self._reason:
                        break
                    if not path:
                        self._manifest = self._send([""], senders, complete=True)
                        break
                    self._send([path], senders, complete=False)
        except SendError as error:
            self._give_up(str(error))
        except _Changed as error:
            self._give_up(f"{error} changed while it was read")
        except OSError as error:
            self._give_up(f"{error.filename or 'the outputs'} cannot be read: {error.strerror}")
        except Exception as error:  # noqa: BLE001 - the job is to end as it would without this
            self._give_up(f"{type(error).__name__}: {error}")
        finally:
            self._target.close()

    def _give_up(self, reason: str) -> None:
        with self._lock:
            if not self._reason:
                self._reason = reason
                self._target.stop()
                self._messages.append(f"{self.refusal}: {reason}")
        with self._wake:
            self._wake.notify_all()

    def _read_record(self) -> None:
        try:
            with open(self._record, encoding="ascii") as file:
                for line in file:
                    sha256, _, name = line.strip().partition(" ")
                    if line.endswith("\n") and len(sha256) == 64 and name:
                        self._sent[sha256] = name
                        self._target.keep(sha256, name)
        except FileNotFoundError:
            return

    def _send(self, paths: Iterable[str], senders: Any, *, complete: bool) -> str:
        """Sends what is below some paths, then the manifest; returns the manifest's SHA-256."""
        survey = self._survey(paths)
        new = {path: found for path, found in survey.files.items() if not self._has(path, found)}
        self._total = self._moved + sum(found.st_size for found in new.values())
        sending = _Sending(senders)
        try:
            small = [path for path, found in new.items() if found.st_size < self._target.small]
            for path in new:
                if new[path].st_size >= self._target.small:
                    self._attempt(lambda path=path: self._send_large(path, new[path], sending), complete)
            for pack in self._pack(small, new, complete):
                sending.put(self._put, pack["sha256"], pack["size"], pack.pop("content"))
                self._packs[pack["sha256"]] = pack
        finally:
            sending.wait()
        for path in sending.changed:
            if complete:
                raise _Changed(path)
            self._done.pop(path, None)
        return self._write_manifest(survey, complete)

    def _survey(self, paths: Iterable[str]) -> Survey:
        survey = Survey()
        for path in paths:
            _look(self._root, path, survey)
        return survey

    def _choose_files(self, survey: Survey, complete: bool) -> Mapping[str, Any]:
        """Returns what the manifest is to have, by path."""
        return survey.files if complete else self._done

    def _attempt(self, call: Any, complete: bool) -> None:
        """A file that is still being written to is sent at the end."""
        try:
            call()
        except (_Changed, FileNotFoundError):
            if complete:
                raise

    def _has(self, path: str, found: os.stat_result) -> bool:
        known = self._done.get(path)
        return known is not None and known[:2] == (found.st_size, found.st_mtime_ns)

    def _send_large(self, path: str, found: os.stat_result, sending: _Sending) -> None:
        whole, size = hashlib.sha256(), max(PIECE, -(-found.st_size // self._target.most_pieces))
        pieces: List[Tuple[str, int]] = []
        source = os.path.join(self._root, path)
        with _open(source) as file:
            for offset in range(0, found.st_size, size):
                left = length = min(size, found.st_size - offset)
                digest = hashlib.sha256()
                while left:
                    block = file.read(min(left, _BLOCK))
                    if not block or self._reason:
                        raise _Changed(path) if not block else SendError(self._reason)
                    left -= len(block)
                    digest.update(block)
                    if found.st_size > size:
                        whole.update(block)
                pieces.append((digest.hexdigest(), length))
                sending.put(self._put_piece, path, source, offset, *pieces[-1])
            if _changed(file, found):
                raise _Changed(path)
        sha256 = whole.hexdigest() if len(pieces) > 1 else pieces[0][0]
        if len(pieces) > 1:
            self._pieces[sha256] = pieces
        self._note(path, found, sha256)

    def _note(self, path: str, found: os.stat_result, sha256: str) -> None:
        mode = 0o755 if found.st_mode & 0o100 else 0o644
        self._done[path] = (found.st_size, found.st_mtime_ns, File(path, mode, found.st_size, sha256))

    def _pack(
        self, paths: Iterable[str], found: Mapping[str, os.stat_result], complete: bool
    ) -> Iterator[Dict[str, Any]]:
        """Yields small files together, each content once."""
        packed = {sha256 for pack in self._packs.values() for sha256, _ in pack["files"]}
        content, at = bytearray(), []
        for path in paths:
            data = b""
            try:
                with _open(os.path.join(self._root, path)) as file:
                    data = file.read(self._target.small)
                    if len(data) != found[path].st_size or _changed(file, found[path]):
                        raise _Changed(path)
            except (_Changed, FileNotFoundError):
                if complete:
                    raise
                continue
            sha256 = hashlib.sha256(data).hexdigest()
            self._note(path, found[path], sha256)
            if sha256 in packed:
                continue
            packed.add(sha256)
            at.append((sha256, len(content)))
            content += data
            if len(content) >= PACK:
                yield _pack_of(bytes(content), at)
                content, at = bytearray(), []
        if at:
            yield _pack_of(bytes(content), at)

    def _put_piece(self, path: str, source: str, offset: int, sha256: str, size: int) -> None:
        def blocks() -> Iterator[bytes]:
            digest, left = hashlib.sha256(), size
            try:
                file = _open(source)
            except OSError:
                raise _Changed(path) from None
            with file:
                file.seek(offset)
                while left:
                    block = file.read(min(left, _BLOCK))
                    left -= len(block)
                    digest.update(block)
                    # Before the last bytes go: the store must not have a piece under a name that is not its own.
                    if not block or (not left and digest.hexdigest() != sha256):
                        raise _Changed(path)
                    yield block

        self._put_blocks(sha256, size, blocks)

    def _put(self, sha256: str, size: int, content: bytes) -> None:
        self._put_blocks(sha256, size, lambda: iter((content,)))

    def _put_blocks(self, sha256: str, size: int, blocks: Any) -> None:
        with self._lock:
            alone = self._putting.setdefault(sha256, threading.Lock())
        with alone:  # two files of one content are one piece
            if sha256 not in self._sent:
                name = self._target.put(sha256, sha256, size, blocks)
                with self._lock, open(self._record, "a", encoding="ascii") as file:
                    file.write(f"{sha256} {name}\n")
                    self._sent[sha256] = name
        with self._lock:
            self._moved += size

    def _write_manifest(self, survey: Survey, complete: bool) -> str:
        there = self._choose_files(survey, complete)
        files = sorted(self._done[path][2] for path in there if path in self._done)
        used = {file.sha256 for file in files}
        packs = [pack for pack in self._packs.values() if any(sha256 in used for sha256, _ in pack["files"])]
        manifest = {
            "version": MANIFEST_VERSION,
            "complete": complete,
            "files": files,
            "packs": packs,
            "pieces": {sha256: pieces for sha256, pieces in self._pieces.items() if sha256 in used},
            "names": {sha256: name for sha256, name in self._sent.items() if name != sha256},
            "links": survey.links,
            "left_out": survey.left_out,
        }
        content = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode("ascii")
        digest = hashlib.sha256(content).hexdigest()
        self._target.put(self._name, digest, len(content), lambda: iter((content,)))
        return digest


class _Sending:
    """Pieces on their way; a bounded number."""

    def __init__(self, senders: Any) -> None:
        self._senders = senders
        self._room = threading.Semaphore(_AHEAD)
        self._futures: List[Any] = []
        self._error: BaseException | None = None
        self.changed: List[str] = []

    def put(self, call: Any, *arguments: Any) -> None:
        """Has a sender make a call, once there is room.

        Raises:
            SendError: An earlier one has failed.
        """
        self._room.acquire()
        if self._error is not None:
            self._room.release()
            raise self._error
        self._futures.append(self._senders.submit(self._make, call, arguments))

    def wait(self) -> None:
        """Waits for all of them.

        Raises:
            SendError: One has failed.
        """
        for future in self._futures:
            future.result()
        if self._error is not None:
            raise self._error

    def _make(self, call: Any, arguments: Tuple[Any, ...]) -> None:
        try:
            if self._error is None:
                call(*arguments)
        except _Changed as error:
            self.changed.append(str(error))
        except BaseException as error:  # noqa: BLE001 - handed to the other thread
            self._error = error
        finally:
            self._room.release()


def read_grant(text: str) -> Dict[str, Any]:
    """Returns a grant from its JSON; empty where there is none, or an unreadable one."""
    try:
        grant = json.loads(text)
    except ValueError:
        return {}
    return grant if isinstance(grant, dict) else {}


def _pack_of(content: bytes, at: List[Tuple[str, int]]) -> Dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "files": at, "content": content}


def _open(path: str) -> Any:
    return os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb", buffering=0)


def _changed(file: Any, found: os.stat_result) -> bool:
    now = os.fstat(file.fileno())
    return (now.st_size, now.st_mtime_ns) != (found.st_size, found.st_mtime_ns)


def _look(root: str, path: str, survey: Survey) -> None:
    """Adds what is at a path below the outputs, or under it; follows no link."""
    top = os.path.join(root, path) if path else root
    real = os.path.realpath(root)
    if os.path.commonpath([real, os.path.realpath(os.path.dirname(top) if path else top)]) != real:
        return  # below a link that leads elsewhere
    if path and not (os.path.isdir(top) and not os.path.islink(top)):
        _look_at(root, top, survey)
        return
    for parent, folders, names in os.walk(top):
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        for name in sorted(names + links):
            _look_at(root, os.path.join(parent, name), survey)


def _look_at(root: str, path: str, survey: Survey) -> None:
    relative = os.path.relpath(path, root)
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISREG(found.st_mode):
        survey.files[relative] = found
    elif stat.S_ISLNK(found.st_mode):
        target, top = os.readlink(path), os.path.realpath(root)
        if not os.path.exists(path):
            survey.left_out.append(f"{relative} links to {target}, which is not there")
        elif os.path.isabs(target) or os.path.commonpath([top, os.path.realpath(path)]) != top:
            survey.left_out.append(f"{relative} links to {target}, which is outside the job's outputs")
        else:
            survey.links[relative] = target
    else:
        survey.left_out.append(f"{relative} is neither a file, a folder nor a link")
