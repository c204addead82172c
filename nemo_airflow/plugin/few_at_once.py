"""Leaves most of the API server to Airflow: a slow MLflow must not take its threads and connections from it.

Airflow's API server has 40 threads for all requests, tasks' included, and by default 15 connections to its database. A
request of ours has one of each while it waits for MLflow.
"""

from __future__ import annotations

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ANSWERS = 6
"""Requests that are answered at once; others wait without a thread."""

TRANSFERS = 4
"""Files that are sent at once: a piece of one may wait for MLflow, too."""


class FewAtOnce:
    """ASGI middleware that answers a few requests at once, in their order.

    Args:
        app: What answers them.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._answers = anyio.Semaphore(ANSWERS)
        self._transfers = anyio.Semaphore(TRANSFERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http" or "/api/" not in scope["path"]:
            await self._app(scope, receive, send)
            return
        held: anyio.Semaphore | None = self._answers
        await self._answers.acquire()

        async def pass_on(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.body" and message.get("more_body") and held is self._answers:
                held = None
                self._answers.release()
                await self._transfers.acquire()
                held = self._transfers
            await send(message)

        try:
            await self._app(scope, receive, pass_on)
        finally:
            if held is not None:
                held.release()
