"""What all drivers over a shell share: laying out, reading and collecting job folders on the host."""

from __future__ import annotations

import abc
import asyncio
import io
import json
import logging
import math
import secrets
import tarfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_airflow.exceptions import BackendUnavailable, ExecutorError, OutputsLost, SubmitError
from nemo_airflow.executors import bundle, shipping
from nemo_airflow.executors.base import Chunk, Cursor, Driver, Executor, LeaveOut, Request
from nemo_airflow.executors.finding import Finding
from nemo_airflow.executors.folder import JobFolder, parse_end
from nemo_airflow.executors.host import folders
from nemo_airflow.executors.host.examination import examine_host
from nemo_airflow.executors.inside import no_way_in, script_inside
from nemo_airflow.executors.intake import Intake
from nemo_airflow.executors.outputs import TRANSFERS, extract_stream
from nemo_airflow.job import Archive, FailureKind, JobHandle
from nemo_airflow.progress import Progress
from nemo_airflow.ssh.local import LocalShell
from nemo_airflow.ssh.shell import Answer, Shell
from nemo_airflow.terminal import Terminal

_log = logging.getLogger(__name__)

LOCAL = "this machine"
"""Stands in messages and handles for the connection's id where there is none."""

_BLOCK = 1 << 20
_BATCH = 200  # jobs that one script asks for
_UNKNOWN = 3  # sweeps that find nobody who knows a job, after which its folder goes
_NO_ROOM = ("no space left", "quota exceeded", "disk quota")


class HostDriver(Driver):
    """A driver on the job folders of one host.

    Args:
        conn_id: Id of an Airflow connection of type ``ssh``; None for the shell of this machine.
        root: Folder on the host; ``~`` is the user's home.
    """

    poll_interval = (1.0, 30.0)

    def __init__(self, conn_id: str | None, root: str) -> None:
        self.shell: Shell | LocalShell = LocalShell() if conn_id is None else Shell(conn_id)
        self._cluster = LOCAL if conn_id is None else conn_id
        self._root = root
        self._unknown: dict[str, int] = {}

    async def examine(self, executor: Executor) -> list[Finding]:
        """See :meth:`Driver.examine`."""
        given: Any = executor  # each of this driver has these fields
        return await examine_host(self.shell, self._root, given.python, given.setup_lines)

    async def enter(self, handle: JobHandle, command: Sequence[str], executor: Executor, terminal: Terminal) -> int:
        """See :meth:`Driver.enter`."""
        script = self._way_in(handle, script_inside(folders.enter_job(self._root, handle.key), command), terminal)
        if not script:
            raise no_way_in(executor.kind)
        return await self.shell.enter(script, terminal)

    def _way_in(self, handle: JobHandle, script: str, terminal: Terminal) -> str:
        """Returns the script that has another run where a job does; empty where there is no way there."""
        return script

    @abc.abstractmethod
    async def _launch(self, request: Request) -> JobHandle:
        """Starts a job whose folder is laid out, once."""

    async def submit(self, request: Request) -> JobHandle:
        """See :meth:`Driver.submit`. Each step done again changes nothing, so nobody has to look first."""
        try:
            await self._lay_out(request)
        except SubmitError:
            await self.shell.run(folders.discard(self._root, request.key))
            raise
        return await self._launch(request)

    async def read(self, cursors: Sequence[Cursor]) -> list[Chunk]:
        """See :meth:`Driver.read`."""
        if not cursors:
            return []
        answer = await self.shell.run(folders.read(self._root, cursors))
        return folders.parse_read(answer.out)

    async def collect(
        self, handle: JobHandle, into: Path, leave_out: LeaveOut | None = None, intake: Intake | None = None
    ) -> list[Path]:
        """See :meth:`Driver.collect`. On a disk that this machine sees as well, an intake takes them where they are."""
        here = await self._find_here(handle.key) if intake is not None else None
        if intake is not None and here is not None:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(TRANSFERS, here.hand_over_outputs, intake, leave_out)
        async with self.shell.receive(folders.send_outputs(self._root, handle.key)) as stream:
            files = await extract_stream(stream.pieces(), into, leave_out, intake)
            async for _ in stream.pieces():  # padding after the archive's end
                continue
        if not files and (await self.shell.run(folders.ask_job(self._root, handle.key))).code:
            raise OutputsLost(
                f"the outputs of job {handle.key} are gone: its folder under {self._root} on the host of "
                f"{self._cluster!r} was deleted"
            )
        return files

    async def _find_here(self, key: str) -> JobFolder | None:
        """Returns a job's folder where this machine sees it, and may read all that the job has left.

        That a path is the same tells nothing: what counts is a mark that the host has just written there.
        """
        name, text = f".seen-{secrets.token_hex(8)}", secrets.token_hex(16)
        try:
            answer = await self.shell.run(folders.put_mark(self._root, key, name, text))
            path = answer.text.rstrip("\n").rpartition("\n")[2]
            if answer.code or not path.startswith("/"):
                return None
            folder = JobFolder(Path(path))
            loop = asyncio.get_running_loop()
            sees_it = await loop.run_in_executor(TRANSFERS, folder.shows_outputs, name, text)
        finally:
            await self.shell.run(folders.remove_mark(self._root, key, name))
        return folder if sees_it else None

    async def labels(self, handles: Sequence[JobHandle]) -> dict[str, Mapping[str, str]]:
        """See :meth:`Driver.labels`."""
        answer = await self.shell.run(folders.read_jobs(self._root, [handle.key for handle in handles]))
        jobs = {key: parse_end(job) or {} for key, _, job in parse_marks(answer.text)}
        return {key: job.get("labels") or {} for key, job in jobs.items()}

    async def old_folders(self, older_than: float) -> list[JobHandle]:
        """See :meth:`Driver.old_folders`."""
        answer = await self.shell.run(folders.list_old(self._root, max(0, math.ceil(older_than / 60))))
        old: list[JobHandle] = []
        keys = folders.parse_old(answer.text)
        for start in range(0, len(keys), _BATCH):
            handles = await self.find(keys[start : start + _BATCH])
            seen = await self.look(list(handles.values()))
            old += [handles[key] for key, each in seen.items() if each.has_ended]
        return old

    async def disk_used(self) -> int | None:
        """See :meth:`Driver.disk_used`."""
        return folders.parse_used((await self.shell.run(folders.measure(self._root))).text)

    async def sweep(self) -> None:
        """See :meth:`Driver.sweep`; what jobs share is removed too when it was not used for a week."""
        expired = folders.parse_expired((await self.shell.run(folders.list_expired(self._root))).text)
        unknown: dict[str, int] = {}
        for start in range(0, len(expired), _BATCH):
            keys = expired[start : start + _BATCH]
            handles = await self.find(keys)
            seen = await self.look(list(handles.values()))
            # That nobody knows a job just now is little evidence: it has to stay so over several sweeps.
            for key in keys:
                if key not in seen or not (seen[key].is_alive or seen[key].has_ended or seen[key].trouble):
                    unknown[key] = self._unknown.get(key, 0) + 1
            gone = [key for key in keys if (key in seen and seen[key].has_ended) or unknown.get(key, 0) >= _UNKNOWN]
            if gone:
                await self.shell.run(folders.remove(self._root, gone))
        self._unknown = unknown
        await self.shell.run(folders.sweep_shared(self._root))

    async def remove(self, handles: Sequence[JobHandle]) -> None:
        """See :meth:`Driver.remove`."""
        found = await self.look(handles)
        # A queue may say for some seconds that a job runs whose runner has ended.
        marks = await self._ends([key for key, seen in found.items() if seen.is_alive])
        for key, seen in found.items():
            has_ended = key in marks and not marks[key].get("told_to_end")
            if (seen.is_alive and not has_ended) or seen.trouble:
                why = seen.trouble or "cancel it before it is removed"
                raise ExecutorError(f"job {key} is still running, or may be: {why}")
        await self.shell.run(folders.remove(self._root, [handle.key for handle in handles]))

    async def reads_zstd(self, executor: Executor) -> bool:
        """See :meth:`Driver.reads_zstd`: what earlier jobs of the same interpreter and set-up have found."""
        if not executor.zstd_mark:
            return executor.reads_zstd
        return (await self.shell.run(folders.ask_mark(self._root, executor.zstd_mark))).code == 0

    async def close(self) -> None:
        """See :meth:`Driver.close`."""
        await self.shell.close()

    async def _lay_out(self, request: Request) -> None:
        archives = [*request.archives, *request.fetched]
        script = folders.lay_out(self._root, request.key, request.files, archives)
        answer = self._written(await self.shell.run(script))
        if folders.NO_RUNNER in answer.text:
            self._written(await self.shell.send(folders.take_runner(self._root), _blocks(_runner_archive())))
        for archive in request.archives:
            if f"{folders.NO_PACKAGE} {archive.name}\n" in answer.text:
                await self._send_archive(archive)
        if answer.text.strip():
            answer = self._written(await self.shell.run(script))
            if answer.text.strip():
                raise BackendUnavailable(
                    f"files sent to {self._root} on the host of {self._cluster!r} are not there: {answer.text.strip()}"
                )
        if request.values:
            data = json.dumps(request.values).encode()
            # By standard input: neither in a script nor on a command line, which others on the host can read.
            command = folders.take_secrets(self._root, request.key, len(data))
            self._written(await self.shell.send(command, _blocks(io.BytesIO(data))))

    async def _send_archive(self, archive: Archive) -> None:
        path = await asyncio.to_thread(bundle.archive_path, archive)
        command = folders.take_archive(self._root, archive, path.stat().st_size)
        progress = Progress(f"{archive.name} sent to the host of {self._cluster!r}", _log.info, archive.size)
        with path.open("rb") as file:
            self._written(await self.shell.send(command, _blocks(file, progress)))

    def _written(self, answer: Answer) -> Answer:
        if answer.code:
            no_room = [
                line.strip() for line in answer.err.splitlines() if any(words in line.lower() for words in _NO_ROOM)
            ]
            raise SubmitError(
                f"cannot write the job's files under {self._root} on the host of {self._cluster!r}: "
                f"{no_room[0] if no_room else answer.reason}",
                FailureKind.QUOTA if no_room else FailureKind.USER_ERROR,
            )
        return answer

    async def _ends(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Returns the end marks of those jobs whose runner has left one."""
        if not keys:
            return {}
        answer = await self.shell.run(folders.ends(self._root, keys))
        marks = {key: parse_end(end) for key, _, end in parse_marks(answer.text)}
        return {key: mark for key, mark in marks.items() if mark is not None}


def parse_marks(text: str) -> list[tuple[str, str, str]]:
    """Splits lines of a key and what belongs to it."""
    return [line.partition(" ") for line in text.splitlines() if line.strip()]


def _runner_archive() -> io.BytesIO:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in sorted(shipping.runner_files().items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))
    file.seek(0)
    return file


async def _blocks(file: io.BufferedIOBase, progress: Progress | None = None) -> AsyncIterator[bytes]:
    while block := await asyncio.to_thread(file.read, _BLOCK):
        yield block
        if progress is not None:
            progress.add(len(block))
