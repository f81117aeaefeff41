"""A service with a key: it logs in as itself, waits for streams that others make, and says what it may not do."""

import asyncio
import functools
import io
import json
import logging
from pathlib import Path

import pytest
import structlog

from contracts.rights import BOOTSTRAP, NODES
from services.runtime import logs, provision
from services.runtime.app import App
from services.runtime.bus import Bus
from services.runtime.config import Config
from services.runtime.lifecycle import Phase
from tests.support.eventually import eventually
from tests.support.guarded import Guarded


@pytest.fixture
async def live(tmp_path: Path, monkeypatch):
    """Start an executor that does nothing; `said` gives the lines of its log."""
    stream, tasks = io.StringIO(), []
    monkeypatch.setattr(logs, "configure", functools.partial(logs.configure, stream=stream))
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def live(build, guarded: Guarded, keys: Path) -> App:
        env = {
            "HTDAG_HOME": str(tmp_path / "home"),
            "HTDAG_CORE__HTTP_PORT": "0",
            "NATS_URL": guarded.server.url,
            "NATS_NKEY": str(keys),
        }
        app = App("executor", Config.load(env=env, cwd=tmp_path))
        tasks.append((app, asyncio.create_task(app.serve(build))))
        return app

    live.said = lambda: [json.loads(line) for line in stream.getvalue().splitlines()]  # type: ignore[attr-defined]
    yield live
    for app, task in tasks:
        app.life.stop("test")
        await task
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("place", ["", "executor.nk"])
async def test_it_waits_until_somebody_else_has_made_its_streams(live, guarded, tmp_path, place):
    buses: list[Bus] = []

    async def build(app: App) -> None:
        buses.extend([app.bus, await app.bus_as(NODES)])

    app = live(build, guarded, tmp_path / "keys" / place)
    await eventually(lambda: [line for line in live.said() if line["msg"] == "stream_missing"])
    assert not buses
    await provision.apply(await guarded.bus(BOOTSTRAP))
    await eventually(lambda: app.life.phase is Phase.READY, timeout_s=10)
    own, nodes = buses
    assert own is not nodes
    assert (own.inbox().rpartition(".")[0], nodes.inbox().rpartition(".")[0]) == ("_INBOX_executor", f"_INBOX_{NODES}")


async def test_what_it_may_not_do_stands_in_its_log(live, guarded, tmp_path):
    await provision.apply(await guarded.bus(BOOTSTRAP))

    async def build(app: App) -> None:
        app.bus.publish("htdag.v1.evt.planner.epic.e1", b"{}")

    live(build, guarded, tmp_path / "keys")
    (line,) = await eventually(lambda: [line for line in live.said() if line["msg"] == "nats_forbidden"])
    assert "htdag.v1.evt.planner.epic.e1" in line["said"]


def test_whoever_has_a_key_makes_no_streams_unless_told_to(tmp_path):
    def provisions(**env: str) -> bool:
        return Config.load(env={"HTDAG_HOME": str(tmp_path), **env}, cwd=tmp_path).core.provisions

    assert provisions()
    assert provisions(NATS_USER="ann", NATS_PASSWORD="pw")
    assert not provisions(NATS_NKEY="/keys")
    assert provisions(NATS_NKEY="/keys", HTDAG_CORE__PROVISION="true")
    assert not provisions(HTDAG_CORE__PROVISION="false")
