"""One kept SSH connection with one kept shell: a command costs a round trip, not a login.

sshd allows ten channels a connection, drops bursts of connections, and runs the user's start-up
files for each command. So commands go, one after the other, to one shell that stays; only the
transfer of whole files opens a channel of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets
import shlex
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from nemo_airflow.exceptions import BackendUnavailable
from nemo_airflow.ssh import connection
from nemo_airflow.terminal import Terminal

if TYPE_CHECKING:
    import asyncssh

    from nemo_airflow.ssh.system import SystemProcess, SystemSSH

SILENCE = 120.0
"""Seconds for which a command may be silent before the connection counts as dead."""

_TRANSFERS = 4
_BLOCK = 1 << 18
PIECE = 1 << 18


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a command gave.

    Attributes:
        code: Its exit code.
        out: Its standard output.
        err: Its standard error, as text.
    """

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """The output as text."""
        return self.out.decode(errors="replace")

    @property
    def reason(self) -> str:
        """The last line that it complained with, for an error message."""
        lines = [line.strip() for line in (self.err or self.text).splitlines() if line.strip()]
        return lines[-1] if lines else f"exit code {self.code}"


class Shell:
    """Runs commands on one host. One per event loop; connects when first used, and anew when it was cut off.

    Args:
        conn_id: Id of an Airflow connection of type ``ssh``.

    Attributes:
        commands: How many commands were run; for tests and benchmarks.
        connections: How many times it has connected.
    """

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id
        self._lock = asyncio.Lock()
        self._connecting = asyncio.Lock()
        self._transfers = asyncio.Semaphore(_TRANSFERS)
        self._connection: asyncssh.SSHClientConnection | SystemSSH | None = None
        self._process: asyncssh.SSHClientProcess[bytes] | SystemProcess | None = None
        self.commands = 0
        self.connections = 0

    async def run(self, script: str, silence: float = SILENCE) -> Answer:
        """Runs a POSIX shell script and returns what it gave.

        Each runs in a subshell in the home directory, with nothing on its standard input.

        Args:
            script: The script; every value in it quoted.
            silence: Seconds without a byte after which the host counts as away; an answer may take longer than that.

        Raises:
            BackendUnavailable: The host cannot be reached, or was cut off: the script may have run or not.
        """
        async with self._lock:
            with _transport_errors(self._conn_id):
                try:
                    async with asyncio.timeout(silence) as limit:
                        return await self._run(script, _Heard(limit, silence))
                except BaseException:
                    # Whatever stands in the channel now belongs to nobody.
                    self._drop_process()
                    raise

    async def send(self, command: str, data: AsyncIterator[bytes]) -> Answer:
        """Runs a command on a channel of its own, and gives it data on its standard input.

        Raises:
            BackendUnavailable: The host cannot be reached, or was cut off.
        """
        async with self._transfers:
            with _transport_errors(self._conn_id):
                process = await (await self._connected()).create_process(command, encoding=None)
                try:
                    async with asyncio.timeout(SILENCE) as limit:
                        await _feed(process, data, _Heard(limit, SILENCE))
                        done = await process.wait()
                finally:
                    process.close()
                return Answer(
                    done.returncode if done.returncode is not None else 255, _bytes(done.stdout), _text(done.stderr)
                )

    @contextlib.asynccontextmanager
    async def receive(self, command: str) -> AsyncIterator[Pipe]:
        """Runs a command on a channel of its own, and gives its standard output to read.

        What the login's start-up files print before that is left out.

        Raises:
            BackendUnavailable: The host cannot be reached, was cut off, or the command failed.
        """
        begin = secrets.token_hex(8)
        marked = f"exec sh -c {shlex.quote(f'echo {begin}; {command}')}"
        async with self._transfers:
            with _transport_errors(self._conn_id):
                process = await (await self._connected()).create_process(marked, encoding=None)
                try:
                    output = Pipe(process.stdout)
                    async with asyncio.timeout(SILENCE):
                        await output.until(f"{begin}\n".encode())
                    yield output
                    done = await process.wait()
                finally:
                    process.close()
            if done.returncode:
                answer = Answer(done.returncode, b"", _text(done.stderr))
                raise BackendUnavailable(f"a transfer over connection {self._conn_id!r} broke off: {answer.reason}")

    async def enter(self, script: str, terminal: Terminal) -> int:
        """Runs a script with this process's terminal on a channel of its own; returns its exit code.

        Raises:
            BackendUnavailable: The host cannot be reached, or was cut off.
        """
        wanted: dict[str, Any] = (
            {"term_type": terminal.kind, "term_size": terminal.size} if terminal.is_terminal else {}
        )
        with _transport_errors(self._conn_id):
            link = await self._connected()
            process = await link.create_process(f"exec sh -c {shlex.quote(script)}", encoding=None, **wanted)
            try:
                return await _lend(process, terminal)
            finally:
                process.close()

    async def close(self) -> None:
        """Closes the connection."""
        self._drop_process()
        connection_, self._connection = self._connection, None
        if connection_ is not None:
            connection_.close()
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(connection_.wait_closed(), 5)

    async def _run(self, script: str, heard: _Heard) -> Answer:
        process = await self._shell()
        self.commands += 1
        end = secrets.token_hex(8)
        # A here-document, so that a syntax error in the script does not take the shell along; braces, so
        # that the script is read whole before a command in it could read from where it stands.
        text = f"sh <<'{end}_'\n{{\n{script}\n}} </dev/null\n{end}_\n"
        text += f"printf '\\n{end} %d\\n' $?; printf '\\n{end}\\n' >&2\n"
        process.stdin.write(text.encode())
        mark = f"\n{end}".encode()
        # Both at once: what is not read of one stream in time holds up the other.
        out, err = await asyncio.gather(self._out.until(mark + b" ", heard), self._err.until(mark + b"\n", heard))
        code = await self._out.until(b"\n")
        return Answer(int(code), out, err.decode(errors="replace"))

    async def _shell(self) -> asyncssh.SSHClientProcess[bytes] | SystemProcess:
        if self._process is None or self._process.is_closing() or self._process.exit_status is not None:
            link = await self._connected()
            # Login start-up files may be slow: this pays for them once. What they print belongs to no command.
            process = await link.create_process("exec sh", encoding=None)
            self._process, begin = process, secrets.token_hex(8)
            self._out, self._err = Pipe(process.stdout), Pipe(process.stderr)
            process.stdin.write(f"cd; echo {begin}; echo {begin} >&2\n".encode())
            await asyncio.gather(self._out.until(f"{begin}\n".encode()), self._err.until(f"{begin}\n".encode()))
        return self._process

    async def _connected(self) -> asyncssh.SSHClientConnection | SystemSSH:
        async with self._connecting:
            if self._connection is None or self._connection.is_closed():
                self._process = None
                self._connection = await connection.connect(self._conn_id)
                self.connections += 1
            return self._connection

    def _drop_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.close()


class _Heard:
    """Puts a time limit off with each sign of life: it bounds a silence, however long the whole takes."""

    def __init__(self, limit: asyncio.Timeout, silence: float) -> None:
        self._limit = limit
        self._silence = silence

    def __call__(self) -> None:
        self._limit.reschedule(asyncio.get_running_loop().time() + self._silence)


class Pipe:
    """An output of a command, read up to marks; asyncssh's own ``readuntil`` ends at its window's size."""

    def __init__(self, reader: asyncssh.SSHReader[bytes] | asyncio.StreamReader) -> None:
        self._reader = reader
        self._data = bytearray()

    async def read(self, size: int) -> bytes:
        """Reads what comes next, at most so many bytes; nothing at the end.

        Raises:
            TimeoutError: Nothing has come for two minutes.
        """
        if not self._data:
            async with asyncio.timeout(SILENCE):
                return await self._reader.read(size)
        found = bytes(self._data[:size])
        del self._data[:size]
        return found

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yields what comes next, in pieces of 256 KiB at most, up to the end."""
        while piece := await self.read(PIECE):
            yield piece

    async def until(self, mark: bytes, heard: Callable[[], None] = lambda: None) -> bytes:
        """Reads up to a mark and past it; returns what stands before it.

        Args:
            mark: The mark.
            heard: Called whenever something has come.
        """
        start = 0
        while (end := self._data.find(mark, start)) < 0:
            start = max(0, len(self._data) - len(mark))
            block = await self._reader.read(_BLOCK)
            if not block:
                raise EOFError("the shell has ended")
            heard()
            self._data += block
        found = bytes(self._data[:end])
        del self._data[: end + len(mark)]
        return found


async def _feed(
    process: asyncssh.SSHClientProcess[bytes] | SystemProcess, data: AsyncIterator[bytes], heard: Callable[[], None]
) -> None:
    try:
        async for block in data:
            process.stdin.write(block)
            await process.stdin.drain()
            heard()
        process.stdin.write_eof()
    except (BrokenPipeError, ConnectionError):
        return  # the command has ended early: its exit code and complaint tell why


async def _lend(process: asyncssh.SSHClientProcess[bytes] | SystemProcess, terminal: Terminal) -> int:
    async def send(data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionError):  # it has ended
            if data:
                process.stdin.write(data)
                await process.stdin.drain()
            else:
                process.stdin.write_eof()

    async def resize(columns: int, lines: int) -> None:
        process.change_terminal_size(columns, lines)

    async def pass_on(stream: Any, *, error: bool) -> None:
        while data := await stream.read(PIECE):
            terminal.write(data, error=error)

    output = asyncio.gather(pass_on(process.stdout, error=False), pass_on(process.stderr, error=True))
    await terminal.connect(send, output, resize)
    code = (await process.wait()).returncode
    return 255 if code is None else code if code >= 0 else 128 - code


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value or "").encode()


def _text(value: Any) -> str:
    return _bytes(value).decode(errors="replace")


@contextlib.contextmanager
def _transport_errors(conn_id: str) -> Iterator[None]:
    import asyncssh

    try:
        yield
    except TimeoutError as error:
        raise BackendUnavailable(f"the host of connection {conn_id!r} does not answer") from error
    except (asyncssh.Error, OSError, EOFError, asyncio.IncompleteReadError) as error:
        reason = str(error) or type(error).__name__
        raise BackendUnavailable(f"the connection to the host of {conn_id!r} was cut off: {reason}") from error


__all__ = ["Answer", "Pipe", "Shell"]
