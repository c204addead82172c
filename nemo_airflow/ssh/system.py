"""The machine's own ``ssh`` in place of asyncssh: with its configuration, and the master connections that it keeps.

Sites that ask for a second factor admit nothing else: a person logs in once, and all commands go through that
connection (``ControlMaster`` in ``~/.ssh/config``) until the site ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import getpass
import os
import shlex
import signal
from typing import Any

from nemo_airflow.connections import ConnectionInfo
from nemo_airflow.exceptions import AccessRefused, BackendUnavailable, SettingsError

FIELD = "system_ssh"
"""Extra field of a connection that asks for it."""

_OF_ASYNCSSH = (
    "key_file", "private_key", "private_key_passphrase", "host_key", "no_host_key_check", "look_for_keys", "ciphers",
    "compress", "host_proxy_cmd", "known_hosts", "jump_conn_id",
)  # fmt: skip

_FAILED = 255
"""Exit code of ``ssh`` where it could not connect."""

_CONNECT_TIMEOUT = 30
_LIMIT = 1 << 20


def is_asked_for(info: ConnectionInfo) -> bool:
    """Returns whether a connection asks for the machine's own ``ssh``."""
    return str(info.extra.get(FIELD, "")).lower() == "true"


async def connect(info: ConnectionInfo) -> SystemSSH:
    """Returns what runs commands on the host of a connection, once one has been run.

    Raises:
        SettingsError: The connection has fields that ``ssh`` takes from its configuration, or there is no ``ssh``.
        AccessRefused: The host refused the login, or its key is not the known one.
        BackendUnavailable: The host cannot be reached.
    """
    given = [name for name in _OF_ASYNCSSH if info.extra.get(name)] + (["password"] if info.password else [])
    if given:
        raise SettingsError(
            f"connection {info.conn_id!r} has {FIELD} and {', '.join(given)}: say that in ~/.ssh/config, or in the "
            "file that its extra field config_file names"
        )
    ssh = SystemSSH(info)
    process = await ssh.create_process("true")
    done = await process.wait()
    if done.returncode == _FAILED:
        raise _refusal(info, done.stderr.decode(errors="replace"))
    return ssh


class SystemSSH:
    """Runs commands on one host; to :class:`~nemo_airflow.ssh.shell.Shell` it is as a connection of asyncssh."""

    def __init__(self, info: ConnectionInfo) -> None:
        self._where = info.conn_id
        options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_TIMEOUT}", "-T"]
        if file := info.extra.get("config_file"):
            options += ["-F", os.path.expanduser(str(file))]
        if info.port:
            options += ["-p", str(info.port)]
        if info.login:
            options += ["-l", info.login]
        self._command = ["ssh", *options, "--", str(info.host)]
        self._closed = False

    async def create_process(
        self,
        command: str,
        encoding: None = None,
        *,
        term_type: str = "",
        term_size: tuple[int, int] = (80, 24),
    ) -> SystemProcess:
        """Begins to run a command; with a type of terminal in one of its own, of this many columns and lines."""
        pipe = asyncio.subprocess.PIPE
        options = []
        if term_type:
            options = ["-tt"]  # the last word on it, although the input is a pipe
            columns, lines = term_size
            command = f"stty columns {columns} rows {lines}; TERM={shlex.quote(term_type)} {command}"
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command[:-2],
                *options,
                *self._command[-2:],
                command,
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                limit=_LIMIT,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise SettingsError(
                f"connection {self._where!r} asks for this machine's ssh, and there is none: install openssh-client"
            ) from error
        return SystemProcess(process)

    def is_closed(self) -> bool:
        """Whether it was closed here. The connection itself is the business of ``ssh``."""
        return self._closed

    def close(self) -> None:
        """Ends nothing: a person has opened the master connection, and others use it."""
        self._closed = True

    async def wait_closed(self) -> None:
        """Returns at once."""


class SystemProcess:
    """A command on the host; what of a process of asyncssh is used."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.stdin: Any = process.stdin
        self.stdout: Any = process.stdout
        self.stderr: Any = process.stderr

    @property
    def exit_status(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.returncode

    def change_terminal_size(self, columns: int, lines: int) -> None:
        """Does nothing: a terminal of ``ssh`` keeps the size with which it began."""

    def is_closing(self) -> bool:
        """Whether it has ended."""
        return self._process.returncode is not None

    async def wait(self) -> Done:
        """Waits for the end, and returns what was not read before."""
        with contextlib.suppress(BrokenPipeError, ConnectionError):
            self.stdin.close()
        out, err = await asyncio.gather(self.stdout.read(), self.stderr.read())
        return Done(await self._process.wait(), out, err)

    def close(self) -> None:
        """Ends the ``ssh`` of this command, and so what still runs there for it."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)


@dataclasses.dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: bytes
    stderr: bytes


def _refusal(info: ConnectionInfo, complaint: str) -> AccessRefused | BackendUnavailable:
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    reason = lines[-1] if lines else "no reason given"
    where = f"{info.host} (connection {info.conn_id!r})"
    file = info.extra.get("config_file")
    by_hand = f"ssh -F {file} {info.host}" if file else f"ssh {info.host}"
    if "Host key verification failed" in complaint:
        return AccessRefused(f"the host key of {where} is not the known one: run `{by_hand}` and compare it")
    if "Permission denied" in complaint or "Too many authentication failures" in complaint:
        return AccessRefused(
            f"{where} refused a login without a person: run `{by_hand}` once as {getpass.getuser()}, with "
            "ControlMaster, ControlPath and ControlPersist in its configuration; that connection is then used "
            f"({reason})"
        )
    return BackendUnavailable(f"cannot connect to {where}: {reason}")
