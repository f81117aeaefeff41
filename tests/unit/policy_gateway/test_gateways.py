"""Several gateways at once: one effect, one chain, one policy."""

import asyncio
from pathlib import Path

import pytest

from contracts.commit import Commit
from contracts.policy import ToolDecided
from contracts.reply import RemoteRejected
from contracts.streams import EVENTS_POLICY_GATEWAY
from services.policy_gateway.audit.log import AUDIT_CODEC, AUDIT_SUBJECT
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.unit.policy_gateway.gateway_desk import CALL, READ, caller, gateway


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


@pytest.mark.law("I11")
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
        await eventually(lambda: all(made.app.metrics.value("htdag_policy_version") == 1 for made in (one, two)))
        for _ in range(6):
            assert (await me.call("critic", "fs", READ))["error"]["code"] == "forbidden_tool"
        assert (await me.ask("put", text=text + "\n# the same\n"))["version"] == 1


@pytest.mark.law("I11")
async def test_whoever_changes_the_log_is_found_out(nats_server: NatsServer, tmp_path: Path) -> None:
    async with caller(nats_server) as me, gateway(nats_server, tmp_path / "one") as one:
        await me.call("coder", "fs", READ)
        assert await me.ask("verify", key="0" * 64) == await me.ask("verify"), "nothing is signed yet"
        forged = AUDIT_CODEC.encode(Commit(at="", by="", cause="", corr="", events=(await me.audit())[:1]))
        await me.bus.store(AUDIT_SUBJECT, forged, stream=EVENTS_POLICY_GATEWAY, msg_id="forged")
        with pytest.raises(RemoteRejected) as broken:
            await me.ask("verify")
        assert (broken.value.code, broken.value.error["n"]) == ("audit_broken", 3)
        assert (await me.call("coder", "fs", READ))["ok"], "calls go on; somebody has to look"
        assert len(one.tool.calls) == 2


async def test_only_keys_that_are_trusted_may_sign(nats_server: NatsServer, tmp_path: Path) -> None:
    async with caller(nats_server) as me, gateway(nats_server, tmp_path / "one"):
        await me.call("coder", "fs", READ)
    async with caller(nats_server) as me, gateway(nats_server, tmp_path / "two"):
        with pytest.raises(RemoteRejected, match="strange key"):
            await me.ask("verify")
        key = (tmp_path / "one" / "keys" / "audit-ed25519.pub").read_text().strip()
        found = await me.ask("verify", key=key)
        assert (found["checkpoints"], found["signed_up_to"], found["keys"]) == (1, 2, [key])


async def test_what_is_no_policy_is_refused_with_its_place(nats_server: NatsServer, tmp_path: Path) -> None:
    async with caller(nats_server) as me, gateway(nats_server, tmp_path / "one"):
        for text, field, line in (
            ("[roles.coder\n", "roles", 1),
            ('[roles.coder]\ntools = ["fs"]\nsurprise = 1\n', "roles", 3),
            ("", "roles", None),
        ):
            with pytest.raises(RemoteRejected) as refused:
                await me.ask("put", text=text)
            error = refused.value.error
            assert (error["code"], error["field"].startswith(field), error.get("line")) == ("bad_request", True, line)
        assert (await me.ask("roles"))["version"] == 0


async def test_the_audit_can_be_searched(nats_server: NatsServer, tmp_path: Path) -> None:
    async with caller(nats_server) as me, gateway(nats_server, tmp_path / "one"):
        await me.task_runs()
        await me.call("coder", "fs", READ, task=CALL)
        await me.call("coder", "http", {"url": "https://evil.com"}, by="eve")
        await me.call("critic", "shell", {"cmd": ["ls"]})
        rows = await me.ask("audit")
        assert [(row["role"], row["tool"], row["verdict"]) for row in rows] == [
            ("coder", "fs", "allow"),
            ("coder", "http", "deny"),
            ("critic", "shell", "deny"),
        ]
        assert (rows[0]["run_id"], rows[0]["task_id"], rows[0]["call"], rows[0]["duration_ms"] > 0) == (
            "r1",
            "a",
            1,
            True,
        )
        for filters, many in (
            ({"role": "coder"}, 2),
            ({"tool": "shell"}, 1),
            ({"run": "r1", "task": "a"}, 1),
            ({"verdict": "deny"}, 2),
            ({"code": "forbidden_tool"}, 2),
            ({"limit": 1}, 1),
            ({"since": "1h"}, 3),
            ({"since": "2099-01-01T00:00:00Z"}, 0),
        ):
            assert len(await me.ask("audit", **filters)) == many, filters
        assert (await me.ask("stats", since="1h")) == await me.ask("stats")
        assert (await me.ask("stats", since="2099-01-01T00:00:00Z"))["total_tool_calls"] == 0
        stats = await me.ask("stats")
        assert sum(stats["attacks_by_type"].values()) == stats["policy_violations_blocked"] == 2
        for body in ({"since": "yesterday"}, {"limit": 0}):
            with pytest.raises(RemoteRejected, match="bad_request"):
                await me.ask("audit", **body)
