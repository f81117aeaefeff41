"""Requests are judged by shape and bounds, and the refusal names the field."""

import json

import msgspec
import pytest

from contracts.errors import Rejected
from contracts.llm import LlmRequest
from services.llm_worker.compile import adhoc_run, compile_legacy, compile_request, encode_logged, refusal

MESSAGES = [{"role": "user", "content": "Say hi"}]
ASKED = {"role": "assistant", "content": ""}


def compiled(body, model="mock", **options) -> LlmRequest:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return compile_request(data, subject_model=model, new_id=lambda: "new-1", bytes_max=10_000, **options)


def refused(body, model="mock") -> Rejected:
    with pytest.raises(Rejected) as caught:
        compiled(body, model)
    return caught.value


def test_a_bare_request_gets_every_id_and_default():
    request = compiled({"input": {"messages": MESSAGES}}, "claude-sonnet-4.5")
    assert (request.run_id, request.node_id, request.corr_id) == ("adhoc-new-1", "call", "new-1")
    assert request.model_id == "claude-sonnet-4.5"
    logged = json.loads(encode_logged(request))
    assert logged["params"] == {"stream": False, "temperature": 0.7, "max_tokens": 4000, "timeout_ms": 30_000}


def test_what_is_journaled_reads_back_as_the_same_request():
    body = {
        "run_id": "r", "node_id": "n", "corr_id": "c", "model_id": "mock",
        "input": {"messages": MESSAGES, "type": "chat"},
        "params": {"stream": True, "seed": 7, "stop": ["x"], "mock": {"delay": "1s"}, "complexity": 2.5,
                   "response_schema": {"type": "object"}, "tools": [{"type": "function"}], "top_p": 0.5},
    }  # fmt: skip
    request = compiled(body)
    assert msgspec.json.decode(encode_logged(request), type=LlmRequest) == request


def test_the_attempt_is_optional_in_and_always_stored():
    for body, attempt in (({"input": {"messages": MESSAGES}}, 1), ({"input": {"messages": MESSAGES}, "attempt": 3}, 3)):
        request = compiled(body)
        assert (request.attempt, json.loads(encode_logged(request))["attempt"]) == (attempt, attempt)
        assert msgspec.json.decode(encode_logged(request), type=LlmRequest) == request


def test_a_refusal_says_the_attempt_as_far_as_it_makes_sense():
    for told, attempt in ((3, 3), (0, 1), ("second", 1), (True, 1), (None, 1), (10**40, 1)):
        body = json.dumps({"attempt": told, "corr_id": "c"}).encode()
        assert refusal(body, Rejected("bad_json"), model_id="m").attempt == attempt


def test_unknown_fields_are_accepted():
    assert compiled({"input": {"messages": MESSAGES, "y": 1}, "x": 1, "params": {"z": 2}}).corr_id == "new-1"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "input"),
        ({"input": {}}, "input.messages"),
        ({"input": {"messages": []}}, "input.messages"),
        ({"input": {"messages": "hi"}}, "input.messages"),
        ({"input": {"messages": [{"content": "x"}]}}, "input.messages[0].role"),
        ({"input": {"messages": [MESSAGES[0], {"role": "user"}]}}, "input.messages[1].content"),
        *(
            ({"input": {"messages": [*MESSAGES, {**ASKED, "tool_calls": calls}]}}, "input.messages[1].tool_calls")
            for calls in ([5], "x", [None], {"a": 1}, [[]], 5, True)
        ),
        ({"input": {"messages": MESSAGES}, "params": {"temperature": 2.1}}, "params.temperature"),
        ({"input": {"messages": MESSAGES}, "params": {"max_tokens": 0}}, "params.max_tokens"),
        ({"input": {"messages": MESSAGES}, "params": {"max_tokens": "many"}}, "params.max_tokens"),
        ({"input": {"messages": MESSAGES}, "params": {"timeout_ms": 600_001}}, "params.timeout_ms"),
        ({"input": {"messages": MESSAGES}, "params": {"top_p": -0.1}}, "params.top_p"),
        ({"input": {"messages": MESSAGES}, "params": {"stream": "yes"}}, "params.stream"),
        ({"input": {"messages": MESSAGES * 1001}}, "input.messages"),
        ({"input": {"messages": MESSAGES}, "attempt": 0}, "attempt"),
        ({"input": {"messages": MESSAGES}, "attempt": 1_000_001}, "attempt"),
        ({"input": {"messages": MESSAGES}, "attempt": "second"}, "attempt"),
        ({"input": {"messages": MESSAGES}, "attempt": True}, "attempt"),
        ({"input": {"messages": MESSAGES}, "attempt": 1.5}, "attempt"),
        ({"input": {"messages": MESSAGES}, "attempt": 10**40}, "attempt"),
    ],
)
def test_an_invalid_field_is_named(body, field):
    data = json.dumps(body).encode()
    with pytest.raises(Rejected) as caught:
        compile_request(data, subject_model="mock", new_id=lambda: "x", bytes_max=1_000_000)
    assert (caught.value.code, caught.value.detail["field"]) == ("invalid_request", field)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"null", b"\xff\xfe"])
def test_what_is_no_json_object_is_bad_json(body):
    assert refused(body).code == "bad_json"


@pytest.mark.parametrize("depth", [100, 2_000])
def test_what_is_nested_too_deep_is_bad_json(depth):
    body = b'{"input":{"messages":[{"role":"user","content":"x"}]},"deep":%s}' % (b"[" * depth + b"]" * depth)
    assert refused(body).code == "bad_json"


@pytest.mark.parametrize(
    ("ids", "field"),
    [({"run_id": "a b"}, "run_id"), ({"node_id": "a.b"}, "node_id"), ({"corr_id": "a b"}, "corr_id")],
)
def test_malformed_ids_are_refused(ids, field):
    error = refused({**ids, "input": {"messages": MESSAGES}})
    assert (error.code, error.detail["field"]) == ("bad_id", field)


def test_the_body_may_not_name_another_model():
    assert refused({"model_id": "gpt", "input": {"messages": MESSAGES}}).code == "model_mismatch"


@pytest.mark.parametrize("spelling", ["claude-sonnet-4.5", "claude-sonnet-4-5", "claude-sonnet-4_5"])
def test_a_dot_may_be_escaped_in_the_subject(spelling):
    request = compiled({"model_id": "claude-sonnet-4.5", "input": {"messages": MESSAGES}}, spelling)
    assert request.model_id == "claude-sonnet-4.5"


def test_a_request_over_the_limit_is_too_large():
    error = refused({"input": {"messages": [{"role": "user", "content": "x" * 10_000}]}})
    assert (error.code, error.detail["max"]) == ("too_large", 10_000)


def test_the_message_id_of_the_caller_is_its_corr_id():
    assert compiled({"input": {"messages": MESSAGES}}, message_id="m-1").corr_id == "m-1"


def test_the_adhoc_run_of_a_corr_id_is_always_the_same_token():
    assert adhoc_run("c1") == "adhoc-c1"
    long_run = adhoc_run("r.t.1.llm-1" * 10)
    assert long_run == adhoc_run("r.t.1.llm-1" * 10)
    assert len(long_run) <= 64


def test_the_old_path_needs_a_model():
    with pytest.raises(Rejected) as caught:
        compile_legacy(json.dumps({"messages": MESSAGES}).encode(), new_id=lambda: "x", bytes_max=1000)
    assert (caught.value.code, caught.value.detail["param"]) == ("missing_param", "model_id")


def test_the_old_path_says_the_same_as_the_new_one():
    old = json.dumps({"model": "mock", "messages": MESSAGES, "temperature": 0.1}).encode()
    request = compile_legacy(old, new_id=lambda: "new-1", bytes_max=1000)
    assert request == compiled({"input": {"messages": MESSAGES}, "params": {"temperature": 0.1}})


def test_a_refusal_keeps_the_ids_that_can_be_read():
    answer = refusal(b'{"run_id":"r","node_id":5,"corr_id":"c"}', Rejected("invalid_request"), model_id="m")
    assert (answer.run_id, answer.node_id, answer.corr_id, answer.model_id) == ("r", "", "c", "m")
    assert refusal(b"{", Rejected("bad_json"), model_id="m").run_id == ""
