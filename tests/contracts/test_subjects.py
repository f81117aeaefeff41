"""The grammar of subjects: what is built can be parsed, and what is malformed is refused."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import subjects
from contracts.errors import Rejected
from contracts.limits import PARTITIONS
from contracts.streams import CONSUMERS, STREAMS

ids = st.from_regex(r"\A[A-Za-z0-9_-]{1,64}\Z")


@given(aggregate_id=ids)
def test_an_event_subject_is_parsed_into_what_it_was_built_from(aggregate_id: str) -> None:
    subject = subjects.events("executor", "run", aggregate_id)
    assert subjects.parse_events(subject) == ("executor", "run", aggregate_id)


@given(aggregate_id=ids)
def test_a_mailbox_subject_is_parsed_into_what_it_was_built_from(aggregate_id: str) -> None:
    number = subjects.partition(aggregate_id)
    subject = subjects.mailbox(number, "executor", "run", aggregate_id, "start")
    assert subjects.parse_mailbox(subject) == (number, "executor", "run", aggregate_id, "start")


@pytest.mark.parametrize(
    "subject",
    ["", "htdag.v1.evt", "htdag.v1.evt.executor.run", "htdag.v1.evt.executor.run.a.b", "htdag.v2.evt.executor.run.a"],
)
def test_what_is_no_event_subject_is_refused(subject: str) -> None:
    with pytest.raises(Rejected, match="bad_request"):
        subjects.parse_events(subject)


@pytest.mark.parametrize("subject", ["htdag.v1.in.x.executor.run.a.start", "htdag.v1.in.1.executor.run.a", "a.b"])
def test_what_is_no_mailbox_subject_is_refused(subject: str) -> None:
    with pytest.raises(Rejected, match="bad_request"):
        subjects.parse_mailbox(subject)


@given(good=ids)
def test_an_id_is_one_token(good: str) -> None:
    assert subjects.check_id(good) == good


@pytest.mark.parametrize("bad", ["", "a.b", "a b", "a*", ">", "a\n", "ü", "x" * 65, "a/b", "\x00"])
def test_a_malformed_id_is_refused_and_shown_short(bad: str) -> None:
    with pytest.raises(Rejected) as refusal:
        subjects.check_id(bad, "task_id")
    assert refusal.value.code == "bad_id"
    assert refusal.value.detail["field"] == "task_id"
    assert len(refusal.value.detail["value"]) <= 128


@pytest.mark.parametrize(
    "model", ["smollm2", "claude-sonnet-4.5", "gemini-1.5-flash", "mock:delay=2s,price=5", "org/model:free", "a@b+c"]
)
def test_a_model_id_keeps_its_dots(model: str) -> None:
    assert subjects.check_model_id(model) == model
    assert subjects.model_of(subjects.llm_request(model), "htdag.v1.llm.req") == model
    assert subjects.model_of(f"llm.req.{model}", subjects.LLM_REQUEST_EDGE) == model


@pytest.mark.parametrize("bad", ["", ".", "a.", ".a", "a..b", "a b", "*", "a.>", "x" * 201, "a\n"])
def test_a_malformed_model_id_is_refused(bad: str) -> None:
    with pytest.raises(Rejected, match="bad_id"):
        subjects.check_model_id(bad)


@pytest.mark.parametrize(
    ("text", "digest"),
    [("", 0x811C9DC5), ("a", 0xE40C292C), ("foobar", 0xBF9CF968), ("chongo was here!\n", 0xD49930D5)],
)
def test_the_partition_is_fnv_1a(text: str, digest: int) -> None:
    """Published test vectors of FNV-1a 32 bit; the broker's partition() uses the same."""
    assert subjects.partition(text, 1 << 32) == digest


@given(actor_id=ids)
def test_every_actor_has_a_partition(actor_id: str) -> None:
    assert 0 <= subjects.partition(actor_id) < PARTITIONS


def _covers(pattern: str, subject: str) -> bool:
    expression = re.escape(pattern).replace(r"\*", r"[^.]+").replace(r">", r".+")
    return re.fullmatch(expression, subject) is not None


def test_every_built_subject_is_kept_by_exactly_one_stream() -> None:
    built = [
        subjects.events("planner", "epic", "e"),
        subjects.events("executor", "run", "r"),
        subjects.command("executor", "run", "r", "start"),
        subjects.timer_armed("executor", "run", "r"),
        subjects.timer_fired("executor", "run", "r"),
        subjects.snapshot("executor", "run", "r"),
        subjects.llm_request("claude-sonnet-4.5"),
        subjects.llm_response("r", "n"),
        subjects.llm_tokens("r", "n"),
        subjects.dead_letter("HTDAG_CMD"),
    ]
    for subject in built:
        keepers = [stream.name for stream in STREAMS if any(_covers(p, subject) for p in stream.config["subjects"])]
        assert len(keepers) == 1, (subject, keepers)


def test_every_consumer_belongs_to_a_stream() -> None:
    names = {stream.name for stream in STREAMS}
    assert {consumer.stream for consumer in CONSUMERS} <= names
    assert len({(consumer.stream, consumer.name) for consumer in CONSUMERS}) == len(CONSUMERS)
