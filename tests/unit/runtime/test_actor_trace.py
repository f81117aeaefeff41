"""The trace of whoever asked goes with what was decided: into the log, into every effect, and through a takeover."""

import asyncio
from typing import Any

from contracts import subjects
from services.runtime import telemetry
from services.runtime.memory import MemoryEventStore
from tests.support.eventually import eventually
from tests.support.tally import Answer, Ask, Raise
from tests.unit.runtime.test_actor import host_on

SUBJECT = subjects.events("executor", "tally", "t1")
ONE, OTHER = (f"00-{digit * 32}-{digit * 16}-01" for digit in "12")


class Traced:
    """Notes under which trace each effect begins; the test ends them, each in a task of its own trace."""

    def __init__(self) -> None:
        self.begun: dict[str, str] = {}
        self.ends: dict[str, Any] = {}

    def start(self, actor_id: str, effect: Any, done: Any) -> None:
        self.begun[effect.key], self.ends[effect.key] = telemetry.current(), done


async def traces(store: MemoryEventStore) -> list[str]:
    return [record.headers.get("traceparent", "") async for record in store.read(SUBJECT)]


async def test_a_request_that_is_traced_leaves_its_trace_in_the_log_and_in_its_effects() -> None:
    store, effects = MemoryEventStore(), Traced()
    host = host_on(store, effects=effects)
    with telemetry.span("process x", headers={"traceparent": ONE}):
        await host.ask("t1", Ask("a"))
    assert (await traces(store), effects.begun) == ([ONE], {"a": ONE})


async def test_what_follows_without_a_trace_of_its_own_belongs_to_the_last_one() -> None:
    store, effects = MemoryEventStore(), Traced()
    host = host_on(store, effects=effects)
    host.deliver("t1", Ask("a"), message_id="m1", trace=ONE)
    await eventually(lambda: "a" in effects.begun)
    await host.ask("t1", Ask("b"))
    host.deliver("t1", Ask("c"), message_id="m2", trace=OTHER)
    await eventually(lambda: "c" in effects.begun)
    assert await traces(store) == [ONE, ONE, OTHER]
    assert effects.begun == {"a": ONE, "b": ONE, "c": OTHER}


async def test_no_trace_leaks_from_whoever_only_woke_an_actor() -> None:
    store, effects = MemoryEventStore(), Traced()
    host = host_on(store, effects=effects)
    await host.ask("t1", Ask("a"))

    async def end() -> None:
        with telemetry.span("another", headers={"traceparent": ONE}):
            effects.ends["a"](Answer("a", "x"))

    await asyncio.create_task(end())
    await host.ask("t1", Ask("b"))
    assert (set(await traces(store)), effects.begun) == ({""}, {"a": "", "b": ""})


async def test_whoever_takes_over_goes_on_in_the_same_trace() -> None:
    store, before, after = MemoryEventStore(), Traced(), Traced()
    first = host_on(store, effects=before)
    first.deliver("t1", Ask("a"), message_id="m1", trace=ONE)
    await eventually(lambda: "a" in before.begun)
    heir = host_on(store, effects=after)
    await heir.ask("t1", Raise(1))
    await heir.ask("t1", Ask("b"))
    assert after.begun == {"a": ONE, "b": ONE}
    assert await traces(store) == [ONE, ONE, ONE]
