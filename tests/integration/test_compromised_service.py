"""What a service that an attacker runs can do to the others: nothing."""

import json
from pathlib import Path
from typing import Any

import msgspec

from contracts.policy import CallOf, ToolCall
from contracts.requests import RunCancel
from contracts.rights import BOOTSTRAP, OPERATOR
from contracts.streams import EVENTS_EXECUTOR, EVENTS_PLANNER, STREAMS
from contracts.subjects import ROOT, tool_call, tool_call_of_task
from services.runtime import provision
from services.runtime.bus import Bus
from services.runtime.clock import SystemClock
from services.runtime.genuine import HEADER_STREAM, void
from services.runtime.ids import RandomIds
from services.runtime.metrics import Metrics
from services.runtime.nats_client import settle
from services.runtime.rpc import Caller, Rpc
from tests.support.eventually import eventually
from tests.support.guarded import Guarded
from tests.support.listening import listen
from tests.unit.policy_gateway.gateway_desk import Caller as ToolCaller
from tests.unit.policy_gateway.gateway_desk import Gateway

API = "$JS.API"


async def test_a_planner_gone_bad_forges_and_reads_and_destroys_nothing(guarded: Guarded) -> None:
    await provision.apply(await guarded.bus(BOOTSTRAP))
    said: list[str] = []
    bad = await guarded.connect("planner", said)
    heard: list[str] = []
    executor = await guarded.bus("executor")
    operator = await guarded.connect(OPERATOR)
    for prefix in ("_INBOX.>", "_INBOX_executor.>", f"{ROOT}.tool.>", ">"):
        await listen(bad, prefix, lambda message: heard.append(str(message)))
    forged = {
        f"{ROOT}.evt.policy-gateway.audit.x": b'{"decision":"allow"}',
        f"{ROOT}.evt.executor.run.r1": b"{}",
        f"{ROOT}.llm.resp.r1.n1": b'{"output":"paid"}',
        f"{ROOT}.tool.admin.shell": b'{"args":["id"]}',
        "$JS.ACK.HTDAG_CMD.executor-0.1.1.1.1.1": b"+ACK",
    }
    for subject, body in forged.items():
        await bad.publish(subject, body)
    for verb in ("PURGE", "DELETE", "UPDATE"):
        for spec in STREAMS:
            await bad.publish(f"{API}.STREAM.{verb}.{spec.name}", b"{}")
    await settle(bad)
    # Replies to others pass by meanwhile.
    await executor.api("INFO")
    await operator.request(f"{API}.INFO", b"")
    refusals = [text for text in said if "violation" in text.lower()]
    assert len(refusals) == 4 + len(forged) + 3 * len(STREAMS)
    assert heard == []
    for spec in STREAMS:
        info = json.loads((await operator.request(f"{API}.STREAM.INFO.{spec.name}", b"")).data)
        assert info["state"]["messages"] == 0


async def test_a_lie_that_the_broker_was_made_to_carry_is_not_believed(guarded: Guarded) -> None:
    """Where an answer goes is checked against nobody's rights: a service may send a message of its own stream anywhere.

    So it gets into the executor's log; but what it can say of itself is not what the executor's own messages say.
    """
    await provision.apply(await guarded.bus(BOOTSTRAP))
    bad, executor = await guarded.bus("planner"), await guarded.bus("executor")
    own, target = f"{ROOT}.evt.planner.epic.e1", f"{ROOT}.evt.executor.run.r1"
    heard: list[str] = []
    planner = await guarded.bus("planner")
    follower = await planner.follow(EVENTS_EXECUTOR, target, lambda record: heard.append(record.data.decode()))
    for headers in ({}, {HEADER_STREAM: EVENTS_PLANNER}):
        await bad.client.request(own, b"a lie", headers=headers)
    refusal = json.loads((await bad.client.request(own, b"a lie", headers={HEADER_STREAM: EVENTS_EXECUTOR})).data)
    assert refusal["error"]["err_code"] == 10060
    for seq in (1, 2):
        bad.publish(f"{API}.DIRECT.GET.{EVENTS_PLANNER}", b'{"seq":%d}' % seq, reply=target)
    config = {"deliver_subject": f"{ROOT}.evt.executor.run.r2", "ack_policy": "none", "deliver_policy": "all"}
    await bad.api(f"CONSUMER.CREATE.{EVENTS_PLANNER}", {"stream_name": EVENTS_PLANNER, "config": config})
    await bad.flush()
    operator = await guarded.bus(OPERATOR)

    async def arrived() -> bool:
        return int((await operator.api(f"STREAM.INFO.{EVENTS_EXECUTOR}"))["state"]["messages"]) > 0

    assert await eventually(arrived), "the broker checks replies now: services.runtime.genuine can go"
    true = await executor.store(target, b"a fact", stream=EVENTS_EXECUTOR, msg_id="m1")
    await eventually(lambda: follower.last_seq >= true.seq)
    assert heard == ["a fact"]
    read = [one async for one in executor.history(EVENTS_EXECUTOR, f"{ROOT}.evt.executor.>")]
    assert [one.data for one in read if not one.forged] == [b"a fact"]
    assert not [one for one in read if b"a lie" in one.data]
    found = await executor.last_of_many(EVENTS_EXECUTOR, [target, f"{ROOT}.evt.executor.run.r2"])
    assert [one.data for one in found.values()] == [b"a fact"]
    for seq in range(1, true.seq):
        assert (await executor.at(EVENTS_EXECUTOR, seq)) == void(seq, read[seq - 1].subject)


async def test_a_request_that_the_broker_was_made_to_carry_is_not_answered(guarded: Guarded) -> None:
    await provision.apply(await guarded.bus(BOOTSTRAP))
    asked: list[str] = []

    async def cancel(request: RunCancel, _caller: Caller) -> None:
        asked.append(request.run_id)

    bad, client = await guarded.bus("planner"), await guarded.connect("executor")
    rpc = Rpc(
        client,
        service="executor",
        version="1.0.0",
        metrics=Metrics(),
        log=Silent(),
        clock=SystemClock(),
        ids=RandomIds(),
    )
    rpc.handle("run", "cancel", cancel)
    await rpc.start()
    own, verb = f"{ROOT}.evt.planner.epic.e1", f"{ROOT}.executor.run.cancel"
    await bad.client.request(own, b'{"run_id":"wrong"}')
    bad.publish(f"{API}.DIRECT.GET.{EVENTS_PLANNER}", b'{"seq":1}', reply=verb)
    await bad.flush()
    people = await guarded.connect(OPERATOR)
    await people.request(verb, b'{"run_id":"right"}', timeout=5)
    assert asked == ["right"]
    await rpc.stop()


async def ask(bus: Bus, subject: str, body: bytes) -> Any:
    """The whole envelope of an answer."""
    return json.loads((await bus.request(subject, body)).data)


class Silent:
    """A log that keeps nothing."""

    def info(self, event: str, **fields: Any) -> None:
        """Nothing."""

    debug = warning = error = info


async def test_what_an_admin_does_outside_of_a_task_only_a_person_can_ask_for(guarded: Guarded, tmp_path: Path) -> None:
    """By the broker: the executor's key may call for tasks only, whatever inbox it names and however it asks."""
    people = await guarded.bus(OPERATOR)
    await provision.apply(await guarded.bus(BOOTSTRAP))
    gateway = Gateway(guarded.server, tmp_path / "home", keys=tmp_path / "keys")
    await gateway.start()
    said: list[str] = []
    client = await guarded.connect("executor", said)
    bad = Bus(client)
    await bad.start()
    me, thief = ToolCaller(people), ToolCaller(bad)
    body = msgspec.json.encode(ToolCall({"read": "/code/a"}))
    try:
        assert (await me.call("admin", "fs", {"read": "/code/a"}))["ok"]
        assert len(gateway.tool.calls) == 1
        for inbox in ("_INBOX.theirs", "_INBOX_executor.mine"):
            bad.publish(tool_call("admin", "fs"), body, reply=inbox)
        await bad.flush()
        assert len([text for text in said if "permissions violation" in text.lower()]) == 2
        refused = await ask(bad, tool_call_of_task("admin", "fs"), body)
        assert (refused["error"]["code"], refused["error"]["field"]) == ("bad_request", "task")
        # Stored in its own log and sent on by the broker, it comes without an inbox or with the broker's marks.
        own = f"{ROOT}.evt.executor.run.r9"
        await bad.client.request(own, body)
        config = {"deliver_subject": tool_call("admin", "fs"), "ack_policy": "none", "deliver_policy": "all"}
        await bad.api(f"CONSUMER.CREATE.{EVENTS_EXECUTOR}", {"stream_name": EVENTS_EXECUTOR, "config": config})
        bad.publish(f"{API}.DIRECT.GET.{EVENTS_EXECUTOR}", b'{"seq":1}', reply=tool_call("admin", "fs"))
        await bad.flush()
        assert (await me.call("admin", "fs", {"read": "/code/a"}))["ok"]
        assert len(gateway.tool.calls) == 2
        # An admin task of a run is the executor's to carry out, once a human has released it.
        await thief.task_runs(role="admin")
        task = CallOf("r1", "a", 1, 1)
        asked = ToolCall({"read": "/code/a"}, {}, task)
        body = msgspec.json.encode(asked)
        unasked = await ask(bad, tool_call_of_task("admin", "fs"), body)
        assert unasked["error"]["code"] == "call_not_requested"
        await thief.asks_for("fs", asked, task)
        waits = await ask(bad, tool_call_of_task("admin", "fs"), body)
        assert waits["error"]["code"] == "approval_required"
        assert len(gateway.tool.calls) == 2
    finally:
        await gateway.stop()
