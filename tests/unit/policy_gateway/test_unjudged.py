"""Every call that reaches the gateway is in the audit, also what could not be judged; a flood of it fills no disk."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from contracts.limits import UNJUDGED_ENTRIES_PER_WINDOW_MAX
from contracts.policy import CallOf, CallsUnjudged, SecurityRaised, ToolDecided
from contracts.run import TaskCompleted
from contracts.subjects import tool_call
from contracts.tools import UNNAMEABLE
from services.policy_gateway.calls import unjudged
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.unit.policy_gateway.gateway_desk import CALL, READ, Caller, Gateway, caller, gateway


@pytest.mark.law("I15")
async def test_as_many_entries_as_calls_whatever_was_wrong_with_them(one: Gateway, me: Caller) -> None:
    await me.task_runs()
    calls = [
        me.raw("coder", "fs", b"{"),
        me.raw("coder", "fs", b"[]"),
        me.raw("coder", "fs", b'{"args":{}}', **{"Htdag-By": "x" * 10_000}),
        me.raw("coder", "a$b", b"{}"),
        me.call("coder", "$HELL", READ),
        me.call("coder", UNNAMEABLE, {"tool": "rm -rf /"}),
        me.call("nobody", "fs", READ),
        me.call("coder", "fs", READ),
        me.call("coder", "fs", READ, task=CALL),
        me.call("coder", "fs", READ, task=CallOf("r2", "a", 1, 1)),
        me.call("coder", "fs", READ, task=CallOf("r1", "b", 1, 1)),
        me.call("coder", "fs", READ, task=CallOf("r1", "a", 7, 1)),
        me.call("coder", "fs", READ, task=CallOf("r 1", "a", 1, 1)),
    ]
    for call in calls:
        await call
    # The same call again is the same call; another one under its name is not.
    await me.call("coder", "fs", READ, task=CALL)
    await me.call("coder", "fs", {"read": "/code/b"}, task=CALL)
    decided = [entry for entry in await me.audit() if isinstance(entry, ToolDecided)]
    assert [entry.code for entry in decided] == [
        "bad_json", "bad_request", "too_large", "bad_request", "forbidden_tool", "forbidden_tool", "unknown_role", "",
        "", "run_not_found", "task_not_found", "stale_attempt", "bad_id", "conflict",
    ]  # fmt: skip
    stats = await me.ask("stats")
    assert (stats["total_tool_calls"], stats["policy_violations_blocked"]) == (14, 3)
    rows = await me.ask("audit", code="stale_attempt")
    assert [(row["run_id"], row["task_id"], row["attempt"]) for row in rows] == [("r1", "a", 7)]
    difference = await me.ask("diff", text=(await me.ask("roles", text=True))["text"])
    assert difference["not_judged"]["never_judged"] == 9
    assert (await me.ask("verify"))["entries"] >= 14


async def test_a_finished_task_in_another_role_is_a_stranger_and_not_late(one: Gateway, me: Caller) -> None:
    await me.task_runs(role="critic")
    await me.run_is("r1", TaskCompleted("a", 1, "done"))
    late = await me.call("critic", "fs", READ, task=CALL)
    assert late["error"]["code"] == "stale_attempt"
    for role, code in (("admin", "role_mismatch"), ("coder", "role_mismatch"), ("nobody", "unknown_role")):
        assert (await me.call(role, "fs", READ, task=CALL))["error"]["code"] == code
    assert len([entry for entry in await me.audit() if isinstance(entry, SecurityRaised)]) == 2


async def test_a_flood_of_malformed_calls_is_counted_not_listed(
    one: Gateway, me: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    flood = UNJUDGED_ENTRIES_PER_WINDOW_MAX * 3
    await asyncio.gather(*(me.raw("coder", "fs", b"{") for _ in range(flood)))
    await asyncio.gather(*(me.call("coder", "fs", READ, task=CallOf("r9", "a", 1, n)) for n in range(1, 51)))
    for _ in range(5):
        me.bus.publish(tool_call("coder", "fs"), b"{}", reply="htdag.v1.policy-gateway.policy.put")
    await me.bus.flush()
    assert (await me.call("coder", "fs", READ))["ok"]  # others go on
    assert len([entry for entry in await me.audit() if isinstance(entry, ToolDecided)]) == 101
    monkeypatch.setattr(unjudged, "UNJUDGED_WINDOW_S", 0.0)
    await me.raw("coder", "fs", b"{")

    async def folded() -> list[CallsUnjudged]:
        return [entry for entry in await me.audit() if isinstance(entry, CallsUnjudged)]

    (told,) = await eventually(folded)
    assert told.count == flood - UNJUDGED_ENTRIES_PER_WINDOW_MAX + 50 + 5
    assert told.reasons == {
        "bad_json": flood - UNJUDGED_ENTRIES_PER_WINDOW_MAX, "run_not_found": 50, "reply_not_inbox": 5
    }  # fmt: skip
    stats = await me.ask("stats")
    assert stats["total_tool_calls"] == flood + 50 + 5 + 1 + 1


async def test_what_was_only_counted_is_stored_when_the_gateway_stops(nats_server: NatsServer, tmp_path: Path) -> None:
    async with caller(nats_server) as me:
        async with gateway(nats_server, tmp_path / "one"):
            me.bus.publish(tool_call("coder", "fs"), b"{}", reply="nowhere")
            await me.bus.flush()
            assert (await me.call("coder", "fs", READ))["ok"]
        entries = await me.audit()
    assert [entry.reasons for entry in entries if isinstance(entry, CallsUnjudged)] == [{"reply_not_inbox": 1}]
    assert msgspec.json.encode(entries)
