"""Each way in which a request can be wrong has its own code and names the field."""

import time

import msgspec
import pytest

from contracts.errors import Rejected
from contracts.limits import JSON_DEPTH_MAX, REQUEST_BYTES_MAX
from contracts.requests import GoalSubmit, Nothing, RunStart
from services.runtime import intake

RUN = msgspec.json.Decoder(RunStart)


def code_and_field(data: bytes) -> tuple[str, object]:
    with pytest.raises(Rejected) as refusal:
        intake.read(data, RUN)
    return refusal.value.code, refusal.value.detail.get("field")


@pytest.mark.parametrize(
    ("data", "code", "field"),
    [
        (b"hello", "bad_json", None),
        (b"[", "bad_json", None),
        (b'{"run_id":5', "bad_json", None),
        (b"\xff\xfe", "bad_json", None),
        (b"5", "bad_request", ""),
        (b"{}", "bad_request", "tasks"),
        (b'{"tasks":{}}', "bad_request", "tasks"),
        (b'{"tasks":[{}]}', "bad_request", "tasks[0].id"),
        (b'{"tasks":[],"run_id":7}', "bad_request", "run_id"),
        (b"[" * 100_000, "bad_json", None),
    ],
)
def test_wrong_bytes_have_a_code_and_a_field(data, code, field):
    assert code_and_field(data) == (code, field)


def test_an_empty_body_is_an_empty_object():
    assert intake.read(b"", msgspec.json.Decoder(Nothing)) == Nothing()


def test_unknown_fields_are_ignored():
    assert intake.read(b'{"goal":"g","new":[1]}', msgspec.json.Decoder(GoalSubmit)).goal == "g"


def test_refuses_what_is_too_large():
    with pytest.raises(Rejected) as refusal:
        intake.read(b" " * (REQUEST_BYTES_MAX + 1), RUN)
    assert (refusal.value.code, refusal.value.detail["max"]) == ("too_large", REQUEST_BYTES_MAX)


def nested(depth: int) -> bytes:
    return b'{"tasks":[],"x":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


def test_depth_is_bounded_exactly():
    assert intake.read(nested(JSON_DEPTH_MAX), RUN).tasks == []
    with pytest.raises(Rejected, match="nested too deep"):
        intake.read(nested(JSON_DEPTH_MAX + 1), RUN)


@pytest.mark.parametrize("text", ["[" * 200, '\\"[' * 200, "\\\\", "a\nb" + "{" * 200])
def test_brackets_in_strings_are_not_depth(text):
    data = msgspec.json.encode({"tasks": [], "goal": text, "x": [[{}]] * 100})
    assert intake.read(data, RUN).goal == text


def test_the_depth_of_a_large_request_is_found_quickly():
    data = msgspec.json.encode({"tasks": [{"id": f"t{n}", "depends_on": [f"t{n - 1}"]} for n in range(1, 50_000)]})
    began_s = time.perf_counter()
    assert not intake.deeper_than(data, JSON_DEPTH_MAX)
    assert time.perf_counter() - began_s < 0.5


def test_an_unknown_node_type_has_a_code_of_its_own() -> None:
    with pytest.raises(Rejected) as refused:
        intake.read(b'{"tasks":[{"id":"a","node":{"type":"teleport"}}]}', msgspec.json.Decoder(RunStart))
    assert (refused.value.code, refused.value.detail["field"]) == ("unknown_node_type", "tasks[0].node.type")


@pytest.mark.parametrize("data", [b'{"run_id":"\xff\xfe"}', b"\xff", b'{"x":"\xc3"}'])
def test_text_that_is_not_utf_8_is_no_json(data: bytes) -> None:
    with pytest.raises(Rejected) as refused:
        intake.read(data, msgspec.json.Decoder(RunStart))
    assert refused.value.code == "bad_json"
