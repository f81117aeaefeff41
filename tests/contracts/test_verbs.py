"""Requests, replies and errors are what the catalogue says they are."""

import json

import msgspec
import pytest

from contracts import reply
from contracts.channels import CHANNELS
from contracts.errors import CATALOGUE, Rejected, exit_code_of, failure
from contracts.metrics import METRICS
from contracts.subjects import SERVICES
from contracts.verbs import BY_SUBJECT, VERBS, VerbSpec, verbs_of


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.subject)
def test_the_example_of_a_verb_is_a_good_request(verb: VerbSpec) -> None:
    decoded = msgspec.json.decode(verb.example, type=verb.request)
    told = json.loads(verb.example)
    assert set(told) <= set(verb.request.__struct_fields__), "the example has a field the request does not know"
    assert msgspec.json.decode(msgspec.json.encode(decoded), type=verb.request) == decoded


def test_every_verb_has_its_own_subject_and_a_service() -> None:
    assert len(BY_SUBJECT) == len(VERBS)
    assert {verb.service for verb in VERBS} <= set(SERVICES)
    assert sum(len(verbs_of(service)) for service in SERVICES) == len(VERBS)


@pytest.mark.parametrize(
    "channel", [channel for channel in CHANNELS if channel.example], ids=lambda channel: channel.name
)
def test_the_example_of_a_channel_is_one_of_its_messages(channel) -> None:
    fitting = []
    for message in channel.messages:
        try:
            msgspec.json.decode(channel.example, type=message)
        except msgspec.ValidationError:
            continue
        fitting.append(message)
    assert fitting


@pytest.mark.parametrize("code", CATALOGUE)
def test_a_refusal_travels_as_it_was_said(code: str) -> None:
    said = Rejected(code, "why", field="x")
    with pytest.raises(reply.RemoteRejected) as heard:
        reply.parse(reply.refused(said))
    assert heard.value.code == code
    assert heard.value.error == said.to_wire() == failure(code, "why", field="x")
    assert exit_code_of(heard.value.error) == CATALOGUE[code].exit_code != 0


def test_a_good_reply_gives_its_value() -> None:
    assert reply.parse(reply.ok({"a": [1, None]})) == {"a": [1, None]}
    assert reply.parse(reply.ok(None)) is None


@pytest.mark.parametrize("data", [b"", b"x", b"[]", b'{"ok":"yes"}', b"{}"])
def test_what_is_no_envelope_is_an_internal_error(data: bytes) -> None:
    with pytest.raises(Rejected, match="internal"):
        reply.parse(data)


def test_a_code_of_a_newer_version_still_fails_the_command_line() -> None:
    assert exit_code_of({"code": "invented_tomorrow"}) == 1


def test_no_two_metrics_share_a_name_and_counters_say_total() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert all(metric.name.endswith("_total") == (metric.kind == "counter") for metric in METRICS)
    forbidden = {"run_id", "task_id", "epic_id", "user", "corr_id"}
    assert not [metric.name for metric in METRICS if forbidden & set(metric.labels)]
