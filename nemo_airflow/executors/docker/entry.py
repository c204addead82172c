"""Runs a command in a job's container with this process's terminal; see "Exec" in the Docker Engine API."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nemo_airflow.terminal import Terminal

if TYPE_CHECKING:
    from docker import APIClient

_PIECE = 1 << 16
_HEADER = 8
_ERROR_STREAM = 2


async def enter_container(client: APIClient, container: str, command: Sequence[str], terminal: Terminal) -> int:
    """Runs a command in a container; returns its exit code."""
    has_terminal = terminal.is_terminal
    made = await asyncio.to_thread(
        client.exec_create, container, list(command), stdin=True, tty=has_terminal, environment={"TERM": terminal.kind}
    )
    opened = await asyncio.to_thread(client.exec_start, made["Id"], tty=has_terminal, socket=True)
    link = getattr(opened, "_sock", opened)
    link.settimeout(None)
    # What came together with the answer's head is in this reader's buffer, and not in the socket any more.
    reader = opened._response.raw._fp.fp

    async def send(data: bytes) -> None:
        if data:
            await asyncio.to_thread(link.sendall, data)
        else:
            with contextlib.suppress(OSError):  # it has ended
                link.shutdown(socket.SHUT_WR)

    async def resize(columns: int, lines: int) -> None:
        await asyncio.to_thread(client.exec_resize, made["Id"], height=lines, width=columns)

    async def pass_output() -> None:
        while data := await asyncio.to_thread(reader.read1, _PIECE):
            terminal.write(data)

    async def pass_framed_output() -> None:
        while len(head := await asyncio.to_thread(reader.read, _HEADER)) == _HEADER:
            data = await asyncio.to_thread(reader.read, int.from_bytes(head[4:], "big"))
            terminal.write(data, error=head[0] == _ERROR_STREAM)

    try:
        await terminal.connect(send, pass_output() if has_terminal else pass_framed_output(), resize)
    finally:
        with contextlib.suppress(OSError):
            link.shutdown(socket.SHUT_RDWR)  # a thread may still wait for it
        opened.close()
    ended: dict[str, Any] = await asyncio.to_thread(client.exec_inspect, made["Id"])
    return int(ended["ExitCode"])
