"""Lends this process's terminal, or its pipes where it has none, to a command that runs elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import termios
import threading
import tty
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

_PIECE = 1 << 14
_IN, _OUT, _ERR = 0, 1, 2


class Terminal:
    """This process's input and output.

    Attributes:
        is_terminal: Whether a person's terminal is on both of them.
        kind: What the terminal is, for ``TERM``.
    """

    def __init__(self) -> None:
        self.is_terminal = os.isatty(_IN) and os.isatty(_OUT)
        self.kind = os.environ.get("TERM", "dumb")

    @property
    def size(self) -> tuple[int, int]:
        """Its columns and lines."""
        size = os.get_terminal_size(_OUT)  # not what COLUMNS says: that may be of another terminal
        return size.columns, size.lines

    def write(self, data: bytes, *, error: bool = False) -> None:
        """Writes what the command has written; to the error output if it was an error."""
        while data:
            data = data[os.write(_ERR if error else _OUT, data) :]

    def call(self, command: Sequence[str], cwd: str | Path, env: Mapping[str, str] | None = None) -> int:
        """Runs a command of this machine with the terminal; returns its exit code. Ctrl-C is the command's."""
        with _leaving_interrupts():
            code = subprocess.call(command, cwd=cwd, env=env)
        return code if code >= 0 else 128 - code

    async def connect(
        self,
        send: Callable[[bytes], Awaitable[None]],
        output: Awaitable[Any],
        resize: Callable[[int, int], Awaitable[None]],
    ) -> None:
        """Passes input on to a command until its output has ended.

        Args:
            send: Takes input; nothing for its end.
            output: Writes the command's output to this terminal until it ends.
            resize: Takes the columns and lines of the terminal, at first and whenever they change.
        """
        with self._raw():
            others = [asyncio.create_task(self._feed(send))]
            if self.is_terminal:
                others.append(asyncio.create_task(self._follow_size(resize)))
            try:
                await output
            finally:
                for task in others:
                    task.cancel()
                # What went wrong with input ends with the command: its exit code tells.
                await asyncio.gather(*others, return_exceptions=True)

    async def _feed(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        async for data in _input():
            await send(data)
        await send(b"")

    async def _follow_size(self, resize: Callable[[int, int], Awaitable[None]]) -> None:
        changed = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGWINCH, changed.set)
        try:
            while True:
                await resize(*self.size)
                await changed.wait()
                changed.clear()
        finally:
            loop.remove_signal_handler(signal.SIGWINCH)

    @contextlib.contextmanager
    def _raw(self) -> Iterator[None]:
        """Hands each key to the command as it is pressed; Ctrl-C too."""
        if not self.is_terminal:
            yield
            return
        before = termios.tcgetattr(_IN)
        try:
            tty.setraw(_IN)
            yield
        finally:
            termios.tcsetattr(_IN, termios.TCSADRAIN, before)


async def _input() -> AsyncIterator[bytes]:
    """Yields what comes in; read by a thread, since a file cannot be waited for."""
    found: asyncio.Queue[bytes] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        with contextlib.suppress(RuntimeError):  # the command has ended, and its loop is closed
            while True:
                try:
                    data = os.read(_IN, _PIECE)
                except OSError:  # no input at all
                    data = b""
                loop.call_soon_threadsafe(found.put_nowait, data)
                if not data:
                    return

    threading.Thread(target=read, name="nemo-terminal", daemon=True).start()
    while data := await found.get():
        yield data


@contextlib.contextmanager
def _leaving_interrupts() -> Iterator[None]:
    def leave(number: int, frame: FrameType | None) -> None:
        return

    before = signal.signal(signal.SIGINT, leave)  # unlike an ignored signal, the command does not inherit it
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
