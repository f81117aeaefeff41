"""No message makes a connection deaf, whatever bytes somebody puts onto the wire below a wildcard that is heard."""

import asyncio
from collections.abc import Callable

import pytest

from contracts.subjects import ROOT
from services.runtime import nats_client
from services.runtime.bus import Bus, Message
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer

HEARD = f"{ROOT}.tool.*.*"


def with_headers(block: bytes) -> bytes:
    return b"HPUB htdag.v1.tool.coder.fs %d %d\r\n%b{}\r\n" % (len(block), len(block) + 2, block)


async def say(server: NatsServer, *lines: bytes) -> None:
    """Put bytes onto the wire that no client library would."""
    host, port = server.url.removeprefix("nats://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n' + b"".join(lines) + b"PING\r\n")
    async with asyncio.timeout(5):
        await writer.drain()
        while b"PONG" not in (line := await reader.readline()):
            assert line
    writer.close()


@pytest.fixture
async def said() -> list[str]:
    return []


@pytest.fixture
async def hear(nats_server: NatsServer, said: list[str]) -> Callable[..., object]:
    async def begin() -> tuple[Bus, list[Message]]:
        heard: list[Message] = []
        bus = Bus(await nats_client.connect(nats_server.url, name="heard", log=said.append))
        await bus.start()
        await bus.subscribe(HEARD, heard.append)
        await bus.flush()
        return bus, heard

    return begin


@pytest.mark.parametrize(
    "line",
    [
        b"PUB htdag.v1.tool.coder.\xff\xfe 2\r\n{}\r\n",
        b"PUB htdag.v1.tool.coder.fs _INBOX.\xff 2\r\n{}\r\n",
        with_headers(b"NATS/1.0"),
        with_headers(b"NATS/1.0\r\n"),
        with_headers(b"NATS/1.0 \xff\xff\xff\r\n\r\n"),
        with_headers(b"NATS/1.0\r\n\xff: \xfe\xfd\r\n\r\n"),
        with_headers(b"NATS/1.0\r\n: x\r\n\r\n"),
    ],
)
async def test_what_comes_behind_a_malformed_message_is_heard(
    nats_server: NatsServer, said: list[str], hear, line: bytes
) -> None:
    bus, heard = await hear()
    reconnects = bus.client.stats["reconnects"]
    await say(nats_server, line, b"PUB htdag.v1.tool.coder.after 2\r\n{}\r\n")
    assert await eventually(lambda: any(message.subject.endswith(".after") for message in heard))
    assert bus.client.stats["reconnects"] == reconnects
    assert not [text for text in said if "disconnect" in text.lower()]
    await bus.close()
