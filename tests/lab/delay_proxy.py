"""A TCP proxy that makes a link long, stalls it or cuts it, and counts what comes by.

It stands before one server and leaves the machine's network alone, so that other tests notice nothing.
By hand: ``python delay_proxy.py 127.0.0.1:2222 --delay 0.02`` prints its port.
"""

import argparse
import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

T = TypeVar("T")

_CHUNK = 1 << 16
_CHUNKS_UNDER_WAY = 256  # that much a direction is on the line; then the sender waits, as with a real one


class DelayProxy:
    """Listens on a free port of 127.0.0.1 and passes on to ``target``, in a thread of its own.

    Args:
        target: ``host:port``, or the path of a Unix socket (with or without ``unix://``).
        delay: seconds that each byte is under way, in each direction.
    """

    def __init__(self, target: str, delay: float = 0.0) -> None:
        self.target = target.removeprefix("unix://").removeprefix("tcp://")
        self.delay = delay
        self.total = 0  # connections accepted so far
        self.peak = 0  # most at one time
        self._open: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._accepting = True
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"delay proxy to {target}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.port: int = self._call(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def open(self) -> int:
        """How many connections there are now."""
        return len(self._open)

    def stall(self) -> None:
        """Lets nothing through any more, without a word to either side: a firewall that forgot, a pulled cable."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def resume(self) -> None:
        """Lets through what was held back, and all that follows."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def cut(self) -> int:
        """Resets all connections and returns how many; new ones are welcome."""
        return self._call(self._cut())

    def refuse(self) -> int:
        """Resets all connections and every new one, until ``accept``."""
        self._accepting = False
        return self.cut()

    def accept(self) -> None:
        """Takes new connections again."""
        self._accepting = True

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=300)

    async def _listen(self) -> int:
        self._flowing.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_CHUNK)
        return int(self._server.sockets[0].getsockname()[1])

    async def _close(self) -> None:
        self._server.close()
        await self._cut()
        # Also what a connection has left behind that is only just made or cut: nothing of a loop outlives it.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _cut(self) -> int:
        cut = list(self._open)
        for task in cut:
            task.cancel()
        await asyncio.gather(*cut, return_exceptions=True)
        return len(cut)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._accepting:
            _reset(writer)
            return
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        self.total += 1
        self.peak = max(self.peak, len(self._open))
        ends = [writer]
        carrying: list[asyncio.Task[None]] = []
        try:
            far_reader, far_writer = await self._reach()
            ends.append(far_writer)
            ways = self._carry(reader, far_writer), self._carry(far_reader, writer)
            carrying = [asyncio.create_task(way) for way in ways]
            await asyncio.gather(*carrying)
        except (OSError, asyncio.CancelledError):
            for end in ends:
                _reset(end)
        finally:
            self._open.discard(task)
            for one_way in carrying:
                one_way.cancel()
            for end in ends:
                end.close()

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.target.startswith("/"):
            return await asyncio.open_unix_connection(self.target, limit=_CHUNK)
        host, _, port = self.target.rpartition(":")
        return await asyncio.open_connection(host, int(port), limit=_CHUNK)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction of a connection. What comes close together stays so: the line is long, not narrow."""
        line: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue(_CHUNKS_UNDER_WAY)

        async def leave() -> None:
            data: bytes | None = b"first"
            while data:
                try:
                    data = await reader.read(_CHUNK)
                except OSError:
                    data = None  # a reset travels as far as the rest
                await line.put((time.monotonic() + self.delay, data))

        leaving = asyncio.create_task(leave())
        try:
            while True:
                at, data = await line.get()
                await asyncio.sleep(max(0.0, at - time.monotonic()))
                await self._flowing.wait()
                if data is None:
                    raise ConnectionResetError(f"reset by the other side of the proxy to {self.target}")
                if not data:
                    break
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        finally:
            leaving.cancel()


def _reset(writer: asyncio.StreamWriter) -> None:
    # With no time to linger, closing sends a reset: the other side learns at once that the connection is gone.
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    writer.transport.abort()


def _main() -> None:
    parser = argparse.ArgumentParser(description="Pass on to HOST:PORT with a delay, until Ctrl-C.")
    parser.add_argument("target")
    parser.add_argument("--delay", type=float, default=0.02, help="seconds each way (0.02)")
    asked = parser.parse_args()
    with DelayProxy(asked.target, asked.delay) as proxy, contextlib.suppress(KeyboardInterrupt):
        print(proxy.port, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    _main()
