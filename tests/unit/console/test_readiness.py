"""Whether a process is ready is what it answers, and whatever it answers is no error of ours."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from services.console.supervision.readiness import get, probe


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[int]:
    """The port of somebody who takes a request, says this, and goes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def written_down(folder: Path, port: int) -> int:
    """The run file of a service at this port; its pid."""
    entry = {"pid": os.getpid(), "http": port, "service": "identity", "started_at": "T1"}
    (folder / "identity-1.json").write_bytes(msgspec.json.encode(entry))
    return os.getpid()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1", b"HTTP/1.1\r\n\r\n", b"HTTP/1.1 x y\r\n\r\n", b"\r\n\r\n", b" "])
async def test_a_process_that_ends_before_it_has_answered_is_not_ready(tmp_path: Path, answer: bytes) -> None:
    async with answering(answer) as port:
        told = await probe(tmp_path, "identity", written_down(tmp_path, port))
    assert (told.ready, told.reason) == (False, "its health port does not answer (ValueError)")


async def test_a_process_says_itself_why_it_is_not_ready(tmp_path: Path) -> None:
    body = b'[{"name":"keys","ok":false,"reason":"another key file"},{"name":"nats","ok":true}]'
    async with answering(b"HTTP/1.1 503 Service Unavailable\r\n\r\n" + body) as port:
        told = await probe(tmp_path, "identity", written_down(tmp_path, port))
    assert (told.ready, told.reason) == (False, "keys: another key file")


async def test_a_status_needs_no_words_behind_it() -> None:
    async with answering(b"HTTP/1.1 200\r\n\r\n[]") as port:
        assert await get(f"http://127.0.0.1:{port}/readyz") == (200, b"[]")
