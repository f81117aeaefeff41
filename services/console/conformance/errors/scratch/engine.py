"""An engine that says no: it speaks as much of the Docker API as a gateway needs to hear that, and runs nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

KNOWN_IMAGE: Final = "htdag/busybox:1"
"""The one image it has; every other one is missing."""
HEADER_LINES_MAX: Final = 200
READ_S: Final = 5.0


class RefusingEngine:
    """Listens on a socket of its own until it is closed."""

    def __init__(self, socket: Path) -> None:
        self.url = f"unix://{socket}"
        self._socket = socket
        self._server: asyncio.Server | None = None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["RefusingEngine"]:
        """Listen for as long as the block runs."""
        self._server = await asyncio.start_unix_server(self._answer, self._socket)
        try:
            yield self
        finally:
            self.close()

    def close(self) -> None:
        """From now on nobody answers there."""
        if self._server is not None:
            self._server.close()
        self._socket.unlink(missing_ok=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_S):
                method, path = await _request(reader)
            status, document = _said(method, path)
            body = msgspec.json.encode(document)
            head = f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
            await writer.drain()
        except (OSError, TimeoutError, ValueError):
            return  # whoever asked so badly, or has gone, hears nothing
        finally:
            writer.close()


async def _request(reader: asyncio.StreamReader) -> tuple[str, str]:
    """Method and path; the body is read and of no interest. Raises ValueError."""
    method, path, _ = (await reader.readline()).decode("latin-1").split(" ", 2)
    length = 0
    for _ in range(HEADER_LINES_MAX):
        name, _, value = (await reader.readline()).decode("latin-1").partition(":")
        if not name.strip():
            break
        if name.lower() == "content-length":
            length = int(value)
    await reader.read(length)
    return method, path.partition("?")[0]


def _said(method: str, path: str) -> tuple[int, Any]:
    if path.endswith("/version"):
        return 200, {"Version": "0", "ApiVersion": "1.41"}
    if path.endswith("/info"):
        return 200, {"NCPU": 1}
    if method == "GET" and path.endswith("/containers/json"):
        return 200, []
    if method == "GET" and path.endswith(f"/images/{KNOWN_IMAGE}/json"):
        return 200, {"Id": "sha256:" + "0" * 64, "Config": {}}
    if method == "POST" and path.endswith("/containers/create"):
        return 400, {"message": "this engine makes no containers"}
    return 404, {"message": "no such thing"}
