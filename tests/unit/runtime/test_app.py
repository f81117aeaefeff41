"""One service process, on a real broker: from nothing to ready, through every way of ending."""

import asyncio
import functools
import gc
import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import nats
import pytest
import structlog

from contracts.errors import Rejected
from contracts.streams import CONVERSATIONS
from services.runtime import app as app_module
from services.runtime import logs, own_streams, provision
from services.runtime.app import App
from services.runtime.bus import Bus
from services.runtime.config import Config
from services.runtime.lifecycle import Phase
from tests.support.eventually import eventually
from tests.support.nats_server import free_port


async def nothing(app: App) -> None:
    return None


async def get(path: str, port: int) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split(b" ")[1]), body


class Life:
    """An App that lives in this test's loop."""

    def __init__(self, app: App, build) -> None:
        self.app = app
        self.task = asyncio.create_task(app.serve(build))

    async def ready(self) -> "Life":
        await eventually(lambda: self.app.life.phase is Phase.READY or self.task.done(), timeout_s=15)
        assert not self.task.done(), f"ended with {self.task.result()}"
        return self

    async def ended(self) -> int:
        async with asyncio.timeout(15):
            return await self.task

    async def stop(self) -> int:
        self.app.life.stop("test")
        return await self.ended()

    async def checks(self) -> tuple[int, dict[str, str | None]]:
        status, body = await get("/readyz", self.app.health.port)
        return status, {check["name"]: check["reason"] for check in json.loads(body)}


@pytest.fixture
async def live(tmp_path: Path, monkeypatch):
    """Start an App; whatever still lives after the test is stopped. `live.log` is what they said."""
    stream = io.StringIO()
    monkeypatch.setattr(logs, "configure", functools.partial(logs.configure, stream=stream))
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    lives: list[Life] = []

    def live(build=nothing, *, name: str = "executor", url: str, **env: str) -> Life:
        world = {
            "HOME": str(tmp_path),
            "HTDAG_HOME": str(tmp_path / "home"),
            "HTDAG_CORE__HTTP_PORT": "0",
            "NATS_URL": url,
        }
        config = Config.load(env={**world, **env}, cwd=tmp_path)
        lives.append(Life(App(name, config), build))
        return lives[-1]

    live.log = lambda: [json.loads(line) for line in stream.getvalue().splitlines()]  # type: ignore[attr-defined]
    yield live
    for one in lives:
        if not one.task.done():
            await one.stop()
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def said(live, event: str) -> dict[str, Any]:
    return next(line for line in live.log() if line["msg"] == event)


async def test_a_service_lives_from_nothing_to_a_soft_end(live, nats_server, tmp_path):
    steps: list[str] = []

    async def build(app: App) -> None:
        async def answer(request, caller):
            return app.instance

        async def drained() -> None:
            steps.append("drained")
            assert app.bus.connected

        async def closed() -> None:
            steps.append("closed")
            assert app.bus.connected

        app.handle("run", "get", answer)
        app.on_ready("model", lambda: None)
        app.on_drain(drained)
        app.on_stop(closed)
        app.spawn(asyncio.Event().wait(), "loop")

    one = await live(build, url=nats_server.url).ready()
    app = one.app
    assert await one.checks() == (200, {"lifecycle": None, "nats": None, "model": None})
    assert app.instance.startswith("executor-")
    assert len(app.instance) == len("executor-") + 8

    (run_file,) = (tmp_path / "home" / "run").iterdir()
    assert run_file.name == f"{app.instance}.json"
    told = json.loads(run_file.read_text())
    assert told.pop("started_at").endswith("Z")
    assert told == {"pid": os.getpid(), "http": app.health.port, "service": "executor", "instance": app.instance}

    client = await nats.connect(nats_server.url)
    reply = await client.request("htdag.v1.executor.run.get", b'{"run_id":"r1"}', timeout=5)
    assert msgspec.json.decode(reply.data) == {"ok": True, "value": app.instance}
    assert (await client.jetstream().stream_info("HTDAG_EVT_EXECUTOR")).state.messages == 0
    _, metrics = await get("/metrics", app.health.port)
    assert f'htdag_build_info{{service="executor",version="{app.version}"}} 1.0' in metrics.decode()

    assert await one.stop() == 0
    assert steps == ["drained", "closed"]
    assert list((tmp_path / "home" / "run").iterdir()) == []
    with pytest.raises(nats.errors.NoRespondersError):
        await client.request("htdag.v1.executor.run.get", b"{}", timeout=5)
    await client.close()


async def test_waits_for_the_broker_says_so_and_goes_on_when_it_comes(live, start_nats_server, monkeypatch):
    monkeypatch.setattr(app_module, "CONNECT_LOG_S", 0.1)
    port = free_port()
    one = live(url=f"nats://ann:geheim@127.0.0.1:{port}")
    await eventually(lambda: [line for line in live.log() if line["msg"] == "nats_unavailable"])
    status, reasons = await one.checks()
    assert status == 503
    assert reasons["lifecycle"] == f"no NATS server answers at nats://ann:***@127.0.0.1:{port}"
    assert said(live, "nats_unavailable")["hint"] == "start it: `htdag up`"
    assert (await get("/livez", one.app.health.port))[0] == 200
    start_nats_server(port=port)
    await one.ready()
    assert (await one.checks())[0] == 200
    assert "geheim" not in str(live.log())


async def test_stops_softly_while_it_waits_for_the_broker(live):
    one = live(url=f"nats://127.0.0.1:{free_port()}")
    await eventually(lambda: one.app.health.port)
    assert await one.stop() == 0


async def test_an_outage_is_seen_and_survived(live, nats_server):
    one = await live(url=nats_server.url).ready()
    nats_server.kill()

    async def not_ready() -> bool:
        return await one.checks() == (503, {"lifecycle": None, "nats": "the connection is lost; trying again"})

    await eventually(not_ready)
    nats_server.start()

    async def ready() -> bool:
        return (await one.checks())[0] == 200

    await eventually(ready)
    await eventually(lambda: one.app.metrics.value("htdag_nats_reconnects_total") == 1)
    assert await one.stop() == 0


async def test_stops_in_time_while_the_broker_is_away(live, nats_server):
    async def build(app: App) -> None:
        async def answer(request, caller):
            return None

        app.handle("run", "get", answer)
        await app.bus.follow("HTDAG_EVT_PLANNER", "htdag.v1.evt.planner.>", lambda recorded: None)

    one = await live(build, url=nats_server.url).ready()
    nats_server.kill()
    await eventually(lambda: not one.app.bus.connected)
    assert await one.stop() == 0


async def test_requests_that_do_not_end_leave_the_service_its_time_to_drain(live, nats_server):
    steps: list[str] = []

    async def build(app: App) -> None:
        async def drained() -> None:
            steps.append("drained")

        app.on_drain(drained)
        app.handle("run", "get", lambda request, caller: asyncio.Event().wait())

    one = await live(build, url=nats_server.url, HTDAG_CORE__DRAIN_S="0.4").ready()
    client = await nats.connect(nats_server.url)
    asking = asyncio.create_task(client.request("htdag.v1.executor.run.get", b'{"run_id":"r1"}', timeout=5))
    await eventually(lambda: one.app.rpc.in_flight == 1)
    assert await one.stop() == 0
    assert steps == ["drained"]
    assert msgspec.json.decode((await asking).data)["error"]["code"] == "service_unavailable"
    await client.close()


async def test_run_files_of_the_killed_are_removed_and_of_the_living_kept(live, nats_server, tmp_path):
    run = tmp_path / "home" / "run"
    run.mkdir(parents=True)
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    told = {"http": 1, "service": "planner", "instance": "x", "started_at": "2026-01-01T00:00:00.000Z"}
    (run / "planner-killed.json").write_bytes(msgspec.json.encode({"pid": killed.pid, **told}))
    (run / "planner-broken.json").write_bytes(b"{")
    (run / "planner-living.json").write_bytes(msgspec.json.encode({"pid": os.getpid(), **told}))
    one = await live(url=nats_server.url).ready()
    assert {path.name for path in run.iterdir()} == {"planner-living.json", f"{one.app.instance}.json"}


AUTH = 'authorization {{ user: ann, password: "{}" }}'


async def test_refused_credentials_end_the_process(live, start_nats_server):
    server = start_nats_server(extra=AUTH.format("right"))
    one = live(url=server.url, NATS_USER="ann", NATS_PASSWORD="wrong")
    assert await one.ended() == 78
    assert said(live, "task_crashed")["code"] == "nats_denied"
    assert "wrong" not in str(live.log())


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
async def test_credentials_that_stop_being_right_end_the_process(live, start_nats_server):
    server = start_nats_server(extra=AUTH.format("right"))
    one = await live(url=server.url, NATS_USER="ann", NATS_PASSWORD="right").ready()
    server.kill()
    server._extra = AUTH.format("changed")
    server.start()
    assert await one.ended() == 78
    assert said(live, "nats_denied")["hint"] == "check NATS_URL"
    await asyncio.sleep(0)
    gc.collect()  # nats-py leaves the transports of refused logins open; their warnings belong to this test


async def test_a_connection_that_is_closed_for_good_ends_the_process(live, nats_server):
    one = await live(url=nats_server.url).ready()
    await one.app.bus.client.close()
    assert await one.ended() == 69
    assert said(live, "hard_stop")["reason"] == "the NATS connection was closed for good"


async def test_a_broker_without_jetstream_is_a_clear_end(live, start_nats_server, monkeypatch):
    monkeypatch.setattr(own_streams, "JETSTREAM_WAIT_S", 0.0)
    one = live(url=start_nats_server(jetstream=False).url)
    assert await one.ended() == 69
    assert said(live, "task_crashed")["code"] == "jetstream_unavailable"


async def test_a_taken_health_port_is_a_clear_end(live):
    blocker = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    taken = blocker.sockets[0].getsockname()[1]
    one = live(name="planner", url="nats://127.0.0.1:1", HTDAG_CORE__HTTP_PORT=str(taken))
    assert await one.ended() == 78
    assert said(live, "task_crashed")["code"] == "port_in_use"
    assert str(taken) in said(live, "task_crashed")["reason"]
    blocker.close()


async def test_a_home_that_cannot_be_written_is_a_clear_end(live, tmp_path):
    (tmp_path / "home").write_text("a file")
    assert await live(url="nats://127.0.0.1:1").ended() == 78
    assert said(live, "task_crashed")["code"] == "bad_config"


@pytest.mark.parametrize(
    ("error", "code"), [(ValueError("boom"), 1), (Rejected("model_missing"), 78), (Rejected("bad_config", key="x"), 78)]
)
async def test_a_service_that_cannot_be_built_ends_the_process(live, nats_server, tmp_path, error, code):
    async def build(app: App) -> None:
        raise error

    assert await live(build, url=nats_server.url).ended() == code
    assert list((tmp_path / "home" / "run").iterdir()) == []


async def test_a_crash_in_the_background_ends_the_process(live, nats_server):
    async def build(app: App) -> None:
        async def loop() -> None:
            raise ValueError("boom")

        app.spawn(loop(), "loop")
        await asyncio.Event().wait()

    assert await live(build, url=nats_server.url).ended() == 1
    assert said(live, "task_crashed")["task"] == "loop"


async def test_not_ready_while_it_is_built(live, nats_server):
    building = asyncio.Event()

    async def build(app: App) -> None:
        building.set()
        await asyncio.Event().wait()

    one = live(build, url=nats_server.url)
    await building.wait()
    assert await one.checks() == (503, {"lifecycle": "the service is being built", "nats": None})
    assert await one.stop() == 0


async def test_not_ready_while_it_drains(live, nats_server):
    drained = asyncio.Event()

    async def drain() -> None:
        await drained.wait()

    async def build(app: App) -> None:
        app.on_drain(drain)

    one = await live(build, url=nats_server.url).ready()
    one.app.life.stop()
    await eventually(lambda: one.app.life.phase is Phase.DRAINING)
    assert await one.checks() == (503, {"lifecycle": "draining", "nats": None})
    drained.set()
    assert await one.ended() == 0


async def test_not_ready_while_a_stream_of_its_own_is_missing(live, nats_server):
    owner = Bus(await nats.connect(nats_server.url))
    await owner.start()
    await provision.apply(owner)
    one = await live(name="identity", url=nats_server.url, HTDAG_CORE__PROVISION="false").ready()
    assert (await one.checks())[0] == 200
    await owner.api(f"STREAM.DELETE.{CONVERSATIONS}")
    with pytest.raises(Rejected) as refused:
        await one.app.bus.last(CONVERSATIONS, "htdag.v1.conversation.x")
    assert refused.value.code == "stream_missing"
    await eventually(lambda: one.app.streams.reason)
    status, checks = await one.checks()
    assert status == 503
    assert CONVERSATIONS in str(checks["streams"])
    await provision.apply(owner)
    await eventually(lambda: one.app.streams.reason is None, timeout_s=10)
    assert (await one.checks())[0] == 200
    await owner.close()
