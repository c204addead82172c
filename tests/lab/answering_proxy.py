"""An HTTP proxy before one server that answers some requests itself, as a gate or an ingress does."""

from collections.abc import Callable

from aiohttp import web
from lab.holding_proxy import HoldingProxy


def pass_all(request: web.Request) -> web.Response | None:
    """Leaves each request to the server."""
    return None


class AnsweringProxy(HoldingProxy):
    """Listens on a free port of 127.0.0.1; see :class:`HoldingProxy`.

    Attributes:
        answer: Returns the proxy's own answer to a request, or None to pass it on.
        answered: How many requests the proxy has answered itself.
    """

    answer: Callable[[web.Request], web.Response | None] = staticmethod(pass_all)
    answered = 0

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        answer = self.answer
        if (own := answer(request)) is None:
            return await super()._pass_on(request)
        await request.read()
        self.answered += 1
        return own
