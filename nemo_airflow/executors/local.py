"""Runs jobs as processes of this machine, each in its own session and folder.

A job outlives the process that submitted it. All that is known of it is in its folder,
``<root>/<key>``: ``job.json`` (what to run), ``claim`` (who runs it), ``log`` (its stream),
``work/`` and ``outputs/``, and ``end.json`` once it has ended.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from nemo_airflow import settings
from nemo_airflow.exceptions import ExecutorError, SubmitError
from nemo_airflow.executors import bundle, processes, shipping
from nemo_airflow.executors.base import Chunk, Cursor, Driver, Executor, LeaveOut, Request
from nemo_airflow.executors.folder import TTL, JobFolder
from nemo_airflow.executors.inside import command_inside
from nemo_airflow.executors.intake import Intake
from nemo_airflow.executors.seen import GONE, RUNNING, Seen
from nemo_airflow.folders import folder_size
from nemo_airflow.job import FailureKind, Job, JobHandle
from nemo_airflow.packaging.archive import writes_zstd
from nemo_airflow.terminal import Terminal
from nemo_airflow.threads import Threads

INHERITED = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "TERM",
    "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV", "CONDA_*",
    "CUDA_*", "NVIDIA_*", "ROCR_*", "HIP_*", "OMP_*", "MKL_*",
    "SSL_CERT_*", "REQUESTS_CA_BUNDLE",
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
)  # fmt: skip
"""Variables that a local job takes from the submitting process. Not all: a worker's hold Airflow's secrets."""

_CLAIM_WAIT = 30.0
_EXIT_ALREADY_CLAIMED = 75


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocalExecutor(Executor):
    """Runs a job as a process of the machine that submits it.

    The worker and the triggerer must be on one machine, as with Airflow's ``LocalExecutor``;
    else give the operator ``deferrable=False``.

    Attributes:
        root: Folder under which each job has its own; ``<home>/jobs`` when None.
        python: The interpreter of the job; the submitting process's own when None.
        inherit_env: Patterns of variables that the job takes over from the submitting process.
        ttl: Seconds for which an ended job's folder is kept after the last file was written to it; None to keep it
            until it is removed.
    """

    kind: ClassVar[str] = "local"
    shares_filesystem: ClassVar[bool] = True
    takes_secrets: ClassVar[bool] = True
    keeps_attempts_together: ClassVar[bool] = True

    root: str | None = None
    python: str | None = None
    inherit_env: Sequence[str] = INHERITED
    ttl: float | None = 86400.0

    @property
    def reads_zstd(self) -> bool:
        """See :attr:`Executor.reads_zstd`: what this process can write, the same interpreter can read."""
        return self.python is None and writes_zstd()

    def render(self, job: Job) -> Request:
        """Returns the process to start, and the folder and files that it finds."""
        folder = self.folder / job.key
        runner = self.folder / ".runner" / shipping.runner_digest() / shipping.ENTRY
        payload = {
            "argv": [self.python or sys.executable, str(runner), str(folder)],
            "cwd": str(folder),
            "env": {**self._inherited(), "NEMO_AIRFLOW_KEY": job.key},
            "folder": str(folder),
        }
        job = self.prepare(job)
        files = {"job.json": job.dumps(), **({} if self.ttl is None else {TTL: f"{self.ttl:g}\n"})}
        return Request(
            key=job.key,
            kind=self.kind,
            payload=payload,
            files=files,
            package=job.package,
            secrets=job.secret_env,
            inputs=job.inputs,
        )

    def _inherited(self) -> Mapping[str, str]:
        return {
            name: value
            for name, value in sorted(os.environ.items())
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.inherit_env)
        }

    @property
    def folder(self) -> Path:
        """The folder of all its jobs."""
        return Path(self.root).expanduser().absolute() if self.root else settings.jobs_folder()

    def connection_key(self) -> Hashable:
        """One driver for all jobs under one folder."""
        return (self.kind, str(self.folder))

    def connect(self) -> Driver:
        """Returns a driver on the folder."""
        return LocalDriver(self.folder)


class LocalDriver(Driver):
    """Starts, finds, reads and ends the processes under one folder."""

    poll_interval = (0.05, 2.0)

    def __init__(self, root: Path) -> None:
        self._root = root
        self._threads = Threads("local", calls=4)

    async def submit(self, request: Request) -> JobHandle:
        """See :meth:`Driver.submit`."""
        return await self._threads.transfer(self._submit, request)

    async def find(self, keys: Sequence[str]) -> dict[str, JobHandle]:
        """See :meth:`Driver.find`."""
        return await self._threads.call(self._find, keys)

    async def look(self, handles: Sequence[JobHandle]) -> dict[str, Seen]:
        """See :meth:`Driver.look`."""
        return await self._threads.call(lambda: {handle.key: self._see(handle) for handle in handles})

    async def read(self, cursors: Sequence[Cursor]) -> list[Chunk]:
        """See :meth:`Driver.read`."""
        chunks = await self._threads.call(lambda: [self._read(cursor) for cursor in cursors])
        return [chunk for chunk in chunks if chunk.data or chunk.trouble]

    async def cancel(self, handles: Sequence[JobHandle]) -> None:
        """See :meth:`Driver.cancel`."""
        await self._threads.call(self._cancel_all, handles)

    async def collect(
        self, handle: JobHandle, into: Path, leave_out: LeaveOut | None = None, intake: Intake | None = None
    ) -> list[Path]:
        """See :meth:`Driver.collect`."""
        folder = self._folder(handle.key)
        if intake is not None:
            return await self._threads.transfer(folder.hand_over_outputs, intake, leave_out)
        return await self._threads.transfer(folder.copy_outputs, into, leave_out)

    async def enter(self, handle: JobHandle, command: Sequence[str], executor: Executor, terminal: Terminal) -> int:
        """See :meth:`Driver.enter`."""
        given: Any = executor
        folder = self._folder(handle.key).path
        return terminal.call(command_inside(given.python or sys.executable, str(folder), command), folder)

    async def survey(self) -> list[JobHandle]:
        """See :meth:`Driver.survey`."""
        return await self._threads.call(self._survey)

    async def old_folders(self, older_than: float) -> list[JobHandle]:
        """See :meth:`Driver.old_folders`."""
        return await self._threads.call(self._old_folders, older_than)

    async def disk_used(self) -> int | None:
        """See :meth:`Driver.disk_used`."""
        return await self._threads.call(folder_size, self._root)

    async def labels(self, handles: Sequence[JobHandle]) -> dict[str, Mapping[str, str]]:
        """See :meth:`Driver.labels`."""
        return await self._threads.call(lambda: {handle.key: self._folder(handle.key).labels() for handle in handles})

    async def remove(self, handles: Sequence[JobHandle]) -> None:
        """See :meth:`Driver.remove`."""
        await self._threads.call(self._remove, handles)

    async def sweep(self) -> None:
        """See :meth:`Driver.sweep`."""
        await self._threads.transfer(self._remove_expired)

    async def close(self) -> None:
        """See :meth:`Driver.close`."""
        self._threads.close()

    def _folder(self, key: str) -> JobFolder:
        return JobFolder(self._root / key)

    def _submit(self, request: Request) -> JobHandle:
        folder = self._folder(request.key)
        if handle := self._handle(folder):
            return handle
        try:
            shipping.install_runner(self._root / ".runner")
            folder.lay_out(request.files)
            folder.lay_out_secrets(request.values)
            for archive, path in bundle.archive_files(request.archives):
                folder.bring(archive, path)
            process = self._spawn(request, folder)
            return self._await_claim(folder, process)
        except OSError as error:
            folder.forget_secrets()
            raise SubmitError(f"cannot start a local job in {folder.path}: {error}", kind=_errno_kind(error)) from error
        except SubmitError:
            folder.forget_secrets()
            raise

    def _spawn(self, request: Request, folder: JobFolder) -> subprocess.Popen[bytes]:
        payload: Mapping[str, Any] = request.payload
        with open(folder.log, "ab") as log:
            process = subprocess.Popen(
                payload["argv"], cwd=payload["cwd"], env=payload["env"], start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        _CHILDREN.add(process)
        return process

    def _await_claim(self, folder: JobFolder, process: subprocess.Popen[bytes]) -> JobHandle:
        """Waits until a runner, ours or that of a submit at the same moment, has claimed the job."""
        deadline = time.monotonic() + _CLAIM_WAIT
        pause = 0.002
        while (handle := self._handle(folder)) is None:
            code = process.poll()
            if code is not None and code != _EXIT_ALREADY_CLAIMED and self._handle(folder) is None:
                raise SubmitError(f"the runner of {folder.path} ended with exit code {code}: {folder.last_log_line()}")
            if time.monotonic() > deadline:
                raise SubmitError(
                    f"no runner claimed {folder.path} within {_CLAIM_WAIT:.0f} s: {folder.last_log_line()}"
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 0.1)
        return handle

    def _handle(self, folder: JobFolder) -> JobHandle | None:
        claim = folder.claim()
        if claim is None:
            return None
        return JobHandle(folder.path.name, LocalExecutor.kind, str(claim.pid), claim.host, claim.time)

    def _find(self, keys: Sequence[str]) -> dict[str, JobHandle]:
        return {key: handle for key in keys if (handle := self._handle(self._folder(key)))}

    def _see(self, handle: JobHandle) -> Seen:
        at = time.monotonic()
        try:
            return self._look_into(self._folder(handle.key), at)
        except OSError as error:
            return Seen(at, trouble=f"cannot look into {self._root / handle.key}: {error}")

    def _look_into(self, folder: JobFolder, at: float) -> Seen:
        _CHILDREN.reap()
        claim = folder.claim()
        # Liveness before the end mark: a runner writes the mark, then exits.
        alive = processes.is_alive(claim) if claim is not None else None
        if mark := folder.end_mark():
            return Seen(at, mark=mark)
        if claim is None:
            return Seen(at, note=f"{folder.path / 'claim'} is missing or cannot be read on {socket.gethostname()}")
        if alive is None:
            here = socket.gethostname()
            return Seen(at, note=f"the job runs on {claim.host}, not on {here}: give its task deferrable=False")
        return Seen(at, queue=RUNNING if alive else GONE)

    def _read(self, cursor: Cursor) -> Chunk:
        try:
            with open(self._folder(cursor.handle.key).log, "rb") as log:
                log.seek(cursor.offset)
                return Chunk(cursor.handle.key, cursor.offset, log.read(cursor.limit))
        except FileNotFoundError:
            return Chunk(cursor.handle.key, cursor.offset, b"")
        except OSError as error:
            trouble = f"cannot read {self._folder(cursor.handle.key).log}: {error}"
            return Chunk(cursor.handle.key, cursor.offset, b"", trouble=trouble)

    def _survey(self) -> list[JobHandle]:
        folders = [path for path in self._root.iterdir() if path.name[0] != "."] if self._root.is_dir() else []
        handles = [handle for path in folders if (handle := self._handle(JobFolder(path)))]
        return [handle for handle in handles if self._see(handle).is_alive]

    def _old_folders(self, older_than: float) -> list[JobHandle]:
        folders = [JobFolder(path) for path in self._root.glob("[!.]*")]
        before = time.time() - older_than
        handles = [handle for each in folders if each.written_at() <= before and (handle := self._handle(each))]
        return [handle for handle in handles if self._see(handle).has_ended]

    def _remove_expired(self) -> None:
        now = time.time()
        for path in self._root.glob("[!.]*"):
            folder = JobFolder(path)
            ttl = folder.ttl()
            if ttl is not None and now - folder.written_at() > ttl and self._is_over(folder):
                shutil.rmtree(path, ignore_errors=True)  # what is left of it goes with the next sweep

    def _is_over(self, folder: JobFolder) -> bool:
        """Whether a job has ended, or was never begun: one of another machine may run on."""
        seen = self._look_into(folder, time.monotonic())
        return seen.has_ended or not (folder.path / "claim").exists()

    def _cancel_all(self, handles: Sequence[JobHandle]) -> None:
        for handle in handles:
            self._cancel(handle)

    def _cancel(self, handle: JobHandle) -> None:
        folder = self._folder(handle.key)
        if not folder.path.is_dir():
            return
        folder.mark_cancelled()
        claim = folder.claim()
        if claim is None:
            return
        if processes.is_alive(claim):
            processes.terminate(claim)
        else:  # the runner died without ending what it had started
            processes.kill_marked("NEMO_AIRFLOW_KEY", handle.key)

    def _remove(self, handles: Sequence[JobHandle]) -> None:
        for handle in handles:
            if self._see(handle).is_alive:
                raise ExecutorError(f"job {handle.key} is still running: cancel it before it is removed")
            try:
                self._folder(handle.key).remove()
            except OSError as error:
                raise ExecutorError(
                    f"cannot remove {error.filename or self._root / handle.key}: {error.strerror}"
                ) from error


class _Children:
    """The runners that this process started: collected when they end, or they would stay as zombies."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: list[subprocess.Popen[bytes]] = []

    def add(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._running.append(process)

    def reap(self) -> None:
        with self._lock:
            self._running = [process for process in self._running if process.poll() is None]


_CHILDREN = _Children()


def _errno_kind(error: OSError) -> str:
    import errno

    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return FailureKind.QUOTA if full else FailureKind.USER_ERROR
