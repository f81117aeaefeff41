"""A provider's HTTP server with a fixed answer, for what a real one does rarely: refuse, break off, hang."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def answering(
    status: int, body: str, *, kind: str = "application/json", hang: bool = False, headers: str = "",
    asked: list[bytes] | None = None,
) -> AsyncIterator[str]:  # fmt: skip
    """Serve `body` to every request; yields the URL. With `hang` the connection stays open and nothing more comes.

    `asked` takes the heads of the requests, in small letters.
    """
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).lower()
        # What is not read when the connection closes makes the kernel reset it, and the answer is lost.
        await reader.readexactly(int(request.partition(b"content-length:")[2].split(b"\r\n")[0]))
        if asked is not None:
            asked.append(request)
        head = f"HTTP/1.1 {status} x\r\ncontent-type: {kind}\r\nconnection: close\r\n{headers}\r\n"
        writer.write((head + body).encode())
        await writer.drain()
        if hang:
            await gone.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        gone.set()
        server.close()


def events(*data: str) -> str:
    """Server-sent events."""
    return "".join(f"data: {item}\n\n" for item in data)
