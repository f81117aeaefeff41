"""The shipped broker configurations start, accept htdag's users, and three of them make one cluster."""

import asyncio
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import nats
import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import APIError

from contracts.limits import REQUEST_BYTES_MAX
from contracts.permissions import USERS
from contracts.rights import BOOTSTRAP, inbox
from contracts.streams import EVENTS_PLANNER
from contracts.subjects import rpc
from services.console import key_files
from services.console.connection import bus_at
from services.runtime import nats_client, nkeys
from services.runtime.bus import Bus
from tests.e2e.instance import Instance
from tests.support.eventually import eventually
from tests.support.nats_server import answers, free_port, nats_server_binary
from tests.support.service_process import ServiceProcess

INFRA = Path(__file__).parents[2] / "infra" / "nats"


class Started:
    """Servers that run from shipped files, with addresses of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.keys = folder / "keys"
        key_files.write(self.keys)
        shutil.copy(INFRA / "permissions.conf", folder)
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, conf: str, changes: dict[str, str]) -> None:
        text = (INFRA / conf).read_text()
        for old, new in changes.items():
            assert old in text, f"{conf} has no {old}"
            text = text.replace(old, new)
        path = self._folder / conf
        path.write_text(text)
        lines = (self.keys / key_files.ENVIRONMENT).read_text().splitlines()
        given = dict(line.split("=", 1) for line in lines)
        environment = {**os.environ, **given, "HTDAG_STORE": str(self._folder / f"store-{conf}")}
        with (self._folder / f"{conf}.log").open("wb") as log:
            self.processes.append(
                subprocess.Popen([nats_server_binary(), "-c", str(path)], env=environment, stdout=log, stderr=log)
            )


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    servers = Started(tmp_path)
    yield servers
    for process in servers.processes:
        process.kill()
        process.wait(10)


async def operator_of(started: Started, port: int) -> Client:
    await eventually(lambda: answers(port), timeout_s=15)
    password = (started.keys / "operator").read_text().strip()
    return await nats.connect(f"nats://127.0.0.1:{port}", user="operator", password=password)


async def greeting_of(port: int, user: str, password: str) -> bytes:
    """What the server says to a client with these credentials: +PONG, or -ERR."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader.readline()
    options = {"user": user, "pass": password, "verbose": False}
    writer.write(f"CONNECT {json.dumps(options)}\r\nPING\r\n".encode())
    said = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return said.strip()


async def test_the_single_server_takes_htdags_users_and_messages(started: Started) -> None:
    port = free_port()
    started.start("server.conf", {"127.0.0.1:4222": f"127.0.0.1:{port}"})
    operator = await operator_of(started, port)
    assert operator.max_payload == REQUEST_BYTES_MAX
    assert (await operator.jetstream().account_info()).streams == 0
    await operator.close()
    assert await greeting_of(port, "operator", "sv") == b"-ERR 'Authorization Violation'"
    for user in USERS:
        if not user.password:
            client = await nats_client.connect(
                f"nats://127.0.0.1:{port}", name=user.name, key=nkeys.load(started.keys, user.name)
            )
            await client.close()


async def test_streams_are_made_with_the_key_that_may_and_a_service_finds_them_on_its_own(
    started: Started, tmp_path: Path
) -> None:
    port = free_port()
    started.start("server.conf", {"127.0.0.1:4222": f"127.0.0.1:{port}"})
    operator = Bus(await operator_of(started, port))
    await operator.start()
    url = SimpleNamespace(url=f"nats://127.0.0.1:{port}")
    planner = ServiceProcess("planner", cast(Any, url), tmp_path / "home", NATS_NKEY=str(started.keys / "planner.nk"))
    planner.start()
    password = (started.keys / "operator").read_text().strip()
    people = Instance(tmp_path / "home", NATS_URL=f"nats://operator:{password}@127.0.0.1:{port}")
    deployer = Instance(tmp_path / "home", NATS_URL=url.url, NATS_NKEY=str(started.keys))
    try:
        # Until somebody with the right makes them, it waits and says for what.
        await eventually(lambda: "stream_missing" in planner.tail(), timeout_s=20)
        refused = await asyncio.to_thread(people, "bus", "apply")
        assert (refused.code, "nats_denied" in refused.err, "bootstrap.nk" in refused.err) == (78, True, True)
        made = await asyncio.to_thread(deployer, "bus", "apply")
        assert made.code == 0, made.err
        assert (await asyncio.to_thread(people, "bus", "apply", "--diff")).code == 0
        await planner.ready()
        strategies = await operator.call(rpc("planner", "strategy", "list"), {})
        assert [one["name"] for one in strategies][:1] == ["standard"]
        assert "nats_forbidden" not in planner.tail()
    finally:
        planner.kill()
        await operator.close()


async def test_the_console_finds_the_operator_among_the_keys(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    started.start("server.conf", {"127.0.0.1:4222": f"127.0.0.1:{port}"})
    await eventually(lambda: answers(port), timeout_s=15)
    monkeypatch.setenv("NATS_NKEY", str(started.keys))
    async with bus_at(f"nats://127.0.0.1:{port}") as bus:
        assert (await bus.api("INFO"))["streams"] == 0


def test_keys_are_made_once_and_for_their_owner_only(tmp_path: Path) -> None:
    files = key_files.write(tmp_path / "keys")
    before = {path: path.read_text() for path in files}
    assert {path.name for path in files} >= {"nats.env", "operator", "planner.nk", "agent-coder.nk", "bootstrap.nk"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    assert key_files.write(tmp_path / "keys") == files
    assert {path: path.read_text() for path in files} == before
    assert not any(line.partition("=")[2][:2] == "SU" for line in before[files[0]].splitlines())


async def test_three_servers_are_one_cluster_that_keeps_a_stream_three_times(started: Started) -> None:
    ports = {number: (free_port(), free_port()) for number in (1, 2, 3)}
    routes = {f"nats-{number}:6222": f"127.0.0.1:{route}" for number, (_, route) in ports.items()}
    for number, (client, route) in ports.items():
        listens = {"0.0.0.0:4222": f"127.0.0.1:{client}", "0.0.0.0:6222": f"127.0.0.1:{route}"}
        started.start(f"cluster-{number}.conf", {**listens, **routes})
    await eventually(lambda: answers(ports[1][0]), timeout_s=15)
    url, key = f"nats://127.0.0.1:{ports[1][0]}", nkeys.load(started.keys, BOOTSTRAP)
    maker = await nats_client.connect(url, name=BOOTSTRAP, key=key, inbox=inbox(BOOTSTRAP))

    async def replicas() -> int:
        try:
            stream = maker.jetstream(timeout=2).add_stream
            info = await stream(name=EVENTS_PLANNER, subjects=["s"], num_replicas=3)
        except (NatsError, APIError):
            return 0  # no meta leader yet
        return 1 + len(info.cluster.replicas or []) if info.cluster else 0

    assert await eventually(replicas, timeout_s=40, interval_s=0.2) == 3
    await maker.close()
