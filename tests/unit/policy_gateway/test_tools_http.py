"""The http tool against a real server with TLS: where it connects, what it refuses, and what it makes of answers."""

import asyncio
import base64
import gzip
import os
import socket
import threading
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest

from contracts.errors import Rejected
from services.policy_gateway.decision.plans import FetchPlan
from services.policy_gateway.decision.verdict import Deny
from services.policy_gateway.tools.bodies import BODY_BYTES_MAX
from services.policy_gateway.tools.http import Http, addresses_of
from services.policy_gateway.tools.tool import Ticket, Workspace
from tests.support.tls_site import TlsSite, response

HOST = "docs.example.test"
HOSTS = frozenset({HOST})


class World:
    """A site, a name that resolves to it, and the tool."""

    def __init__(self, site: TlsSite) -> None:
        self.site = site
        self.names: dict[str, list[str]] = {HOST: ["127.0.0.1"]}
        self.resolved: list[str] = []
        self.tool = Http(
            self.redirected,
            tls=site.client_tls,
            resolve=self.resolve,
            why_closed=lambda address: None if address == "127.0.0.1" else "closed in this test",
        )

    def resolve(self, host: str, port: int) -> list[str]:
        self.resolved.append(host)
        if host not in self.names:
            raise socket.gaierror
        return self.names[host]

    def redirected(self, plan: FetchPlan, location: str) -> FetchPlan | Deny:
        url = urljoin(f"{plan.scheme}://{plan.host}:{plan.port}{plan.target}", location)
        parts = urlsplit(url)
        if parts.scheme != "https" or parts.hostname not in HOSTS:
            return Deny("forbidden_url", "http.hosts", {"url": url})
        return plan._replace(target=parts.path or "/")

    def plan(self, target: str = "/", **fields: Any) -> FetchPlan:
        plan = FetchPlan("GET", "https", HOST, self.site.port, target, (), None, HOSTS)
        return plan._replace(**fields)

    async def get(self, target: str = "/", timeout_s: float = 20.0, **fields: Any) -> dict[str, Any]:
        workspace = Workspace("w", Path("/none"), Path("/none"), "seed")
        ticket = Ticket("c", "researcher", workspace, asyncio.get_running_loop().time() + timeout_s)
        return await self.tool.run(self.plan(target, **fields), ticket)

    async def refused(self, target: str = "/", **fields: Any) -> Rejected:
        with pytest.raises(Rejected) as caught:
            await self.get(target, **fields)
        return caught.value


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    site = TlsSite(tmp_path, HOST)
    await site.start()
    made = World(site)
    yield made
    made.tool.close()
    await site.stop()


async def test_a_page_is_fetched(world: World) -> None:
    world.site.pages["/doc?q=1"] = response("grüße".encode(), Content_Type="text/html", X_A="1")
    value = await world.get("/doc?q=1", headers=(("accept", "text/html"), ("if-none-match", "x")))
    assert value == {
        "status": 200,
        "headers": {"content-length": "7", "content-type": "text/html", "x-a": "1"},
        "body": "grüße",
        "url": f"https://{HOST}:{world.site.port}/doc?q=1",
    }
    head = world.site.asked[0].lower()
    assert head.startswith("get /doc?q=1 http/1.1\r\n")
    for line in (f"host: {HOST}:{world.site.port}", "accept: text/html", "if-none-match: x", "user-agent: htdag"):
        assert f"\r\n{line}\r\n" in head


async def test_a_status_is_a_result(world: World) -> None:
    assert (await world.get("/none"))["status"] == 404
    world.site.pages["/"] = response(b"broken", status=500)
    assert (await world.get())["body"] == "broken"
    world.site.pages["/"] = response(status=304)
    assert (await world.get())["status"] == 304
    world.site.pages["/"] = b"HTTP/1.1 200 X\r\nContent-Length: 99999999\r\n\r\n"
    assert (await world.get(method="HEAD"))["body"] == ""


async def test_an_admin_sends_bodies_and_headers_but_frames_are_ours(world: World) -> None:
    headers = (("x-key", "1"), ("host", "evil.test"), ("content-length", "9"), ("transfer-encoding", "chunked"))
    await world.get(method="POST", body=b"abc", headers=headers, hosts=None)
    head = world.site.asked[0].lower()
    assert head.startswith("post / ")
    assert "\r\nx-key: 1\r\n" in head
    assert "\r\ncontent-length: 3\r\n" in head
    assert "evil" not in head
    assert "chunked" not in head


async def test_a_body_that_is_no_text_comes_as_base64(world: World) -> None:
    world.site.pages["/"] = response(b"\x89PNG\xff")
    value = await world.get()
    assert (value["body"], value["encoding"]) == (base64.b64encode(b"\x89PNG\xff").decode(), "base64")


@pytest.mark.parametrize(
    ("packed", "encoding"),
    [
        (gzip.compress(b"text" * 100), "gzip"),
        (gzip.compress(b"text" * 50) + gzip.compress(b"text" * 50), "gzip"),
        (zlib.compress(b"text" * 100), "deflate"),
        (zlib.compress(b"text" * 100)[2:-4], "deflate"),
        (b"text" * 100, "identity"),
    ],
    ids=["gzip", "two gzip members", "zlib", "bare deflate", "identity"],  # gzip holds the time: no name for a test
)
async def test_a_packed_body_is_unpacked(world: World, packed: bytes, encoding: str) -> None:
    world.site.pages["/"] = response(packed, Content_Encoding=encoding)
    assert (await world.get())["body"] == "text" * 100


async def test_a_packing_that_cannot_be_taken_off_fails(world: World) -> None:
    packed = gzip.compress(os.urandom(1000))
    for body, encoding in ((b"x", "br"), (b"x", "gzip, gzip"), (b"no gzip", "gzip"), (packed[:-10], "gzip")):
        world.site.pages["/"] = response(body, Content_Encoding=encoding)
        assert (await world.refused()).code == "fetch_failed", (body[:9], encoding)


async def test_a_body_beyond_the_limit_is_refused(world: World) -> None:
    world.site.pages["/"] = response(b"x" * BODY_BYTES_MAX)
    assert len((await world.get())["body"]) == BODY_BYTES_MAX
    world.site.pages["/"] = response(b"x" * (BODY_BYTES_MAX + 1))
    assert (await world.refused()).code == "too_large"

    async def endless(writer: asyncio.StreamWriter, head: bytes) -> None:
        writer.write(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await writer.drain()

    world.site.pages["/"] = endless
    assert (await world.refused()).code == "too_large"


async def test_a_body_that_is_packed_too_tightly_is_refused(world: World) -> None:
    world.site.pages["/"] = response(gzip.compress(b"\0" * (1 << 20)), Content_Encoding="gzip")
    assert (await world.refused()).code == "too_large"
    world.site.pages["/"] = response(gzip.compress(b"\0" * (200 << 20)), Content_Encoding="gzip")
    assert (await world.refused()).code == "too_large"
    noise = base64.b16encode(os.urandom(3 << 20))
    world.site.pages["/"] = response(gzip.compress(noise, 1), Content_Encoding="gzip")
    assert (await world.refused()).code == "too_large"


async def test_headers_beyond_the_limit_are_refused(world: World) -> None:
    for size in (70 << 10, 300 << 10):
        world.site.pages["/"] = response(b"x", X_Big="y" * size)
        assert (await world.refused()).code == "fetch_failed"
    world.site.pages["/"] = response(b"x", X_Big="y" * (50 << 10))
    assert (await world.get())["status"] == 200


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 X\r\nContent-Length: 10\r\n\r\nabc"])
async def test_what_is_no_http_fails(world: World, said: bytes) -> None:
    world.site.pages["/"] = said
    assert (await world.refused()).code == "fetch_failed"


async def test_every_address_of_the_name_must_be_open(world: World) -> None:
    world.names[HOST] = ["127.0.0.1", "10.0.0.7"]
    why = await world.refused()
    assert why.code == "resolved_address_denied"
    assert why.detail["host"] == HOST
    assert world.site.asked == []
    world.names[HOST] = []
    assert (await world.refused()).code == "fetch_failed"
    assert (await world.refused(host="unknown.test")).code == "fetch_failed"


async def test_a_name_is_resolved_once_for_each_request(world: World) -> None:
    """A name that answers differently the second time (rebinding) is never asked a second time."""
    await world.get()
    assert world.resolved == [HOST]


async def test_the_right_rule_closes_loopback_and_this_machine(world: World) -> None:
    tool = Http(world.redirected, tls=world.site.client_tls)
    workspace = Workspace("w", Path("/none"), Path("/none"), "seed")
    for host in ("localhost", "127.0.0.1", "[::1]", "0.0.0.0"):
        ticket = Ticket("c", "admin", workspace, asyncio.get_running_loop().time() + 20)
        with pytest.raises(Rejected) as caught:
            await tool.run(world.plan(host=host, hosts=None), ticket)
        assert caught.value.code in {"resolved_address_denied", "fetch_failed"}, host
    tool.close()
    assert addresses_of("127.0.0.2", 80) == ["127.0.0.1"]  # an address of ours counts as loopback
    assert world.site.asked == []


async def test_the_certificate_must_be_for_the_host(world: World) -> None:
    world.names["other.test"] = ["127.0.0.1"]
    why = await world.refused(host="other.test")
    assert (why.code, "certificate" in why.detail["reason"]) == ("fetch_failed", True)
    stranger = Http(world.redirected, resolve=world.resolve, why_closed=lambda _: None)
    workspace = Workspace("w", Path("/none"), Path("/none"), "seed")
    with pytest.raises(Rejected) as caught:
        await stranger.run(world.plan(), Ticket("c", "r", workspace, asyncio.get_running_loop().time() + 20))
    assert caught.value.code == "fetch_failed"
    stranger.close()
    assert world.site.asked == []


async def test_plain_http_and_a_closed_port_fail(world: World) -> None:
    assert (await world.refused(scheme="http")).code == "fetch_failed"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    why = await world.refused(port=port)
    assert (why.code, why.detail["reason"]) == ("fetch_failed", "no connection to the host")


async def test_proxies_of_the_environment_play_no_part(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    world.site.pages["/"] = response(b"direct")
    assert (await world.get())["body"] == "direct"


async def test_redirects_are_followed_and_told(world: World) -> None:
    base = f"https://{HOST}:{world.site.port}"
    world.site.pages |= {
        "/a": response(b"moved", status=301, Location="/b"),
        "/b": response(status=307, Location=f"{base}/c"),
        "/c": response(b"here"),
    }
    value = await world.get("/a")
    assert (value["body"], value["url"], value["redirects"]) == ("here", f"{base}/c", [f"{base}/a", f"{base}/b"])


async def test_a_redirect_without_a_place_is_an_answer(world: World) -> None:
    world.site.pages["/"] = response(b"moved", status=302)
    assert (await world.get())["status"] == 302


@pytest.mark.parametrize(
    "place",
    ["https://evil.test/x", f"http://{HOST}/", "//evil.test", f"https://{HOST}@evil.test/", "file:///etc/passwd"],
)
async def test_a_redirect_off_the_list_is_refused(world: World, place: str) -> None:
    world.site.pages["/"] = response(status=302, Location=place)
    why = await world.refused()
    assert why.code == "forbidden_url"
    assert why.detail["redirected_from"] == [f"https://{HOST}:{world.site.port}/"]
    assert len(world.site.asked) == 1


async def test_a_redirect_to_a_name_that_turned_private_is_refused(world: World) -> None:
    def rebinding(host: str, port: int) -> list[str]:
        world.names[host] = ["169.254.169.254"]
        return ["127.0.0.1"] if not world.site.asked else world.names[host]

    world.tool._resolve = rebinding
    world.site.pages["/"] = response(status=302, Location="/metadata")
    assert (await world.refused()).code == "resolved_address_denied"
    assert len(world.site.asked) == 1


async def test_more_than_five_redirects_are_too_many(world: World) -> None:
    for number in range(7):
        world.site.pages[f"/{number}"] = response(status=302, Location=f"/{number + 1}")
    assert (await world.refused("/0")).code == "too_many_redirects"
    assert len(world.site.asked) == 6
    world.site.pages["/6"] = response(b"end")
    assert (await world.get("/1"))["body"] == "end"


async def test_a_server_that_drips_meets_the_deadline(world: World) -> None:
    async def drip(writer: asyncio.StreamWriter, head: bytes) -> None:
        writer.write(b"HTTP/1.1 200 X\r\nContent-Length: 100000\r\n\r\n")
        for _ in range(10_000):
            writer.write(b"x")
            await writer.drain()
            await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=0.01)

    world.site.pages["/"] = drip
    why = await world.refused(timeout_s=0.3)
    assert (why.code, why.detail) == ("timeout", {"timeout_ms": 300})


async def test_a_resolver_that_hangs_meets_the_deadline(world: World) -> None:
    over = threading.Event()

    def hang(host: str, port: int) -> list[str]:
        over.wait(20)
        return []

    world.tool._resolve = hang
    assert (await world.refused(timeout_s=0.2)).code == "timeout"
    over.set()


async def test_a_cancelled_fetch_closes_its_connection(world: World) -> None:
    gone = asyncio.Event()

    async def wait(writer: asyncio.StreamWriter, head: bytes) -> None:
        writer.write(b"HTTP/1.1 200 X\r\nContent-Length: 100000\r\n\r\n")
        call.cancel()
        try:
            while not writer.transport.is_closing():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0)
        finally:
            gone.set()

    world.site.pages["/"] = wait
    call = asyncio.create_task(world.get())
    with pytest.raises(asyncio.CancelledError):
        await call
    async with asyncio.timeout(10):
        await gone.wait()


async def test_many_fetches_at_once(world: World) -> None:
    world.site.pages["/"] = response(b"x")
    values = await asyncio.gather(*(world.get() for _ in range(50)))
    assert {value["body"] for value in values} == {"x"}
