"""The shell of this machine, for a host on which we are ourselves: as :class:`~nemo_airflow.ssh.shell.Shell` is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from nemo_airflow.exceptions import BackendUnavailable
from nemo_airflow.ssh.shell import PIECE, SILENCE, Answer
from nemo_airflow.terminal import Terminal


class LocalShell:
    """Runs commands on this machine; nothing of it stays open."""

    async def run(self, script: str, silence: float = SILENCE) -> Answer:
        """Runs a POSIX shell script in the home directory and returns what it gave.

        Args:
            script: The script; every value in it quoted.
            silence: Seconds within which it has to answer.

        Raises:
            BackendUnavailable: It has not.
        """
        # Not on the command line, which everybody on this machine can read: a script may hold a job's environment.
        # In braces, so that it is read whole before a command in it could read from where it stands.
        process = await self._start("sh", stdin=asyncio.subprocess.PIPE)
        try:
            async with asyncio.timeout(silence):
                out, err = await process.communicate(f"{{\n{script}\n}} </dev/null\n".encode())
        except TimeoutError as error:
            raise BackendUnavailable(f"the shell of this machine has not answered for {silence:g} s") from error
        finally:
            await _end(process)
        return Answer(_code(process), out, err.decode(errors="replace"))

    async def send(self, command: str, data: AsyncIterator[bytes]) -> Answer:
        """Runs a command and gives it data on its standard input."""
        process = await self._start("sh", "-c", command, stdin=asyncio.subprocess.PIPE)
        try:
            if process.stdin is not None:
                with contextlib.suppress(BrokenPipeError, ConnectionError):  # its exit code and complaint tell why
                    async for block in data:
                        process.stdin.write(block)
                        await process.stdin.drain()
                process.stdin.close()
            out, err = await process.communicate()
        finally:
            await _end(process)
        return Answer(_code(process), out, err.decode(errors="replace"))

    @contextlib.asynccontextmanager
    async def receive(self, command: str) -> AsyncIterator[LocalPipe]:
        """Runs a command, and gives its standard output to read.

        Raises:
            BackendUnavailable: The command failed.
        """
        process = await self._start("sh", "-c", command)
        complaint = asyncio.create_task(_read_all(process.stderr))
        try:
            yield LocalPipe(process.stdout)
            err = await complaint
            await process.wait()
        finally:
            complaint.cancel()
            await _end(process)
        if process.returncode:
            reason = Answer(_code(process), b"", err.decode(errors="replace")).reason
            raise BackendUnavailable(f"a transfer on this machine broke off: {reason}")

    async def enter(self, script: str, terminal: Terminal) -> int:
        """Runs a script with this process's terminal; returns its exit code."""
        return terminal.call(["sh", "-c", script], Path.home())

    async def close(self) -> None:
        """Does nothing."""

    @staticmethod
    async def _start(*command: str, stdin: int = asyncio.subprocess.DEVNULL) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *command, stdin=stdin, stdout=pipe, stderr=pipe, cwd=Path.home(), start_new_session=True
        )


class LocalPipe:
    """The output of a command."""

    def __init__(self, reader: asyncio.StreamReader | None) -> None:
        self._reader = reader

    async def read(self, size: int) -> bytes:
        """Reads what comes next, at most so many bytes; nothing at the end."""
        return await self._reader.read(size) if self._reader is not None else b""

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yields what comes next, in small pieces, up to the end."""
        while piece := await self.read(PIECE):
            yield piece


async def _read_all(reader: asyncio.StreamReader | None) -> bytes:
    return await reader.read() if reader is not None else b""


def _code(process: asyncio.subprocess.Process) -> int:
    return process.returncode if process.returncode is not None else 255


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends a command that still runs, with all that it has started in its session."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.stdout is not None:
            await (
                process.stdout.read()
            )  # Python waits for the end of a pipe as well, and it has stopped reading a full one
        await process.wait()
