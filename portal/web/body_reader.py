"""Reading a request's body in the event loop, before a thread is taken for the request.

A client may send it as slowly as the limits here allow without being in anybody's way.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

from granian._granian import RSGIHTTPProtocol as HTTPProtocol
from granian._granian import RSGIProtocolClosed as ProtocolClosed
from granian.rsgi import Scope

from portal.web.deployment import network, without_port

API_PREFIX: Final = "/api/"
BODY_TIMEOUT: Final = 15.0  # seconds for a whole body
SLOW_AFTER: Final = 1.0  # seconds after which an incomplete body counts as slow
MAX_SLOW_BODIES: Final = 500  # at a time in one process
MAX_SLOW_BODIES_PER_SOURCE: Final = 50


class Unreadable(Exception):
    """A request that does not reach the app, with the status and the reason for its response."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        self.status, self.detail = status, detail


class BodyReader:
    """Reads bodies up to the size that the app accepts, from clients behind a number of trusted proxies."""

    def __init__(self, max_form_bytes: int, max_event_bytes: int, proxies: int) -> None:
        self._max_form_bytes, self._max_event_bytes, self._proxies = max_form_bytes, max_event_bytes, proxies
        self._slow_by_source: Counter[str] = Counter()

    async def read(self, scope: Scope, protocol: HTTPProtocol) -> bytes:
        """Return the body. Of one that is too large for the app it is the beginning, which is too large as well.

        Raises:
            Unreadable: the body did not arrive in time.
            ProtocolClosed: the client left before the end of the body.
        """
        headers, is_event = scope.headers, scope.path.startswith(API_PREFIX)
        length = headers.get("content-length")  # which Granian removes beside Transfer-Encoding
        if length == "0" or (length is None and "transfer-encoding" not in headers):
            return b""
        if is_event and "authorization" not in headers:
            return b""  # a request without a key is rejected whatever it contains
        limit = self._max_event_bytes if is_event else self._max_form_bytes
        body = await self._read(protocol, limit, _source(scope, self._proxies))
        if length is not None and len(body) < min(int(length), limit + 1):
            raise ProtocolClosed
        return body

    async def _read(self, protocol: HTTPProtocol, limit: int, source: str) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_TIMEOUT) as deadline:
                with self._count_slow(source, deadline):
                    async for part in protocol:
                        body += part
                        if len(body) > limit:
                            break
        except TimeoutError:
            raise Unreadable(HTTPStatus.REQUEST_TIMEOUT, "The request took too long to arrive.") from None
        return bytes(body)

    @contextmanager
    def _count_slow(self, source: str, deadline: asyncio.Timeout) -> Iterator[None]:
        """Count the body of this block as slow after a while, and end its time if there are too many."""
        loop, is_slow = asyncio.get_running_loop(), False

        def on_slow() -> None:
            nonlocal is_slow
            is_slow = True
            slow = self._slow_by_source
            slow[source] += 1
            if slow[source] > MAX_SLOW_BODIES_PER_SOURCE or slow.total() > MAX_SLOW_BODIES:
                deadline.reschedule(loop.time())

        timer = loop.call_later(SLOW_AFTER, on_slow)
        try:
            yield
        finally:
            timer.cancel()
            if is_slow:
                self._slow_by_source -= Counter([source])


def _source(scope: Scope, proxies: int) -> str:
    """Return the client's network. Behind trusted proxies it is found as `ProxyFix` does."""
    lines = [value for name, value in scope.headers.items() if name == "x-forwarded-for"]  # some proxies add a line
    forwarded = [part.strip() for line in lines for part in line.split(",")]
    return network(without_port(forwarded[-proxies] if 0 < proxies <= len(forwarded) else scope.client))
