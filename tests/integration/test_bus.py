"""The bus on a real broker: requests, durable timers, dead letters, provisioning, placement."""

import asyncio
import time

import pytest

from contracts import reply, streams, subjects
from contracts.errors import Rejected
from services.runtime import nats_client, provision, telemetry
from services.runtime.bus import Bus, Message
from services.runtime.clock import SystemClock
from services.runtime.placement import Placement, ranks
from services.runtime.pull import Delivery
from services.runtime.timers import JetStreamTimers
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer

EXECUTOR_TIMERS = next(spec for spec in streams.CONSUMERS if spec.stream == streams.TIMERS)
TRACE, OTHER = (f"00-{digit * 32}-{digit * 16}-01" for digit in "12")
FIRST_MAILBOX = next(spec for spec in streams.CONSUMERS if spec.stream == streams.COMMANDS)


async def test_applying_again_changes_nothing(bus: Bus) -> None:
    assert {change.action for change in await provision.apply(bus)} == {"same"}


async def test_a_changed_stream_is_shown_then_mended(bus: Bus) -> None:
    config = (await bus.api(f"STREAM.INFO.{streams.TIMERS}"))["config"]
    await bus.api(f"STREAM.UPDATE.{streams.TIMERS}", {**config, "max_msgs": 7})
    [change] = [change for change in await provision.apply(bus, dry=True) if change.action != "same"]
    assert change.name == streams.TIMERS
    assert change.differs["max_msgs"][0] == 7
    await provision.apply(bus)
    assert {change.action for change in await provision.apply(bus, dry=True)} == {"same"}


async def test_a_request_that_nobody_answers_says_so_at_once(bus: Bus) -> None:
    with pytest.raises(Rejected) as refused:
        await bus.request("nobody.there", b"", timeout_s=5)
    assert refused.value.code == "no_responders"
    with pytest.raises(Rejected) as refused:
        await bus.call(subjects.rpc("planner", "goal", "submit"), {})
    assert refused.value.code == "service_unavailable"


async def test_a_request_ends_at_its_deadline(bus: Bus) -> None:
    await bus.subscribe("silent", lambda _: None)
    with pytest.raises(Rejected) as refused:
        await bus.request("silent", b"", timeout_s=0.1)
    assert refused.value.code == "timeout"


async def test_a_refusal_of_a_service_keeps_its_code_and_detail(bus: Bus) -> None:
    def refuse(message: Message) -> None:
        bus.publish(message.reply, reply.refused(Rejected("cycle", path=["a", "b"])))

    await bus.subscribe("refusing", refuse)
    with pytest.raises(reply.RemoteRejected) as refused:
        await bus.call("refusing", {})
    assert refused.value.code == "cycle"
    assert refused.value.error["path"] == ["a", "b"]


async def test_a_timer_fires_once_at_its_time_and_moves_when_armed_again(bus: Bus) -> None:
    timers, fired = JetStreamTimers(bus, "executor", "run"), []

    def take(delivery: Delivery) -> None:
        fired.append((delivery.subject, time.time()))
        delivery.ack()

    await bus.pull(EXECUTOR_TIMERS, take)
    now_ms = SystemClock().now_ms()
    await timers.arm("moved", now_ms + 60_000)
    await timers.arm("moved", now_ms + 300)
    await timers.arm("gone", now_ms + 200)
    await timers.disarm("gone")
    await timers.arm("past", now_ms - 5_000)
    await eventually(lambda: len(fired) == 2)
    at = dict(fired)
    assert set(at) == {subjects.timer_fired("executor", "run", name) for name in ("moved", "past")}
    assert at[subjects.timer_fired("executor", "run", "moved")] >= (now_ms + 295) / 1000


async def test_a_dead_letter_keeps_the_message_and_the_reason(bus: Bus) -> None:
    put_aside = asyncio.Event()

    def take(delivery: Delivery) -> None:
        async def bury() -> None:
            await bus.dead_letter(delivery, "poison", "not JSON")
            put_aside.set()

        task = asyncio.create_task(bury())
        task.add_done_callback(lambda done: done.result())

    run_id = next(f"r{number}" for number in range(100) if subjects.partition(f"r{number}") == 0)
    await bus.pull(FIRST_MAILBOX, take, priority=0)
    await bus.store(subjects.command("executor", "run", run_id, "start"), b"{oops", stream=streams.COMMANDS, msg_id="m")
    async with asyncio.timeout(5):
        await put_aside.wait()
    letter = await bus.last(streams.DEAD_LETTERS, subjects.dead_letter(streams.COMMANDS))
    assert letter is not None
    assert (letter.data, letter.headers["Htdag-Reason"]) == (b"{oops", "poison")

    async def settled() -> bool:
        info = await bus.api(f"CONSUMER.INFO.{FIRST_MAILBOX.stream}.{FIRST_MAILBOX.name}")
        return info["num_ack_pending"] == info["num_pending"] == 0

    await eventually(settled)


async def test_a_stored_message_with_the_same_id_is_stored_once(bus: Bus) -> None:
    subject = subjects.llm_response("r1", "n1")
    first = await bus.store(subject, b"{}", stream=streams.LLM_RESPONSES, msg_id="a")
    again = await bus.store(subject, b"{}", stream=streams.LLM_RESPONSES, msg_id="a")
    assert (first.duplicate, again.duplicate, again.seq) == (False, True, first.seq)


async def test_credit_bounds_what_is_handed_out(bus: Bus) -> None:
    held: list[Delivery] = []
    puller = await bus.pull(FIRST_MAILBOX, held.append, credit=5, priority=0)
    names = [f"r{number}" for number in range(400) if subjects.partition(f"r{number}") == 0][:20]
    for name in names:
        await bus.store(subjects.command("executor", "run", name, "start"), b"{}", stream=streams.COMMANDS, msg_id=name)
    await eventually(lambda: len(held) == 5)
    for delivery in tuple(held):
        delivery.ack()
    await eventually(lambda: len(held) == 10)
    assert puller.unsettled == 5


def test_every_partition_has_one_first_replica_and_moves_little() -> None:
    replicas = frozenset({"a", "b", "c"})
    table = {name: ranks(name, replicas) for name in replicas}
    for number in range(8):
        assert sorted(table[name][number] for name in replicas) == [0, 1, 2]
    without = {name: ranks(name, replicas - {"c"}) for name in ("a", "b")}
    for name in ("a", "b"):
        kept = [n for n in range(8) if table[name][n] == 0]
        assert all(without[name][n] == 0 for n in kept)


async def test_replicas_find_each_other_and_notice_who_leaves(bus: Bus) -> None:
    views: dict[str, tuple[int, ...]] = {}
    placements = {
        name: Placement(bus, SystemClock(), "executor", name, lambda found, name=name: views.update({name: found}))
        for name in ("a", "b")
    }
    tasks = {name: asyncio.create_task(placement.run()) for name, placement in placements.items()}
    await eventually(lambda: len(views) == 2 and all(x + y == 1 for x, y in zip(views["a"], views["b"], strict=True)))
    tasks["b"].cancel()
    await eventually(lambda: views["a"] == (0,) * 8)
    tasks["a"].cancel()
    await asyncio.wait(tasks.values())


async def test_a_message_that_is_too_large_with_its_headers_is_refused_and_the_connection_lives(bus: Bus) -> None:
    body = b"x" * (bus.payload_max - 10)
    with pytest.raises(Rejected) as refused:
        bus.publish("somewhere", body, headers={"Name": "value"})
    assert refused.value.code == "too_large"
    with pytest.raises(Rejected) as refused:
        await bus.store(subjects.llm_response("r", "n"), body, stream=streams.LLM_RESPONSES, msg_id="big")
    assert refused.value.code == "too_large"
    assert (await bus.store(subjects.llm_response("r", "n"), b"{}", stream=streams.LLM_RESPONSES, msg_id="ok")).seq == 1


async def test_a_huge_poisoned_message_is_put_aside_without_its_body(bus: Bus) -> None:
    held: list[Delivery] = []
    run_id = next(f"r{number}" for number in range(100) if subjects.partition(f"r{number}") == 0)
    await bus.pull(FIRST_MAILBOX, held.append, priority=0)
    body = b"x" * (bus.payload_max - 1000)
    subject = subjects.command("executor", "run", run_id, "start")
    await bus.store(subject, body, stream=streams.COMMANDS, msg_id="huge")
    await eventually(lambda: held)
    await bus.dead_letter(held[0], "poison", "y" * 500)
    letter = await bus.last(streams.DEAD_LETTERS, subjects.dead_letter(streams.COMMANDS))
    assert letter is not None
    assert (letter.data, letter.headers["Htdag-Seq"]) == (b"", str(held[0].seq))


async def test_the_newest_of_many_large_messages_are_all_found(bus: Bus) -> None:
    wanted = [subjects.llm_response("big", f"n{number}") for number in range(90)]
    await asyncio.gather(
        *(bus.store(name, b"x" * 1_000_000, stream=streams.LLM_RESPONSES, msg_id=name) for name in wanted)
    )
    assert set(await bus.last_of_many(streams.LLM_RESPONSES, [*wanted, subjects.llm_response("no", "one")])) == set(
        wanted
    )


async def test_a_handler_that_fails_costs_neither_the_connection_nor_the_credit(nats_server: NatsServer) -> None:
    said: list[str] = []
    bus = Bus(await nats_client.connect(nats_server.url, name="test"), on_failure=said.append)
    await bus.start()
    await provision.apply(bus)

    def fail(_: object) -> None:
        raise ZeroDivisionError

    puller = await bus.pull(FIRST_MAILBOX, fail, credit=1, priority=0)
    await bus.follow(streams.COMMANDS, ">", fail)
    await bus.subscribe("broken", fail)
    bus.publish("broken", b"")
    run_id = next(f"r{number}" for number in range(100) if subjects.partition(f"r{number}") == 0)
    await bus.store(subjects.command("executor", "run", run_id, "x"), b"{}", stream=streams.COMMANDS, msg_id="m")
    await eventually(lambda: len(said) >= 3)
    assert puller.unsettled == 0
    await bus.close()


async def test_a_stream_that_cannot_be_changed_is_named(nats_server: NatsServer) -> None:
    bus = Bus(await nats_client.connect(nats_server.url, name="test"))
    await bus.start()
    spec = next(spec for spec in streams.STREAMS if spec.name == streams.COMMANDS)
    await bus.api(f"STREAM.CREATE.{spec.name}", {"name": spec.name, **spec.config, "retention": "workqueue"})
    with pytest.raises(Rejected) as refused:
        await provision.apply(bus)
    assert (refused.value.code, refused.value.detail["stream"]) == ("stream_differs", streams.COMMANDS)
    assert "retention" in refused.value.detail["differs"]
    await bus.close()


async def test_disarming_takes_away_only_what_was_armed_here(bus: Bus) -> None:
    mine, others = JetStreamTimers(bus, "executor", "run"), JetStreamTimers(bus, "executor", "run")
    now_ms = SystemClock().now_ms()
    await mine.arm("shared", now_ms + 60_000)
    await others.arm("shared", now_ms + 50_000)
    await mine.disarm("shared")
    kept = await bus.last(streams.TIMERS, subjects.timer_armed("executor", "run", "shared"))
    assert kept is not None
    await others.disarm("shared")
    assert await bus.last(streams.TIMERS, subjects.timer_armed("executor", "run", "shared")) is None


async def test_what_is_sent_while_something_traced_is_handled_carries_its_trace_on(bus: Bus) -> None:
    heard: list[Message] = []

    def answer(message: Message) -> None:
        heard.append(message)
        if message.reply:
            bus.publish(message.reply, b"{}")

    await bus.subscribe("traced.*", answer)
    subject = subjects.command("executor", "run", "r1", "start")
    with telemetry.span("process x", headers={"traceparent": TRACE}):
        bus.publish("traced.publish", b"")
        await bus.request("traced.request", b"", headers={"Htdag-By": "ada"})
        await bus.store(subject, b"", stream=streams.COMMANDS, msg_id="m1")
        await bus.store(subject, b"", stream=streams.COMMANDS, msg_id="m2", headers={"traceparent": OTHER})
    await bus.request("traced.without", b"")
    stored = [record async for record in bus.history(streams.COMMANDS, "htdag.v1.in.>")]
    assert [record.headers.get("traceparent") for record in stored] == [TRACE, OTHER]
    assert [message.headers.get("traceparent") for message in heard] == [TRACE, TRACE, None]
    assert heard[1].headers["Htdag-By"] == "ada"
