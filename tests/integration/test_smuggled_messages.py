"""Any service's key can have the broker's own answers stored in another's log: it must gain nothing by that.

`publish("$JS.API.INFO", b"", reply="htdag.v1.evt.policy-gateway.audit.main")` is all it takes: the broker checks where
an answer goes against nobody's rights.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.errors import Rejected
from contracts.policy import CallOf, ToolDecided, ToolFinished
from contracts.rights import BOOTSTRAP, OPERATOR
from contracts.streams import (
    COMMANDS,
    CONSUMERS,
    EVENTS_EXECUTOR,
    EVENTS_IDENTITY,
    EVENTS_PLANNER,
    EVENTS_POLICY_GATEWAY,
    LLM_CACHE,
    LLM_REQUESTS,
    LLM_RESPONSES,
    LLM_UNJUDGED,
    LLM_WITHDRAWALS,
    SNAPSHOTS,
    TOOL_CALLS,
)
from contracts.subjects import (
    SERVICES,
    command,
    events,
    llm_cache,
    llm_request,
    llm_response,
    llm_unjudged,
    llm_withdrawn,
    snapshot,
)
from services.console.connection import Console
from services.console.doctor.forgeries import forgeries
from services.policy_gateway.audit.log import AUDIT_SUBJECT
from services.policy_gateway.calls.call import id_of
from services.runtime import provision
from services.runtime.actor import ActorHost
from services.runtime.bus import Bus
from services.runtime.clock import SystemClock
from services.runtime.genuine import HEADER_STREAM
from services.runtime.ids import RandomIds
from services.runtime.jetstream import JetStreamEventStore
from services.runtime.link import header_block
from services.runtime.pull import Delivery
from services.runtime.snapshots import HEADER_AT_SEQ, HEADER_FORMAT, JetStreamSnapshots
from tests.support.eventually import eventually
from tests.support.guarded import Guarded
from tests.support.tally import CODEC, TALLY, Raise
from tests.unit.policy_gateway.gateway_desk import Caller, Gateway

READ = {"read": "/code/a.ex"}


@pytest.fixture
async def operator(guarded: Guarded) -> Bus:
    await provision.apply(await guarded.bus(BOOTSTRAP))
    return await guarded.bus(OPERATOR)


async def smuggle(bad: Bus, operator: Bus, stream: str, subject: str, times: int = 1) -> None:
    """Have the broker store its answers in somebody's log, and wait until they are there."""

    async def messages() -> int:
        return (await operator.subjects(stream, subject)).get(subject, 0)

    before = await messages()
    for _ in range(times):
        bad.publish("$JS.API.INFO", b"", reply=subject)
    await bad.flush()

    async def arrived() -> bool:
        return await messages() >= before + times

    assert await eventually(arrived), "the broker checks replies now: services.runtime.genuine can go"


@pytest.fixture
async def gateway(guarded: Guarded, operator: Bus, tmp_path: Path) -> AsyncIterator[Gateway]:
    made = Gateway(guarded.server, tmp_path / "home", keys=tmp_path / "keys")
    await made.start()
    yield made
    await made.stop()


@pytest.mark.law("I11")
@pytest.mark.law("I15")
@pytest.mark.parametrize("service", [name for name in SERVICES if name != "policy-gateway"])
async def test_nothing_smuggled_into_the_audit_stops_a_call_or_breaks_the_chain(
    guarded: Guarded, operator: Bus, gateway: Gateway, service: str
) -> None:
    me, bad = Caller(operator), await guarded.bus(service)
    await smuggle(bad, operator, EVENTS_POLICY_GATEWAY, AUDIT_SUBJECT)
    for _ in range(2):
        assert (await me.call("coder", "fs", READ))["ok"]
        await smuggle(bad, operator, EVENTS_POLICY_GATEWAY, AUDIT_SUBJECT, times=2)
    assert [type(entry) for entry in await me.audit()] == [ToolDecided, ToolFinished] * 2
    found = await me.ask("verify")
    assert (found["entries"], found["forged"], found["stream"]) == (4, 5, EVENTS_POLICY_GATEWAY)
    assert len(set(found["forged_at"])) == 5
    # Told once each, by whoever read them.
    metrics = gateway.app.metrics
    assert metrics.value("htdag_forged_messages_total", stream=EVENTS_POLICY_GATEWAY) == 5
    said = await forgeries(Console(operator, 5.0))
    assert said.status == "warn"
    assert f"5 in {EVENTS_POLICY_GATEWAY}" in said.message
    assert f"{AUDIT_SUBJECT} at {found['forged_at'][-1]}" in said.message


async def test_a_gateway_that_starts_over_a_smuggled_end_goes_on_with_the_chain(
    guarded: Guarded, operator: Bus, gateway: Gateway, tmp_path: Path
) -> None:
    me, bad = Caller(operator), await guarded.bus("planner")
    assert (await me.call("coder", "fs", READ))["ok"]
    await smuggle(bad, operator, EVENTS_POLICY_GATEWAY, AUDIT_SUBJECT, times=3)
    second = Gateway(guarded.server, tmp_path / "home", keys=tmp_path / "keys")
    await second.start()
    try:
        await gateway.stop()
        assert (await me.call("coder", "fs", READ))["ok"]
        found = await me.ask("verify")
    finally:
        await second.stop()
    assert (found["entries"] >= 4, found["forged"]) == (True, 3)


async def test_a_call_whose_record_was_smuggled_in_first_is_carried_out_once(
    guarded: Guarded, operator: Bus, gateway: Gateway
) -> None:
    executor = Caller(await guarded.bus("executor"))
    await executor.task_runs()
    task = CallOf("r1", "a", 1, 1)
    record = events("policy-gateway", "call", id_of(task, RandomIds()))
    run = events("executor", "run", "r1")
    bad = await guarded.bus("planner")
    await smuggle(bad, operator, TOOL_CALLS, record)
    await smuggle(bad, operator, EVENTS_EXECUTOR, run)
    first = await executor.call("coder", "fs", READ, task=task)
    assert first["ok"]
    await smuggle(bad, operator, TOOL_CALLS, record)
    assert await executor.call("coder", "fs", READ, task=task) == first
    assert len(gateway.tool.calls) == 1


@pytest.mark.parametrize(
    ("service", "aggregate", "stream"),
    [
        ("executor", "run", EVENTS_EXECUTOR),
        ("planner", "epic", EVENTS_PLANNER),
        ("identity", "user", EVENTS_IDENTITY),
        ("policy-gateway", "policy", EVENTS_POLICY_GATEWAY),
    ],
)
async def test_an_actor_goes_on_over_what_was_smuggled_into_its_log(
    guarded: Guarded, operator: Bus, service: str, aggregate: str, stream: str
) -> None:
    own = await guarded.bus(service)
    bad = await guarded.bus("llm-worker" if service != "llm-worker" else "planner")
    subject = events(service, aggregate, "t1")

    def host() -> ActorHost:
        return ActorHost(
            service=service, aggregate=aggregate, decider=TALLY, codec=CODEC, store=JetStreamEventStore(own, stream),
            clock=SystemClock(), ids=RandomIds(),
        )  # fmt: skip

    warm = host()
    await smuggle(bad, operator, stream, subject)
    await warm.ask("t1", Raise(1))
    await smuggle(bad, operator, stream, subject, times=2)
    with pytest.raises(Rejected, match="only upwards"):
        await warm.ask("t1", Raise(0))  # what changes nothing asks whether it is the newest
    assert (await warm.ask("t1", Raise(2))).state.total == 3
    await smuggle(bad, operator, stream, subject)
    cold = host()
    assert (await cold.read("t1"))[0].total == 3
    assert (await cold.ask("t1", Raise(3))).state.total == 6
    assert (await warm.ask("t1", Raise(4))).state.total == 10


LIES = {
    "plain": "{name}: {stream}\r\n",
    "twice, empty first": "{name}:\r\n{name}: {stream}\r\n",
    "space before the colon": "{name} : {stream}\r\n",
    "tab before the colon": "{name}\t: {stream}\r\n",
    "space before the name": " {name}: {stream}\r\n",
    "another case": "{lower}: {stream}\r\n",
    "in a value first": "X: {name}:\r\n{name}: {stream}\r\n",
    "as the end of a name first": "X-{name}: a\r\n{name}: {stream}\r\n",
    "after a bare line feed": "X: a\n{name}: {stream}\r\n",
    "after a bare return": "X: a\r{name}: {stream}\r\n",
    "folded": "X: a\r\n {name}: {stream}\r\n",
}
"""Blocks of headers that name somebody else's stream: refused by the broker, or not believed."""


@pytest.mark.parametrize("lie", [*LIES.values(), None], ids=[*LIES, "in the first line"])
async def test_no_block_of_headers_makes_a_smuggled_message_believed(
    guarded: Guarded, operator: Bus, lie: str | None
) -> None:
    bad = await guarded.bus("planner")
    mine, theirs = events("planner", "epic", "mine"), events("identity", "user", "bo")
    words = {"name": HEADER_STREAM, "lower": HEADER_STREAM.lower(), "stream": EVENTS_IDENTITY}
    block = f"NATS/1.0ab{HEADER_STREAM}: {EVENTS_IDENTITY}\r\n\r\n".encode()
    if lie is not None:
        block = header_block(lie.format(**words))
    bad.link.send_block(mine, b'{"at":"","by":"","cause":"","corr":"","events":[]}', "", block)
    await bad.flush()
    bad.publish(f"$JS.API.DIRECT.GET.{EVENTS_PLANNER}", b'{"last_by_subj":"%b"}' % mine.encode(), reply=theirs)
    await bad.flush()
    # Whether it comes is the broker's affair; what was sent after it is there when it would be.
    for _ in range(2):
        await smuggle(bad, operator, EVENTS_IDENTITY, theirs)
    records = [record async for record in operator.history(EVENTS_IDENTITY, theirs)]
    assert records
    assert all(record.forged for record in records)


async def send_on(bad: Bus, operator: Bus, stream: str, seq: int, subject: str, into: str) -> None:
    """Have the broker hand out a stored message to another subject, until it is stored there too."""

    async def arrived() -> bool:
        bad.publish(f"$JS.API.DIRECT.GET.{stream}", b'{"seq":%d}' % seq, reply=subject)
        await bad.flush()
        return (await operator.subjects(into, subject)).get(subject, 0) > 0

    assert await eventually(arrived), "the broker checks replies now: services.runtime.genuine can go"


@pytest.fixture
async def brief(guarded: Guarded) -> Bus:
    """Streams that forget their ids at once: what was sent an hour ago can be sent on."""
    maker = await guarded.bus(BOOTSTRAP)
    await provision.apply(maker)
    for stream in (EVENTS_IDENTITY, COMMANDS):
        config = (await maker.api(f"STREAM.INFO.{stream}"))["config"]
        await maker.api(f"STREAM.UPDATE.{stream}", {**config, "duplicate_window": 100_000_000})
    return await guarded.bus(OPERATOR)


async def test_a_genuine_fact_that_is_sent_on_to_another_subject_of_its_stream_says_nothing_there(
    guarded: Guarded, brief: Bus
) -> None:
    """It names its stream, and what it expects of its subject is true of each that is new."""
    own = await guarded.bus("identity")
    mine, theirs = events("identity", "user", "bo"), events("identity", "user", "zed")
    store = JetStreamEventStore(own, EVENTS_IDENTITY)
    fact = b'{"at":"","by":"","cause":"","corr":"","events":[]}'
    seq = await store.append(mine, (fact,), expect=0, msg_id="first", headers={})
    await send_on(brief, brief, EVENTS_IDENTITY, seq, theirs, EVENTS_IDENTITY)
    records = [record async for record in brief.history(EVENTS_IDENTITY, ">")]
    assert [(record.subject, record.forged) for record in records] == [(mine, False), (theirs, True)]
    assert await store.last(theirs) is None
    assert set(await store.last_of_many([mine, theirs])) == {mine}
    heard: list[str] = []
    follower = await own.follow(EVENTS_IDENTITY, ">", lambda record: heard.append(record.subject))
    await follower.caught_up.wait()
    await follower.stop()
    assert (heard, follower.forged) == ([mine], 1)
    assert await store.append(theirs, (fact,), expect=0, msg_id="second", headers={}), "it stops nobody"
    said = (await forgeries(Console(brief, 5.0))).message
    assert f"{theirs} at {seq + 1}" in said
    assert "only the newest" not in said, "streams that are empty were looked at whole"


async def test_a_command_that_the_broker_sends_on_is_heard_by_nobody(guarded: Guarded, brief: Bus) -> None:
    own = await guarded.bus("identity")
    subject = command("identity", "approval", "apr-7", "request")
    stored = await (await guarded.bus("executor")).store(subject, b"a wish", stream=COMMANDS, msg_id="wish")
    heard: list[str] = []

    def take(delivery: Delivery) -> None:
        heard.append(delivery.subject.split(".")[-2])
        delivery.ack()

    spec = next(one for one in CONSUMERS if one.owner == "identity")
    puller = await own.pull(spec, take, credit=8)
    another = subject.replace("apr-7", "apr-8")

    async def sent_on() -> bool:
        brief.publish(f"$JS.API.DIRECT.GET.{COMMANDS}", b'{"seq":%d}' % stored.seq, reply=another)
        await brief.flush()
        told = await brief.api(f"CONSUMER.INFO.{COMMANDS}.{spec.name}")
        return bool(told["ack_floor"]["stream_seq"] > stored.seq)

    assert await eventually(sent_on)
    await puller.close()
    assert heard == ["apr-7"]


@pytest.mark.parametrize("end", [b"X: a", b"X: a\n\n", b"X: a\r\n ", b"X: a\r\n\r\n", b"\r\n"])
async def test_no_end_of_a_block_of_headers_hides_the_brokers_mark(guarded: Guarded, operator: Bus, end: bytes) -> None:
    """The broker cuts two bytes off and writes its mark behind the rest: perhaps in the middle of a line."""
    own, bad = await guarded.bus("identity"), await guarded.bus("executor")
    mine, theirs = snapshot("executor", "run", "t1"), snapshot("identity", "user", "aka")
    kept: JetStreamSnapshots[bytes] = JetStreamSnapshots(
        own, format_id="f1", dump=bytes, restore=bytes, bytes_max=1 << 20
    )
    lines = [f"{HEADER_STREAM}: {SNAPSHOTS}", f"{HEADER_AT_SEQ}: 1", f"{HEADER_FORMAT}: f1"]
    block, lie = "\r\n".join(["NATS/1.0", *lines, ""]).encode() + end, b"a lie"
    command = b"HPUB %b %d %d\r\n" % (mine.encode(), len(block), len(block) + len(lie))
    await bad.client._send_command(command + block + lie + b"\r\n")
    await bad.flush()
    assert await eventually(lambda: operator.subjects(SNAPSHOTS, mine))
    bad.publish(f"$JS.API.DIRECT.GET.{SNAPSHOTS}.{mine}", b"", reply=theirs)
    await bad.flush()
    assert await eventually(lambda: operator.subjects(SNAPSHOTS, theirs))
    (record,) = [record async for record in operator.history(SNAPSHOTS, theirs)]
    assert record.forged
    heard: list[bool] = []
    await operator.follow(SNAPSHOTS, theirs, lambda found: heard.append(True), after=0)
    await operator.flush()
    assert await kept.load(events("identity", "user", "aka")) is None
    assert heard == []


async def test_a_smuggled_snapshot_is_no_state_of_anything(guarded: Guarded, operator: Bus) -> None:
    """With the headers of a real one: what stands in one's own log, the broker sends on with all its headers."""
    own, bad = await guarded.bus("executor"), await guarded.bus("planner")
    subject, beside = events("executor", "run", "t1"), snapshot("executor", "run", "t1")
    kept: JetStreamSnapshots[bytes] = JetStreamSnapshots(
        own, format_id="f1", dump=bytes, restore=bytes, bytes_max=1 << 20
    )
    headers = {HEADER_AT_SEQ: "1", HEADER_FORMAT: "f1"}
    await bad.client.request(events("planner", "epic", "e1"), b"a lie", headers=headers)
    bad.publish(f"$JS.API.DIRECT.GET.{EVENTS_PLANNER}", b'{"seq":1}', reply=beside)
    await bad.flush()
    assert await eventually(lambda: operator.subjects(SNAPSHOTS, beside))
    assert await kept.load(subject) is None
    kept.save(subject, 1, b"the state")

    async def believed() -> bool:
        found = await kept.load(subject)
        return found is not None and found[:2] == (b"the state", 1)

    assert await eventually(believed)


@pytest.mark.parametrize(
    ("stream", "subject"),
    [
        (LLM_RESPONSES, llm_response("r1", "n1")),
        (LLM_UNJUDGED, llm_unjudged("0" * 32)),
        (LLM_CACHE, llm_cache("0" * 64)),
        (LLM_WITHDRAWALS, llm_withdrawn("c1")),
    ],
)
async def test_an_answer_that_no_worker_stored_is_no_answer(
    guarded: Guarded, operator: Bus, stream: str, subject: str
) -> None:
    """Whoever may ask for an answer could have one of their own making sent into the journal."""
    own = await guarded.bus("llm-worker")
    operator.publish(llm_request("mock"), b"a lie")
    await operator.flush()
    assert await eventually(lambda: operator.subjects(LLM_REQUESTS, llm_request("mock")))
    operator.publish(f"$JS.API.DIRECT.GET.{LLM_REQUESTS}", b'{"seq":1}', reply=subject)
    await operator.flush()
    assert await eventually(lambda: operator.subjects(stream, subject))
    assert await own.last(stream, subject) is None
    assert await own.last_of_many(stream, [subject]) == {}
    stored = await own.store(subject, b"the answer", stream=stream, msg_id="c1")
    found = await own.last(stream, subject)
    assert found is not None
    assert (found.seq, found.data) == (stored.seq, b"the answer")
