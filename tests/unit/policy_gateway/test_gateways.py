"""Several gateways at once: one effect, one chain, one policy; and what becomes of the work of one that dies."""

import asyncio
from pathlib import Path

from contracts.policy import CallOf, ToolDecided, ToolFinished
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.unit.policy_gateway.gateway_desk import Gateway, caller, gateway

READ = {"read": "/code/a.ex"}
CALL = CallOf("r1", "a", 1, 1)


async def test_a_call_that_another_gateway_has_is_waited_for(nats_server: NatsServer, tmp_path: Path) -> None:
    async with caller(nats_server) as me, gateway(nats_server, tmp_path / "one") as one:
        await me.task_runs()
        one.tool.hold = asyncio.Event()
        first = asyncio.create_task(me.call("coder", "fs", READ, task=CALL))
        await eventually(lambda: one.tool.calls)
        async with gateway(nats_server, tmp_path / "two") as two:
            two.tool.value = {"content": "wrong", "size": 5}
            # The queue group gives it to either of the two: asked often enough, both have it.
            others = [asyncio.create_task(me.call("coder", "fs", READ, task=CALL)) for _ in range(10)]
            await eventually(lambda: two.app.metrics.value("htdag_tool_calls_running") > 0)
            one.tool.hold.set()
            answers = await asyncio.gather(first, *others)
        assert answers == [{"ok": True, "value": one.tool.value}] * 11
        assert (len(one.tool.calls), two.tool.calls) == (1, [])
        decisions = [entry for entry in await me.audit() if isinstance(entry, ToolDecided)]
        assert len(decisions) == 1


async def test_the_call_of_a_dead_gateway_is_interrupted_once_for_ever(nats_server: NatsServer, tmp_path: Path) -> None:
    async with caller(nats_server) as me:
        one = Gateway(nats_server, tmp_path / "one")
        await one.start()
        await me.task_runs()
        one.tool.hold = asyncio.Event()
        lost = asyncio.create_task(me.call("coder", "fs", READ, task=CALL))
        plain = asyncio.create_task(me.call("critic", "fs", READ))
        await eventually(lambda: len(one.tool.calls) == 2)
        await one.die()
        for task in (lost, plain):
            task.cancel()
        async with gateway(nats_server, tmp_path / "two") as two:
            said = [await me.call("coder", "fs", READ, task=CALL) for _ in range(2)]
            assert [one["error"]["code"] for one in said] == ["call_interrupted"] * 2
            assert said[0]["error"]["class"] == "execution"
            assert two.tool.calls == []

            async def closed() -> bool:
                entries = await me.audit()
                return len([entry for entry in entries if isinstance(entry, ToolFinished)]) == 2

            await eventually(closed, timeout_s=10)
            rows = await me.ask("audit", code="call_interrupted")
            assert sorted(row["role"] for row in rows) == ["coder", "critic"]
            assert (await me.ask("verify"))["entries"] >= 4


async def test_two_gateways_write_one_chain(nats_server: NatsServer, tmp_path: Path) -> None:
    async with (
        caller(nats_server) as me,
        gateway(nats_server, tmp_path / "one") as one,
        gateway(nats_server, tmp_path / "two", audit_keys_trusted=[]) as two,
    ):
        said = await asyncio.gather(*(me.call("coder", "fs", {"read": f"/code/{n}"}) for n in range(60)))
        assert all(one["ok"] for one in said)
        assert one.tool.calls
        assert two.tool.calls
        entries = await me.audit()
        assert [entry.n for entry in entries] == list(range(1, 121))
        assert (await me.ask("verify"))["entries"] == 120
        stats = await me.ask("stats")
        assert (stats["total_tool_calls"], stats["policy_violations_blocked"]) == (60, 0)


async def test_a_new_policy_is_in_force_everywhere_within_two_seconds(nats_server: NatsServer, tmp_path: Path) -> None:
    async with (
        caller(nats_server) as me,
        gateway(nats_server, tmp_path / "one") as one,
        gateway(nats_server, tmp_path / "two") as two,
    ):
        shipped = await me.ask("roles")
        assert (shipped["version"], "coder" in shipped["roles"]["roles"]) == (0, True)
        await me.call("critic", "fs", READ)
        text = shipped["text"].replace('[roles.critic]\ntools = ["fs", "lua"]', '[roles.critic]\ntools = ["lua"]')
        assert text != shipped["text"]
        changed = await me.ask("diff", text=text, since="1h")
        assert [(one["role"], one["was"], one["now_code"]) for one in changed["changed"]] == [
            ("critic", "allow", "forbidden_tool")
        ]
        assert changed["not_judged"] == {}
        put = await me.ask("put", text=text)
        assert put["version"] == 1
        await eventually(
            lambda: all(made.app.metrics.value("htdag_policy_version") == 1 for made in (one, two)), timeout_s=2
        )
        for _ in range(6):
            assert (await me.call("critic", "fs", READ))["error"]["code"] == "forbidden_tool"
        assert (await me.ask("put", text=text + "\n# the same\n"))["version"] == 1
