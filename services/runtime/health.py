"""The health port: `/livez`, `/readyz` and `/metrics` over the smallest HTTP that probes and scrapers need.

GET and HEAD only, one request per connection, bounded in size, time and number; meant for loopback.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import msgspec

from contracts.errors import Rejected

_LOG: Final = logging.getLogger(__name__)
HEAD_BYTES_MAX: Final = 8 << 10
REQUEST_TIMEOUT_S: Final = 5.0
CONNECTIONS_MAX: Final = 64
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
_TEXT: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json"
_METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"


class Check(msgspec.Struct, frozen=True):
    """One line of `/readyz`: `reason` says why not, and is None when all is well."""

    name: str
    ok: bool
    reason: str | None = None


class HealthServer:
    """Serves the state of one process. `checks` is asked anew for every request."""

    def __init__(self, *, checks: Callable[[], list[Check]], metrics: Callable[[], bytes]) -> None:
        self._checks = checks
        self._metrics = metrics
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self, host: str, port: int) -> int:
        """Listen and return the port. Raises Rejected("port_in_use")."""
        try:
            self._server = await asyncio.start_server(self._accept, host, port, limit=HEAD_BYTES_MAX)
        except OSError as error:
            message = f"the health port {host}:{port} cannot be opened"
            hint = "another port: `htdag serve … --http-port 0`, or HTDAG_CORE__HTTP_PORT=0, takes a free one"
            raise Rejected("port_in_use", message, port=port, hint=hint) from error
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self.port

    async def stop(self) -> None:
        """Close the port and cut what is still open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._open:
            task.cancel()
        if self._open:
            await asyncio.wait(self._open, timeout=REQUEST_TIMEOUT_S)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer), name="health-request")
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                method, status, kind, body = await self._answer(reader)
                writer.write(_response(status, kind, body, with_body=method != "HEAD"))
                await writer.drain()
        except (OSError, TimeoutError):
            # The prober went away or was too slow; it sees a closed connection.
            writer.transport.abort()
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[str, int, str, bytes]:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return "GET", 431, _TEXT, b"the request head is too large\n"
        except asyncio.IncompleteReadError:
            return "GET", 400, _TEXT, b"not an HTTP request\n"
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return "GET", 400, _TEXT, b"not an HTTP request\n"
        method, path = words[0], words[1].split("?", 1)[0]
        if method not in ("GET", "HEAD"):
            return method, 405, _TEXT, b"GET and HEAD only\n"
        try:
            return (method, *self._page(path))
        except Exception:
            # A check that breaks must be seen as "not well", not as a port that hangs up.
            _LOG.exception("health_page_failed", extra={"page": path})
            return method, 500, _TEXT, b"the check itself failed; see the log\n"

    def _page(self, path: str) -> tuple[int, str, bytes]:
        match path:
            case "/livez":
                return 200, _TEXT, b"ok\n"
            case "/readyz":
                checks = self._checks()
                return 200 if all(check.ok for check in checks) else 503, _JSON, msgspec.json.encode(checks)
            case "/metrics":
                return 200, _METRICS, self._metrics()
            case _:
                return 404, _TEXT, b"/livez, /readyz or /metrics\n"


def _response(status: int, kind: str, body: bytes, *, with_body: bool) -> bytes:
    allow = "Allow: GET, HEAD\r\n" if status == 405 else ""
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{allow}"
        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (body if with_body else b"")
