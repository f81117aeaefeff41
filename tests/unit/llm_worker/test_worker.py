"""What a worker does with requests that are broken, doubled, late or hostile: nothing is paid twice, nothing sticks."""

import time
from typing import Any

import pytest

from contracts.errors import Rejected
from services.llm_worker import worker as worker_module
from services.llm_worker.config import Config, ModelConfig
from services.runtime.bus import Bus, Message
from tests.support.eventually import eventually
from tests.unit.llm_worker.crew import LIFTED, Crew


@pytest.fixture
async def crew(bus: Bus) -> Crew:
    crew = Crew(bus)
    await crew.worker.start()
    return crew


async def test_a_broken_request_of_the_same_id_does_not_drive_out_the_call_under_way(crew, bus):
    heard: list[Message] = []
    inbox = bus.inbox()
    await bus.subscribe(inbox, heard.append)
    await crew.ask("c")
    await eventually(lambda: crew.gate.calls)
    await crew.ask("c", model="nosuch", headers={"Htdag-Reply-To": inbox})
    await eventually(lambda: heard)
    assert b"unknown_model" in heard[0].data
    await crew.ask("c", more="the same call once again")
    await eventually(lambda: len(crew.worker.flights.of("c").waiters) == 2)
    crew.gate.open.set()
    await eventually(lambda: _settled(crew))
    assert crew.gate.calls == ["c"]
    assert (await answered(crew, "c"))["output"] == "done"


async def test_whatever_becomes_of_a_call_its_attempt_stands_in_the_answer(crew, bus):
    crew.gate.open.set()
    crew.gate.failing["mock:fail"] = "provider_rejected"
    await crew.ask("good", attempt=2)
    await crew.ask("fails", model="mock:fail", attempt=3)
    await crew.ask("refused", attempt=4, input={"messages": []})
    await crew.ask("unnamed")
    attempts = {corr_id: (await answered(crew, corr_id))["attempt"] for corr_id in ("good", "fails", "refused")}
    assert attempts == {"good": 2, "fails": 3, "refused": 4}
    assert (await answered(crew, "unnamed"))["attempt"] == 1


async def test_the_same_corr_id_is_the_same_call_whatever_attempt_says(crew, bus):
    heard: list[Message] = []
    inbox = bus.inbox()
    await bus.subscribe(inbox, heard.append)
    crew.gate.open.set()
    await crew.ask("c", headers={"Htdag-Reply-To": inbox})
    await eventually(lambda: heard)
    await crew.ask("c", headers={"Htdag-Reply-To": inbox}, attempt=2)
    await eventually(lambda: len(heard) == 2)
    assert heard[1].data == heard[0].data
    assert (crew.gate.calls, (await answered(crew, "c"))["attempt"]) == (["c"], 1)


async def test_a_recorded_answer_has_the_attempt_of_whoever_asked(crew, bus):
    crew.gate.open.set()
    await crew.ask("first", params={"cache": True})
    await answered(crew, "first")
    await crew.ask("later", params={"cache": True}, attempt=5)
    later = await answered(crew, "later")
    assert (later["cached_from"], later["attempt"]) == ("first", 5)


HOSTILE = ["a b", "htdag.v1.cmd.executor.run.r.cancel", "llm.req.mock", "$JS.API.STREAM.DELETE.X", "a.>", "x" * 5000]


@pytest.mark.parametrize("reply", HOSTILE)
async def test_a_reply_subject_that_is_none_is_dropped_and_the_answer_is_kept(crew, bus, reply):
    heard: list[Message] = []
    for subject in (">",):
        await bus.subscribe(subject, heard.append)
    crew.gate.open.set()
    await crew.ask("bad", headers={"Htdag-Reply-To": reply, "Htdag-Deadline": "9" * 5000})
    await crew.ask("good")
    await answered(crew, "good")
    await answered(crew, "bad")
    await eventually(lambda: _settled(crew))
    assert (await answered(crew, "bad"))["output"] == "done"
    assert sorted(crew.gate.calls) == ["bad", "good"]
    assert reply not in [message.subject for message in heard]
    # It was paid: asked again, it is found, and what stands beside it in the batch is served too.
    await crew.ask("bad", headers={"Htdag-Reply-To": reply}, more=1)
    await crew.ask("other", headers={"Htdag-Reply-To": reply}, input={"messages": []})
    await crew.ask("next")
    await answered(crew, "other")
    await answered(crew, "next")
    await eventually(lambda: _settled(crew))
    assert sorted(crew.gate.calls) == ["bad", "good", "next"]


@pytest.mark.parametrize("what", ["refusal", "expiry", "call"])
async def test_a_call_whose_answer_cannot_be_kept_at_first_is_answered_and_nobody_is_asked_twice(
    crew, monkeypatch, what
):
    wrong = {"input": {"messages": []}} if what == "refusal" else {}
    headers = {"Htdag-Deadline": "1700000000000"} if what == "expiry" else {}
    store, tries = crew.journal.store, 0

    def break_once(*args, **kwargs):
        nonlocal tries
        tries += 1
        if tries == 1:
            raise RuntimeError("the journal broke")
        return store(*args, **kwargs)

    monkeypatch.setattr(crew.journal, "store", break_once)
    crew.gate.open.set()
    await crew.ask("c", headers=headers, **wrong)
    await eventually(lambda: tries >= 1)
    await eventually(lambda: len(crew.worker.flights) == 0)
    await eventually(lambda: _settled(crew))
    assert await answered(crew, "c")
    assert crew.gate.calls == (["c"] if what == "call" else [])


async def test_a_token_that_cannot_be_sent_does_not_cost_the_answer(crew, bus, monkeypatch):
    publish = bus.publish

    def refuse_tokens(subject, data, **kwargs):
        if ".llm.tokens." in subject:
            raise Rejected("mailbox_full")
        publish(subject, data, **kwargs)

    monkeypatch.setattr(bus, "publish", refuse_tokens)
    crew.gate.open.set()
    await crew.ask("c", params={"stream": True})
    await eventually(lambda: _settled(crew))
    assert (await answered(crew, "c"))["output"] == "done"
    assert crew.gate.calls == ["c"]
    assert crew.metrics.value("htdag_llm_tokens_dropped_total", model="mock") == 1


async def test_an_answer_that_leaves_no_room_for_headers_goes_by_reference(crew, bus):
    crew.gate.output = "x" * (bus.payload_max - 12_000)
    crew.gate.open.set()
    await crew.ask("c")
    await eventually(lambda: _settled(crew), timeout_s=10)
    answer = await answered(crew, "c")
    assert answer["output_ref"]["bytes"] == len(crew.gate.output)
    assert crew.gate.output.startswith(answer["output"])


SLOW = Config(
    limits=LIFTED, models={"slow": ModelConfig(provider="mock", slots=1), "quick": ModelConfig(provider="mock")}
)


async def test_a_call_that_nobody_waits_for_when_its_turn_comes_is_not_begun(bus):
    crew = Crew(bus, SLOW)
    await crew.worker.start()
    await crew.ask("first", model="slow")
    await eventually(lambda: crew.gate.calls)
    until_ms = int(time.time() * 1000) + 400
    await crew.ask("late", model="slow", headers={"Htdag-Deadline": str(until_ms)})
    await eventually(lambda: crew.worker.flights.of("late") is not None)
    await eventually(lambda: time.time() * 1000 > until_ms)
    crew.gate.open.set()
    await eventually(lambda: _settled(crew))
    # It never had a place: that is not the same as a model that was too slow.
    assert (await answered(crew, "late"))["error"]["code"] == "provider_overloaded"
    assert crew.gate.calls == ["first"]


async def test_one_slow_model_leaves_room_for_the_others(bus):
    crew = Crew(bus, Config(limits=LIFTED, models=SLOW.models, waiting_max=16, waiting_per_model_max=4))
    crew.gate.always_open.add("quick")
    await crew.worker.start()
    for number in range(40):
        await crew.ask(f"s{number}", model="slow")
    await crew.ask("q", model="quick")
    await eventually(lambda: crew.answer("q"))
    assert "q" in crew.gate.calls
    # What was stopped needs no room to say so.
    crew.worker.flights.cancel("stopped")
    await crew.ask("stopped", model="slow")
    assert (await eventually(lambda: crew.answer("stopped")))["error"]["code"] == "cancelled"
    crew.gate.open.set()
    await eventually(lambda: _settled(crew), timeout_s=30)
    assert sorted(crew.gate.calls) == sorted(["q", *(f"s{number}" for number in range(40))])


async def answered(crew: Crew, corr_id: str) -> dict[str, Any]:
    return await eventually(lambda: crew.answer(corr_id), timeout_s=10)


async def _settled(crew: Crew) -> bool:
    return await crew.unsettled() == 0


async def test_while_the_disk_is_full_the_asker_hears_it_once_and_the_paid_answer_is_kept(crew, bus, monkeypatch):
    store, full = crew.journal.store, True

    def refuse(*args, **kwargs):
        if full:
            raise Rejected("storage_full")
        return store(*args, **kwargs)

    monkeypatch.setattr(crew.journal, "store", refuse)
    heard: list[Message] = []
    inbox = bus.inbox()
    await bus.subscribe(inbox, heard.append)
    crew.gate.open.set()
    await crew.ask("c", headers={"Htdag-Reply-To": inbox})
    await eventually(lambda: heard)
    assert b"storage_full" in heard[0].data
    full = False
    await eventually(lambda: _settled(crew))
    assert (await answered(crew, "c"))["output"] == "done"
    assert (crew.gate.calls, len(heard)) == (["c"], 1)


async def test_while_the_journal_stands_still_no_call_is_begun(crew, bus, monkeypatch):
    full = True
    monkeypatch.setattr(bus, "stopped_now", lambda _stream: full)
    monkeypatch.setattr(worker_module, "NO_ROOM_S", 0.2)
    heard: list[Message] = []
    inbox = bus.inbox()
    await bus.subscribe(inbox, heard.append)
    crew.gate.open.set()
    await crew.ask("c", headers={"Htdag-Reply-To": inbox})
    await eventually(lambda: heard)
    assert b"storage_full" in heard[0].data
    assert crew.gate.calls == []
    full = False
    await eventually(lambda: _settled(crew))
    assert (await answered(crew, "c"))["output"] == "done"
    assert (crew.gate.calls, len(heard)) == (["c"], 1)
