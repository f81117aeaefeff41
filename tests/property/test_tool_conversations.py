"""Whatever models and tools write, it is read, carried on and cut; nothing of it can break a run."""

import json

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.limits import TOOL_CALLS_PER_ANSWER_MAX, TOOL_RESULT_CHARS_MAX
from contracts.run import LlmAnswered
from contracts.run_tools import ToolAnswered
from services.executor.run.conversation import continued, result_text, wanted
from services.executor.tool_results import fit
from services.llm_worker.tool_calls import conversation, described, native, normalised, read

WORDS = st.text(st.characters(codec="utf-8"), max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)
CALLS = st.lists(
    JSON
    | st.fixed_dictionaries(
        {}, optional={"id": JSON, "name": JSON, "arguments": JSON, "function": JSON, "type": JSON}
    ),
    max_size=12,
)  # fmt: skip
FAST = settings(max_examples=300, deadline=None)


@FAST
@given(CALLS, st.data())
def test_any_answer_goes_back_with_its_results_and_every_call_is_answered(calls: list[object], data: st.DataObject):
    asked = wanted(calls, "llm-1.2")
    made = asked[:TOOL_CALLS_PER_ANSWER_MAX]
    assert len({call.id for call in asked}) == len(asked)
    results = [ToolAnswered("a", 1, number, data.draw(JSON)) for number, _ in enumerate(made, 1)]
    said = LlmAnswered("a", 1, "llm-1.2", "c", "text", tool_calls=calls)
    messages = continued([{"role": "user", "content": "x"}], said, asked, results)
    assert msgspec.json.decode(msgspec.json.encode(messages)) == messages
    _, assistant, *answers = messages
    ids = [call["id"] for call in assistant["tool_calls"]]
    assert ids == [answer["tool_call_id"] for answer in answers]
    assert all(json.loads(call["function"]["arguments"]) is not ... for call in assistant["tool_calls"])
    assert wanted(calls, "llm-1.2") == asked


@FAST
@given(CALLS)
def test_any_calls_have_one_shape_in_answers_and_one_in_conversations(calls: list[object]):
    shown = normalised(calls)
    assert all(isinstance(call["arguments"], dict) for call in shown)
    assert [set(call) for call in shown] == [{"id", "name", "arguments"}] * len(calls)
    assert normalised([native(call) for call in shown]) == shown
    assert normalised(msgspec.json.decode(msgspec.json.encode(shown))) == shown
    messages = [{"role": "assistant", "content": None, "tool_calls": shown}]
    assert conversation(conversation(messages)) == conversation(messages)
    assert msgspec.json.encode(described(messages, [{"function": {"name": "x"}}, {}]))


@FAST
@given(JSON | st.text(max_size=200))
def test_any_text_of_a_model_without_tools_is_read(said: object):
    text = said if isinstance(said, str) else json.dumps(said)
    final, calls = read(text)
    assert not (final and calls)
    assert [call["type"] for call in calls] == ["function"] * len(calls)


@FAST
@given(JSON, st.integers(0, 3), st.integers(300, 5_000))
def test_any_result_fits(value: object, times: int, most: int):
    for _ in range(times):
        value = {"a": [value, value], "text": "x" * 1_000}
    cut, was_cut = fit(value, most)
    assert len(msgspec.json.encode(cut)) <= max(most, 300)
    assert was_cut or cut == value
    assert len(result_text(ToolAnswered("a", 1, 1, value))) <= TOOL_RESULT_CHARS_MAX + 60
