"""Who is ended for missing its beats: a process that is silent everywhere, and nobody else."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest

from contracts.errors import Rejected
from contracts.llm import LlmHealth
from contracts.subjects import LLM_HEALTH
from services.console.home import Home
from services.console.supervision.hung import HungWorkers
from services.console.supervision.silence import AWAY_S
from services.runtime.bus import Bus
from tests.support.eventually import eventually

NAME = "llm-worker"


IDLE = (sys.executable, "-c", "import signal; signal.pause()")


@pytest.fixture
def process() -> Iterator["subprocess.Popen[bytes]"]:
    """Stands for a worker: it lives, and does nothing."""
    with subprocess.Popen(IDLE) as started:
        yield started
        started.kill()


@pytest.fixture
def successor() -> Iterator["subprocess.Popen[bytes]"]:
    """What a supervisor starts in its place."""
    with subprocess.Popen(IDLE) as started:
        yield started
        started.kill()


class Pool:
    """One program, its run file, and whoever looks after it."""

    def __init__(self, home: Home, bus: Bus, pid: int, http: int) -> None:
        self._home, self._bus, self._http = home, bus, http
        self.said: list[str] = []
        self.hung = HungWorkers(home, self.running, self.said.append)
        home.run.mkdir(parents=True, exist_ok=True)
        self.become(pid, "w1")

    def become(self, pid: int, worker_id: str) -> None:
        """This process is the program's now."""
        self.pid, self.worker_id = pid, worker_id
        entry = {"pid": pid, "http": self._http, "service": NAME, "started_at": "2026-01-01T00:00:00Z"}
        (self._home.run / f"{NAME}-{worker_id}.json").write_bytes(msgspec.json.encode({**entry, "instance": worker_id}))

    async def running(self) -> dict[str, int]:
        """See Copies.running."""
        return {NAME: self.pid}

    async def look(self) -> set[str]:
        """One look."""
        return await self.hung.look(self._bus, await self.running())

    async def begin(self) -> None:
        """Listen, and hear one beat of the fastest pace."""
        await self.hung.listen(self._bus)
        await self.look()
        self.beat()
        assert await self.look() == set()

    def beat(self) -> None:
        """The worker is heard."""
        health = LlmHealth(self.worker_id, "2026-01-01T00:00:00Z", "up", ["mock"], 0, every_s=1.0)
        self._bus.publish(LLM_HEALTH, msgspec.json.encode(health))


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """A health port that answers."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
async def deaf_port() -> AsyncIterator[int]:
    """A health port whose process takes nothing: the kernel alone accepts."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_silent_everywhere_is_killed_and_said_once(bus, tmp_path, process, deaf_port):
    pool = Pool(Home(tmp_path), bus, process.pid, deaf_port)
    await pool.begin()

    async def ended() -> bool:
        assert await pool.look() == set()
        return process.poll() is not None

    await eventually(ended, timeout_s=20, interval_s=0.2)
    assert process.returncode == -9
    assert len(pool.said) == 1
    assert "HANGS: nothing was heard of its worker w1 for" in pool.said[0]
    assert f"pid {process.pid} is killed" in pool.said[0]
    assert await pool.look() == set()  # there is no process to judge any more


async def test_one_that_hangs_again_soon_is_not_ended_again_and_counts_for_nothing(
    bus, tmp_path, process, successor, deaf_port
):
    """Given a program that was just ended for hanging, when the next process hangs too, then it waits for its time."""
    pool = Pool(Home(tmp_path), bus, process.pid, deaf_port)
    await pool.begin()

    async def ended() -> bool:
        await pool.look()
        return process.poll() is not None

    await eventually(ended, timeout_s=20, interval_s=0.2)
    pool.become(successor.pid, "w2")
    await pool.look()
    pool.beat()
    assert await pool.look() == set()

    async def dead() -> bool:
        return await pool.look() == {NAME}

    await eventually(dead, timeout_s=20, interval_s=0.2)
    assert successor.poll() is None
    assert len(pool.said) == 1


async def test_whoever_answers_at_its_health_port_is_left_alone(bus, tmp_path, process, port):
    pool = Pool(Home(tmp_path), bus, process.pid, port)
    await pool.begin()

    async def spared() -> bool:
        assert await pool.look() == set()
        return bool(pool.said)

    await eventually(spared, timeout_s=20, interval_s=0.2)
    assert "it is left alone" in pool.said[0]
    assert process.poll() is None


async def test_a_beat_during_the_last_question_saves_it(bus, tmp_path, process):
    """Given a dead worker, when it beats while its health port is asked, then nobody ends it."""

    async def beat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pool.beat()
        await bus.flush()
        writer.close()  # and says nothing there

    server = await asyncio.start_server(beat, "127.0.0.1", 0)
    pool = Pool(Home(tmp_path), bus, process.pid, server.sockets[0].getsockname()[1])
    await pool.begin()
    loop = asyncio.get_running_loop()
    end_s = loop.time() + AWAY_S

    async def spared() -> bool:
        assert await pool.look() == set()
        return loop.time() >= end_s

    await eventually(spared, timeout_s=AWAY_S * 2, interval_s=0.2)
    assert (process.poll(), pool.said) == (None, [])
    server.close()


async def test_without_a_broker_nobody_is_judged(nats_server, bus, tmp_path, process, deaf_port):
    """Given a worker that is nearly dead, when the broker is away, then every look fails and nobody is ended."""
    pool = Pool(Home(tmp_path), bus, process.pid, deaf_port)
    await pool.begin()
    nats_server.kill()
    for _ in range(2):
        with pytest.raises(Rejected) as refused:
            await pool.look()
        assert refused.value.code in ("nats_unavailable", "timeout")
    assert (process.poll(), pool.said) == (None, [])
