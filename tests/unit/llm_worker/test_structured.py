"""Answers with a shape: schemas that can judge, those that cannot, and answers that keep to one or do not."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog

from contracts.errors import Rejected
from services.llm_worker.config import Config
from services.llm_worker.judging.judge import FIELD, SHOWN_CHARS_MAX, SLOW, Judge
from services.llm_worker.ledger.limits import LimitsConfig
from services.llm_worker.providers.mock import MockProvider
from services.runtime.bus import Bus
from tests.support.eventually import eventually
from tests.unit.llm_worker.crew import Crew

COLOUR = {
    "type": "object",
    "properties": {"colour": {"type": "string"}},
    "required": ["colour"],
    "additionalProperties": False,
}
TREE = {"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}}}


@pytest.fixture
async def judge() -> AsyncIterator[Judge]:
    made = Judge(structlog.get_logger())
    yield made
    await made.close()


async def refused(judge: Judge, schema: dict[str, Any]) -> Rejected:
    with pytest.raises(Rejected) as caught:
        await judge.check_schema(schema)
    assert (caught.value.code, caught.value.detail["field"]) == ("invalid_request", FIELD)
    return caught.value


async def wrong(judge: Judge, schema: dict[str, Any], output: str, reason: str = "stop") -> Rejected:
    with pytest.raises(Rejected) as caught:
        await judge.check_answer(schema, output, reason)
    assert caught.value.code == "output_invalid"
    return caught.value


def bomb(steps: int) -> dict[str, Any]:
    """Each definition asks twice for the next one."""
    defs = {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(steps)}
    return {"$ref": "#/$defs/a0", "$defs": {**defs, f"a{steps}": {"type": "object"}}}


@pytest.mark.parametrize("schema", [{}, COLOUR, TREE, {"$ref": "#"}, bomb(3), {"pattern": "^(?=a)b$"}, {"enum": [1]}])
async def test_schemas_that_can_judge(judge, schema):
    await judge.check_schema(schema)


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "strin"}, "strin"),
        ({"properties": {"a": {"pattern": "("}}}, "regex"),
        ({"$ref": "http://127.0.0.1:1/schema"}, "not part of the schema"),
        ({"items": {"$ref": "file:///etc/passwd"}}, "not part of the schema"),
        ({"$ref": "#/$defs/missing"}, "missing"),
    ],
)
async def test_schemas_that_cannot_judge_are_refused_before_anything_is_paid(judge, schema, says):
    assert says in (await refused(judge, schema)).message


async def test_an_answer_that_keeps_to_it_passes(judge):
    await judge.check_answer(COLOUR, '{"colour": "red"}', "stop")
    await judge.check_answer(TREE, '{"next": {"next": {}}}', "stop")
    await judge.check_answer({}, "3", "stop")


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("red", "no JSON"),
        ("", "no JSON"),
        ("NaN", "no JSON"),
        ('```json\n{"colour":"red"}\n```', "no JSON"),
        ('{"colour":3}', "at /colour"),
        ("{}", '"colour" is a required property'),
        ('{"colour":"red","more":1}', "more"),
        ("[" * 100_000 + "]" * 100_000, "no JSON"),
        ("[" * 300 + "]" * 300, ""),
    ],
)
async def test_an_answer_that_does_not_is_refused_and_shown(judge, output, says):
    error = await wrong(judge, COLOUR, output)
    assert says in error.message
    assert (error.detail["output"], error.detail["finish_reason"]) == (output[:SHOWN_CHARS_MAX], "stop")


async def test_what_is_shown_of_it_is_bounded_and_what_was_cut_off_says_so(judge):
    error = await wrong(judge, COLOUR, '{"colour":"' + "x" * 10_000, "length")
    assert len(error.detail["output"]) == SHOWN_CHARS_MAX
    assert "max_tokens" in error.to_wire()["hint"]
    long = await wrong(judge, {"type": "integer"}, '"' + "x" * 100_000 + '"')
    assert len(long.message) < 2 * SHOWN_CHARS_MAX


BRANCHES = {"$ref": "#/$defs/n", "$defs": {"n": {"oneOf": [
    {"properties": {"a": {"$ref": "#/$defs/n"}}},
    {"required": ["z"], "properties": {"a": {"$ref": "#/$defs/n"}, "b": {}}},
]}}}  # fmt: skip
"""Each level of an answer doubles the work."""
DYNAMIC = {
    "$dynamicRef": "#a0",
    "$defs": {
        **{
            f"a{step}": {"$dynamicAnchor": f"a{step}", "allOf": [{"$dynamicRef": f"#a{step + 1}"}] * 2}
            for step in range(40)
        },
        "a40": {"$dynamicAnchor": "a40", "type": "object"},
    },
}
CHAIN = {
    "$ref": "#/$defs/a0",
    "$defs": {
        **{f"a{step}": {"$ref": f"#/$defs/a{step + 1}"} for step in range(100_000)},
        "a100000": {"type": "integer"},
    },
}


@pytest.mark.parametrize(
    ("schema", "output"),
    [(BRANCHES, '{"a":' * 40 + "1" + "}" * 40), (DYNAMIC, "{}"), (bomb(40), "{}"), (CHAIN, '"x"')],
    ids=["recursion", "dynamic references", "references", "a chain"],
)
async def test_what_would_take_for_ever_holds_nobody_up(judge, schema, output):
    """The loop goes on meanwhile, other answers are judged, and the judge is there again afterwards."""
    asking = asyncio.create_task(wrong(judge, schema, output))
    await asyncio.wait_for(judge.check_answer(COLOUR, '{"colour": "red"}', "stop"), 5)
    error = await asking
    assert error.detail["output"] == output[:SHOWN_CHARS_MAX]
    await judge.check_answer(COLOUR, '{"colour": "red"}', "stop")


async def test_who_asked_and_gave_up_leaves_no_process_behind(judge):
    asking = asyncio.create_task(judge.check_answer(BRANCHES, '{"a":' * 40 + "1" + "}" * 40, "stop"))
    await eventually(lambda: judge._slow.turns._free < SLOW.judges and not asking.done())
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await judge.close()
    assert not judge._slow._ending
    assert judge._slow.turns._free == SLOW.judges


@pytest.fixture
async def crew(bus: Bus) -> AsyncIterator[Crew]:
    crew = Crew(bus, Config(limits=LimitsConfig(usd_per_day=1.0, requests_per_minute=0, concurrent=0)))
    crew.providers.put("mock", MockProvider())
    await crew.worker.start()
    yield crew
    await crew.judge.close()


async def told(crew: Crew, corr_id: str, text: str, **params: Any) -> dict[str, Any]:
    model = "mock:price=0.05/call"
    await crew.ask(corr_id, model=model, params={"response_schema": COLOUR, "mock": {"text": text}, **params})
    return await eventually(lambda: crew.answer(corr_id))


async def test_what_does_not_keep_to_it_is_an_outcome_that_is_paid_and_never_asked_for_again(crew):
    error = (await told(crew, "c", "red"))["error"]
    assert (error["code"], error["output"], error["cost_usd_micros"]) == ("output_invalid", "red", 50_000)
    assert (await told(crew, "c", "red"))["error"] == error
    await eventually(lambda: not crew.worker.flights.all() and not crew.worker._handing)
    (spent,) = (spent for account, spent in crew.book.state.spent.items() if account.startswith("day/"))
    assert (spent.calls, spent.usd_micros) == (1, 50_000)


async def test_what_keeps_to_it_is_an_answer(crew):
    assert (await told(crew, "c", '{"colour":"red"}'))["output"] == '{"colour":"red"}'


async def test_a_call_of_tools_is_not_the_answer_yet(crew):
    script = {"script": [{"tool_calls": [{"tool": "fs", "args": {"read": "/code/a"}}]}]}
    answer = await told(crew, "c", "", mock=script, tools=[{"type": "function", "function": {"name": "fs"}}])
    assert answer["tool_calls"][0]["name"] == "fs"
