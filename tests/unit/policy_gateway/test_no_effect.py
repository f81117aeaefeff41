"""What is denied has no effect: the whole corpus of attacks through a real gateway, whose tools are never called."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from contracts.policy import ToolDecided
from tests.support.nats_server import NatsServer
from tests.unit.policy_gateway.decision.verdicts import corpus
from tests.unit.policy_gateway.gateway_desk import caller, gateway

AT_ONCE = 50


@pytest.mark.law("I9")
@pytest.mark.law("I15")
async def test_no_attack_of_the_corpus_reaches_a_tool_and_each_is_in_the_audit(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    # What is no JSON, not-a-number among it, cannot be sent at all.
    calls = [call for call, _ in corpus("attacks.toml") if call.profile == "seed"]
    attacks = [call for call in calls if msgspec.json.decode(msgspec.json.encode(call.args)) == call.args]
    assert len(attacks) > 500
    async with caller(nats_server) as me, gateway(nats_server, tmp_path / "one") as one:
        for start in range(0, len(attacks), AT_ONCE):
            some = attacks[start : start + AT_ONCE]
            said = await asyncio.gather(*(me.call(call.role, call.tool, call.args, opts=call.opts) for call in some))
            assert [call for call, answer in zip(some, said, strict=True) if answer["ok"]] == []
        assert one.tool.calls == []
        decided = [entry for entry in await me.audit() if isinstance(entry, ToolDecided)]
        assert (len(decided), {entry.verdict for entry in decided}) == (len(attacks), {"deny"})
        assert (await me.ask("stats"))["policy_violations_blocked"] == len(attacks)
