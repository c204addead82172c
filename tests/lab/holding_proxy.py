"""An HTTP proxy before one server that leaves chosen requests without an answer, as a node behind it would."""

import asyncio
import threading
from typing import Any, Self

import aiohttp
from aiohttp import web


class HoldingProxy:
    """Listens on a free port of 127.0.0.1 and passes requests on to ``target``, in a thread of its own.

    Args:
        target: The server's URL; its certificate is not checked.
    """

    def __init__(self, target: str) -> None:
        self.target = target.rstrip("/")
        self.url = ""
        self.waiting = 0
        """How many requests are held now."""
        self._held: tuple[str, ...] = ()
        self._released = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"holding proxy to {target}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._begin(), self._loop).result(30)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def hold(self, *parts: str) -> None:
        """Leaves requests without an answer whose path has one of these parts in it; without any, lets all go on."""
        self._held = parts
        if not parts:
            self._loop.call_soon_threadsafe(self._released.set)

    async def _begin(self) -> None:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False, limit=0), auto_decompress=False)
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _end(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        if any(part in request.path for part in self._held):
            self.waiting += 1
            try:
                await self._released.wait()
            finally:
                self.waiting -= 1
        headers: dict[str, Any] = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        url, body = self.target + request.path_qs, await request.read()
        async with self._session.request(request.method, url, headers=headers, data=body) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() == "content-type"}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response
