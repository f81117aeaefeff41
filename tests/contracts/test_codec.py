"""Old versions are lifted, unknown types stop an aggregate and are skipped by a projection."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.codec import CommitCodec, Undecodable, UnknownType, tag_of
from contracts.commit import Commit
from contracts.epic import EpicEvent
from contracts.llm import LegacyLlmRequest, LlmAnswer, LlmError, LlmInput, LlmRequest
from contracts.run import AgentsSpawned, LlmRequested, RunEvent, TaskStarted
from contracts.strategy import StrategyEvent

HEAD = {"at": "2026-11-20T17:00:00.000Z", "by": "test", "cause": "c", "corr": "r"}


class Opened(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="door.opened.v3"):
    door_id: str
    width_mm: int


class Closed(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="door.closed.v1"):
    door_id: str


def _to_v2(old: dict[str, Any]) -> dict[str, Any]:
    return {**old, "type": "door.opened.v2", "width_cm": old["width_m"] * 100}


def _to_v3(old: dict[str, Any]) -> dict[str, Any]:
    return {**old, "type": "door.opened.v3", "width_mm": old["width_cm"] * 10}


DoorEvent = Opened | Closed
DOORS: CommitCodec[Any] = CommitCodec(DoorEvent, {"door.opened.v1": _to_v2, "door.opened.v2": _to_v3})


def commit_of(*events: dict[str, Any]) -> bytes:
    return msgspec.json.encode({**HEAD, "events": list(events)})


def test_an_old_version_is_lifted_step_by_step() -> None:
    data = commit_of(
        {"type": "door.opened.v1", "door_id": "d", "width_m": 2}, {"type": "door.closed.v1", "door_id": "d"}
    )
    assert DOORS.decode(data).events == [Opened(door_id="d", width_mm=2000), Closed(door_id="d")]


def test_an_unknown_type_stops_an_aggregate_and_is_skipped_by_a_projection() -> None:
    data = commit_of({"type": "door.painted.v1"}, {"type": "door.closed.v1", "door_id": "d"})
    with pytest.raises(UnknownType, match=r"door\.painted\.v1"):
        DOORS.decode(data)
    assert DOORS.decode(data, skip_unknown=True).events == [Closed(door_id="d")]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no json",
        b"[]",
        b'{"events":[]}',
        commit_of({"type": "door.closed.v1"}),
        commit_of({"type": "door.closed.v1", "door_id": 3}),
    ],
    ids=["empty", "no-json", "list", "no-head", "field-missing", "field-of-wrong-type"],
)
def test_bytes_that_are_no_commit_are_undecodable(data: bytes) -> None:
    with pytest.raises(Undecodable):
        DOORS.decode(data, skip_unknown=True)


def test_upcasters_that_go_round_are_found_out() -> None:
    codec: CommitCodec[Any] = CommitCodec(
        DoorEvent, {"a.v1": lambda old: {**old, "type": "a.v2"}, "a.v2": lambda old: {**old, "type": "a.v1"}}
    )
    with pytest.raises(Undecodable, match="do not end"):
        codec.decode(commit_of({"type": "a.v1"}))


def test_a_struct_without_a_tag_is_refused() -> None:
    class Untagged(msgspec.Struct):
        x: int

    with pytest.raises(TypeError, match="has no type tag"):
        tag_of(Untagged)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Values of any field type that the contracts use."""
    info = kind if isinstance(kind, msgspec.inspect.Type) else msgspec.inspect.type_info(kind)
    match info:
        case msgspec.inspect.StructType():
            fields = {field.name: values_of(field.type) for field in info.fields}
            return st.fixed_dictionaries(fields).map(lambda given: info.cls(**given))
        case msgspec.inspect.UnionType():
            return st.one_of([values_of(member) for member in info.types])
        case msgspec.inspect.ListType():
            return st.lists(values_of(info.item_type), max_size=2)
        case msgspec.inspect.DictType():
            return st.dictionaries(st.text(), values_of(info.value_type), max_size=2)
        case msgspec.inspect.LiteralType():
            return st.sampled_from(info.values)
    simple: dict[type[Any], st.SearchStrategy[Any]] = {
        msgspec.inspect.StrType: st.text(),
        msgspec.inspect.IntType: st.integers(-(2**63), 2**63 - 1),
        msgspec.inspect.FloatType: st.floats(allow_nan=False, allow_infinity=False),
        msgspec.inspect.BoolType: st.booleans(),
        msgspec.inspect.NoneType: st.none(),
        msgspec.inspect.AnyType: json_values,
    }
    return simple[type(info)]


@pytest.mark.parametrize("events", [EpicEvent, RunEvent, StrategyEvent], ids=["epic", "run", "strategy"])
@given(data=st.data())
def test_every_commit_survives_the_wire(events: Any, data: st.DataObject) -> None:
    codec: CommitCodec[Any] = CommitCodec(events)
    commit: Commit[Any] = Commit(**HEAD, events=data.draw(st.lists(values_of(events), min_size=1, max_size=3)))
    read = codec.decode(codec.encode(commit))
    assert read == commit
    assert codec.types_header(read.events).split(",") == list(dict.fromkeys(map(tag_of, map(type, read.events))))


def test_a_commit_of_many_events_is_read_in_order() -> None:
    codec: CommitCodec[RunEvent] = CommitCodec(RunEvent)
    started = [TaskStarted(task_id=f"t{n}", attempt=1, deadline_at_ms=n) for n in range(1000)]
    assert codec.decode(codec.encode(Commit(**HEAD, events=list(started)))).events == started


def test_a_stored_request_shows_what_nobody_asked_for() -> None:
    """Whoever reads the log sees with which parameters a call was made, also the ones that nobody named."""
    request = LlmRequest(LlmInput([]), run_id="r", node_id="n", corr_id="c", model_id="m")
    event = LlmRequested(task_id="n", attempt=1, step="llm-1", request=request, deadline_at_ms=1)
    params = {"stream": False, "temperature": 0.7, "max_tokens": 4000, "timeout_ms": 30_000}
    assert msgspec.to_builtins(request)["params"] == params
    assert msgspec.json.decode(msgspec.json.encode(event))["request"]["params"] == params
    old = msgspec.json.decode(b'{"input":{"messages":[]},"params":{"max_tokens":5}}', type=LlmRequest)
    assert msgspec.json.decode(msgspec.json.encode(old))["params"] == {**params, "max_tokens": 5}


@pytest.mark.parametrize("message", [LlmRequest, LegacyLlmRequest, LlmAnswer, LlmError])
def test_what_was_stored_before_attempts_were_named_was_the_first(message: Any) -> None:
    stored = (Path(__file__).parent / "golden" / f"{message.__name__}.json").read_bytes()
    assert b"attempt" not in stored
    assert msgspec.json.decode(stored, type=message).attempt == 1


@pytest.mark.parametrize("message", [LlmAnswer, LlmError])
def test_every_answer_says_which_attempt_it_answers_also_the_first(message: Any) -> None:
    first = msgspec.json.decode(
        (Path(__file__).parent / "golden" / f"{message.__name__}.json").read_bytes(), type=message
    )
    assert msgspec.to_builtins(first)["attempt"] == 1


def test_the_fallback_says_that_there_is_no_strategy() -> None:
    event = AgentsSpawned(task_id="a", attempt=1, agents=[], pattern="solo", fallback=True)
    told = msgspec.json.decode(msgspec.json.encode(event))
    assert (told["strategy"], told["fallback"]) == (None, True)
