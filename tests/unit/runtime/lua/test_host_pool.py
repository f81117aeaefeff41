"""The life of the pool: line, deadline, crash, stop."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.errors import Rejected
from services.runtime.lua import host as host_module
from services.runtime.lua.host import LuaHost
from tests.support.eventually import eventually

STUCK = "return string.find(string.rep('a', 40), string.rep('a?', 40) .. string.rep('a', 40))"


class Counted:
    """Collects what the pool reports."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[str, str]] = []
        self.seconds: list[tuple[str, float]] = []

    def inc(self, name: str, amount: float = 1, **labels: str) -> None:
        assert (name, amount) == ("htdag_lua_executions_total", 1)
        self.outcomes.append((labels["stage"], labels["outcome"]))

    def observe(self, name: str, value: float, **labels: str) -> None:
        assert name == "htdag_lua_seconds"
        self.seconds.append((labels["stage"], value))


@pytest.fixture(params=["best", "bare"])
async def one(request: pytest.FixtureRequest) -> AsyncIterator[LuaHost]:
    host = LuaHost(children=1, allow_bubblewrap=request.param == "best")
    await host.start()
    yield host
    await host.stop()


def family(pid: int) -> list[int]:
    """A process and all its descendants, as far as they still live."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    if stat.rsplit(")", 1)[1].split()[0] == "Z":
        return []
    return [pid, *(below for child in children for below in family(int(child)))]


async def test_one_call_per_child_at_a_time_and_the_rest_waits_in_line(one: LuaHost):
    calls = [one.call("return argv[1]", {}, argv=[index]) for index in range(50)]
    assert await asyncio.gather(*calls) == list(range(50))


async def test_children_work_side_by_side():
    host = LuaHost(children=2)
    await host.start()
    try:
        stuck = asyncio.create_task(host.call("while true do end", {}, timeout_ms=5_000))
        assert await host.call("return 1", {}, timeout_ms=1_000) == 1
        assert not stuck.done()
        stuck.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stuck
    finally:
        await host.stop()


async def test_the_deadline_does_not_count_the_time_in_line(one: LuaHost):
    blocker = asyncio.create_task(one.call("while true do end", {}, timeout_ms=1_500))
    await asyncio.sleep(0)
    assert await one.call("return 1", {}, timeout_ms=500) == 1
    with pytest.raises(Rejected):
        await blocker


async def test_a_call_that_waits_in_line_for_too_long_is_told_so(one: LuaHost, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(host_module, "LINE_S", 0.1)
    blocker = asyncio.create_task(one.call("while true do end", {}, timeout_ms=1_500))
    await asyncio.sleep(0)
    with pytest.raises(Rejected) as refused:
        await one.call("return 1", {})
    assert refused.value.code == "mailbox_full"
    assert not blocker.done()
    with pytest.raises(Rejected):
        await blocker
    monkeypatch.undo()  # on a busy machine a new child takes longer than that to start
    assert await one.call("return 1", {}) == 1


async def test_bodies_leave_a_child_to_the_stages_and_come_next():
    host = LuaHost(children=2)
    await host.start()
    try:
        hogs = [asyncio.create_task(host.call("while true do end", {}, timeout_ms=2_000, stage="body")) for _ in "ab"]
        small = asyncio.create_task(host.call("return 'body'", {}, stage="body"))
        await asyncio.sleep(0)
        assert await host.call("return 'stage'", {}, stage="completion") == "stage"
        assert not any(hog.done() for hog in hogs)
        assert await small == "body"
        assert [type(outcome) for outcome in await asyncio.gather(*hogs, return_exceptions=True)] == [Rejected] * 2
    finally:
        await host.stop()


async def test_with_one_child_a_body_has_its_turn_too(one: LuaHost):
    calls = [one.call("return argv[1]", {}, argv=[index], stage=("body", "lua")[index % 2]) for index in range(6)]
    assert await asyncio.gather(*calls) == list(range(6))


async def test_the_line_has_an_end(one: LuaHost, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(host_module, "WAITING_MAX", 2)
    calls = [asyncio.create_task(one.call("return 1", {})) for _ in range(4)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert results[:3] == [1, 1, 1]
    assert isinstance(results[3], Rejected)
    assert results[3].code == "mailbox_full"


async def test_an_ordinary_endless_loop_costs_no_process(one: LuaHost):
    async def costs_none() -> bool:
        assert await one.call("return 1", {}) == 1
        before = one.pids
        with pytest.raises(Rejected):
            await one.call("while true do pcall(function() while true do end end) end", {}, timeout_ms=3_000)
        assert one.pids == before
        return True

    # Its own clock counts the time it was given: on a busy machine the deadline may come first.
    await eventually(costs_none, timeout_s=40)


async def test_a_stuck_child_is_killed_with_everything_below_it_and_replaced(one: LuaHost):
    (pid,) = one.pids
    before = family(pid)
    with pytest.raises(Rejected) as refused:
        await one.call(STUCK, {}, timeout_ms=200)
    assert refused.value.code == "lua_timeout"
    assert await one.call("return 1", {}) == 1
    assert one.pids != (pid,)
    await eventually(lambda: not any(family(gone) for gone in before))


async def test_a_cancelled_call_frees_its_child(one: LuaHost):
    call = asyncio.create_task(one.call(STUCK, {}, timeout_ms=20_000))
    await eventually(lambda: not one._idle)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await one.call("return 1", {}, timeout_ms=3_000) == 1


async def test_calls_cancelled_in_line_lose_nobody_else_s_turn(one: LuaHost):
    calls = [asyncio.create_task(one.call("return argv[1]", {}, argv=[index])) for index in range(20)]
    await asyncio.sleep(0)
    for call in calls[1::2]:
        call.cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert results[0::2] == list(range(0, 20, 2))
    assert await one.call("return 1", {}) == 1


async def test_a_child_killed_while_idle_is_replaced(one: LuaHost):
    (pid,) = one.pids
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: one.pids and one.pids != (pid,))
    assert await one.call("return 1", {}) == 1


async def test_a_child_killed_in_a_call_costs_nothing_but_time(one: LuaHost):
    (pid,) = one.pids
    call = asyncio.create_task(one.call("local x = 0 for i = 1, 2e7 do x = x + 1 end return 'done'", {}))
    await eventually(lambda: not one._idle)
    os.kill(pid, signal.SIGKILL)
    assert await call == "done"


async def test_a_script_under_which_two_children_die_is_given_up(one: LuaHost):
    call = asyncio.create_task(one.call(STUCK, {}, timeout_ms=20_000))
    for _ in range(2):
        await eventually(lambda: one.pids and not one._idle and not one._waiting)
        os.kill(one.pids[0], signal.SIGKILL)
        await eventually(lambda: one._waiting or call.done())
    with pytest.raises(Rejected) as refused:
        await call
    assert refused.value.code == "lua_error"
    assert await one.call("return 1", {}) == 1


async def test_the_child_has_no_environment_and_hard_limits(one: LuaHost):
    (pid,) = one.pids
    for member in family(pid):
        environ = Path(f"/proc/{member}/environ").read_bytes()
        assert b"PATH" not in environ
        assert b"HOME" not in environ
    program = family(pid)[-1]
    limits = Path(f"/proc/{program}/limits").read_text()
    for name in ("Max file size", "Max processes", "Max core file size"):
        assert re.search(rf"^{name} +0 +0 ", limits, re.MULTILINE), name
    assert "NoNewPrivs:\t1" in Path(f"/proc/{program}/status").read_text()


async def test_in_bubblewrap_the_child_sees_no_network_and_not_our_files():
    host = LuaHost(children=1)
    await host.start()
    try:
        program = family(host.pids[0])[-1]
        if host.sandbox == "bubblewrap":
            devices = Path(f"/proc/{program}/net/dev").read_text().splitlines()[2:]
            assert [line.split(":")[0].strip() for line in devices] == ["lo"]
            seen = set(os.listdir(f"/proc/{program}/root"))
            assert {"usr", "box"} <= seen
            assert not {"home", "tmp", "var", "proc", "dev", "run"} & seen
        else:
            assert host.sandbox == "rlimits"
    finally:
        await host.stop()


async def test_stop_leaves_no_process_and_ends_calls_in_progress(one: LuaHost):
    members = [member for pid in one.pids for member in family(pid)]
    call = asyncio.create_task(one.call("while true do end", {}, timeout_ms=20_000))
    waiting = asyncio.create_task(one.call("return 1", {}))
    await eventually(lambda: one._waiting)
    await one.stop()
    for task in (call, waiting):
        with pytest.raises(Rejected) as refused:
            await task
        assert refused.value.code == "service_unavailable"
    await eventually(lambda: not any(family(member) for member in members))
    assert one.pids == ()
    with pytest.raises(Rejected):
        await one.call("return 1", {})


async def test_a_stopped_pool_starts_again(one: LuaHost):
    await one.stop()
    await one.stop()
    await one.start()
    assert await one.call("return 1", {}) == 1


@pytest.mark.parametrize("bubblewrap", [True, False])
async def test_children_die_with_a_service_that_is_killed(bubblewrap: bool):
    program = f"""
import asyncio
from services.runtime.lua.host import LuaHost
async def main():
    host = LuaHost(children=2, allow_bubblewrap={bubblewrap})
    await host.start()
    print(*host.pids, flush=True)
    await host.call("while true do end", {{}}, timeout_ms=30_000)
asyncio.run(main())
"""
    service = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=Path.cwd(), text=True)
    with service:
        pids = [int(pid) for pid in service.stdout.readline().split()]
        assert len(pids) == 2
        members = [member for pid in pids for member in family(pid)]
        assert len(members) >= 2
        service.kill()
    await eventually(lambda: not any(family(member) for member in members))


async def test_where_bubblewrap_does_not_run_the_pool_says_rlimits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(host_module, "bubblewrap", lambda: "/bin/false")
    host = LuaHost(children=1)
    await host.start()
    assert host.sandbox == "rlimits"
    assert await host.call("return 1", {}) == 1
    await host.stop()


@pytest.mark.parametrize(
    "said", ['{"code":"no_such","message":""}', "[]", '"', '{"ok":1', '{"code":7}', '{"line":"x"}', ""]
)
async def test_a_child_that_talks_nonsense_is_replaced(monkeypatch: pytest.MonkeyPatch, said: str):
    program = f'import sys\nprint(\'{{"ok":"ready"}}\', flush=True)\nfor _ in sys.stdin: print({said!r}, flush=True)'
    monkeypatch.setattr(host_module, "bubblewrap", lambda: None)
    monkeypatch.setattr(host_module, "bare_command", lambda: [sys.executable, "-I", "-S", "-c", program])
    host = LuaHost(children=1)
    await host.start()
    (pid,) = host.pids
    with pytest.raises(Rejected) as refused:
        await host.call("return 1", {})
    assert refused.value.code == "lua_error"
    assert pid not in host.pids
    await host.stop()


async def test_where_no_child_starts_the_start_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(host_module, "bubblewrap", lambda: None)
    monkeypatch.setattr(host_module, "bare_command", lambda: ["/bin/false"])
    with pytest.raises(Rejected) as refused:
        await LuaHost().start()
    assert refused.value.code == "missing_dependency"


async def test_every_call_is_measured_with_stage_and_outcome():
    counted = Counted()
    host = LuaHost(children=1, metrics=counted)
    await host.start()
    await host.call("return 1", {}, stage="completion")
    with pytest.raises(Rejected):
        await host.call("return os", {})
    await host.stop()
    assert counted.outcomes == [("completion", "ok"), ("lua", "lua_restricted")]
    assert [stage for stage, seconds in counted.seconds if 0 < seconds < 5] == ["completion", "lua"]


async def test_memory_of_a_child_does_not_grow_with_its_calls(one: LuaHost):
    def resident_kib() -> int:
        status = Path(f"/proc/{family(one.pids[0])[-1]}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])

    for _ in range(200):
        await one.call("local t = {} for i = 1, 100 do t[i] = { i } end return t", {})
    before = resident_kib()
    for _ in range(2_000):
        await one.call("local t = {} for i = 1, 100 do t[i] = { i } end return t", {})
    assert resident_kib() < before + 2_048
