"""The health port answers probes, and nothing that a probe would not ask."""

import asyncio
import contextlib

import msgspec
import pytest

from contracts.errors import Rejected
from services.runtime import health
from services.runtime.health import Check, HealthServer
from tests.support.eventually import eventually


class Port:
    """A running health server and the raw way to speak to it."""

    def __init__(self) -> None:
        self.checks: list[Check] = [Check("nats", True)]
        self.server = HealthServer(checks=self.look, metrics=lambda: b"htdag_runs_running 0.0\n")

    def look(self) -> list[Check]:
        return self.checks

    async def say(self, raw: bytes) -> tuple[int, dict[str, str], bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        writer.write(raw)
        async with asyncio.timeout(5):
            answer = await reader.read()
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        return int(status.split(" ")[1]), dict(line.split(": ", 1) for line in lines), body

    async def get(self, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        return await self.say(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


@pytest.fixture
async def port():
    port = Port()
    await port.server.start("127.0.0.1", 0)
    yield port
    await port.server.stop()


async def test_ready_lists_every_check_and_its_reason(port):
    status, headers, body = await port.get("/readyz")
    assert (status, msgspec.json.decode(body)) == (200, [{"name": "nats", "ok": True, "reason": None}])
    assert headers["Content-Type"] == "application/json"
    port.checks = [Check("nats", True), Check("model", False, "it loads")]
    status, _, body = await port.get("/readyz?verbose=1")
    assert status == 503
    assert msgspec.json.decode(body)[1] == {"name": "model", "ok": False, "reason": "it loads"}


async def test_alive_while_not_ready(port):
    port.checks = [Check("nats", False, "away")]
    assert (await port.get("/livez"))[::2] == (200, b"ok\n")


async def test_serves_metrics(port):
    status, headers, body = await port.get("/metrics")
    assert (status, body) == (200, b"htdag_runs_running 0.0\n")
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")


async def test_head_has_the_length_and_no_body(port):
    status, headers, body = await port.get("/livez", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "3", b"")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"POST /livez HTTP/1.1\r\n\r\n", 405),
        (b"GET /etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"GET /../../etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"hello\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", 431),
    ],
)
async def test_other_requests_are_refused(port, raw, status):
    assert (await port.say(raw))[0] == status


async def test_a_silent_client_is_cut(port, monkeypatch):
    monkeypatch.setattr(health, "REQUEST_TIMEOUT_S", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", port.server.port)
    writer.write(b"GET /livez HTTP/1.1\r\n")
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionResetError):  # a reset is as good an end as a close
            assert await reader.read() == b""
    writer.close()
    assert (await port.get("/livez"))[0] == 200


async def test_too_many_connections_do_not_pile_up(port, monkeypatch):
    monkeypatch.setattr(health, "CONNECTIONS_MAX", 2)
    open_ones = [await asyncio.open_connection("127.0.0.1", port.server.port) for _ in range(2)]
    await eventually(lambda: len(port.server._open) == 2)
    with pytest.raises((ConnectionError, IndexError)):
        await port.get("/livez")
    for _, writer in open_ones:
        writer.close()
    await eventually(lambda: not port.server._open)
    assert (await port.get("/livez"))[0] == 200


async def test_a_check_that_breaks_is_not_well_rather_than_silent(port, caplog):
    port.checks = None
    assert (await port.get("/readyz"))[0] == 500
    assert "health_page_failed" in caplog.text


async def test_a_taken_port_is_an_error_of_its_own(port):
    with pytest.raises(Rejected) as refusal:
        await HealthServer(checks=list, metrics=bytes).start("127.0.0.1", port.server.port)
    assert (refusal.value.code, refusal.value.detail["port"]) == ("port_in_use", port.server.port)
    assert "HTDAG_CORE__HTTP_PORT" in refusal.value.detail["hint"]


async def test_stopping_cuts_what_is_open(port):
    _, writer = await asyncio.open_connection("127.0.0.1", port.server.port)
    await eventually(lambda: port.server._open)
    await port.server.stop()
    assert not port.server._open
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port.server.port)
    writer.close()
