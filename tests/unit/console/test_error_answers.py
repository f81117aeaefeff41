"""`htdag conformance errors`: what it takes for an error of the contract, and that it asks for every code."""

import asyncio

import msgspec
import pytest

from contracts.errors import CATALOGUE, Rejected, failure
from contracts.identity import Said
from contracts.reply import RemoteRejected
from services.console.conformance.errors import scenario as scenario_module
from services.console.conformance.errors.answers import asked_here, asked_of_instance, asked_of_scratch
from services.console.conformance.errors.scenario import Scenario, Sight, played
from services.console.conformance.errors.verdict import judged, judged_said, unasked


def test_an_error_of_the_one_shape_under_its_code_passes():
    assert judged("cycle", failure("cycle", path=["a", "a"]), "here") == ("cycle", "pass", "here")


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (None, "no error"),
        ("cycle", "no error"),
        ({"class": "bad_graph", "code": "cycle"}, "message"),
        ({**failure("cycle"), "code": "circle"}, "circle"),
        ({**failure("cycle"), "class": "lua"}, "its class is lua"),
        ({**failure("cycle"), "hint": 3}, "string"),
        (failure("bad_id"), "bad_id instead"),
    ],
)
def test_anything_else_fails_and_says_what_was_seen(answer, seen):
    point = judged("cycle", answer, "here")
    assert point.outcome == "fail"
    assert seen in point.seen


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (Said("s", "refused", "no", code="approval_stale"), "pass"),
        (Said("s", "refused", "no", code="invalid_code"), "fail"),
        (Said("s", "confirmed", "yes"), "fail"),
        (Said("s", "refused", 3, code="approval_stale"), "fail"),  # type: ignore[arg-type]
        (None, "fail"),
    ],
)
def test_what_is_said_in_a_conversation_has_the_shape_of_a_turn_and_the_code(said, outcome):
    assert judged_said("approval_stale", msgspec.to_builtins(said), "here").outcome == outcome


@pytest.mark.parametrize("code", CATALOGUE)
def test_every_code_has_the_published_shape(code):
    assert unasked(code, "no reason").outcome == "note"


def test_every_code_of_the_catalogue_is_asked_for():
    asked = [*asked_of_instance(), *asked_of_scratch(), *asked_here()]
    assert sorted(asked) == sorted(CATALOGUE)


async def raises(error: Exception) -> None:
    raise error


async def test_a_scenario_sees_refusals_however_they_come():
    async def play(world: str, sight: Sight) -> None:
        await sight.refused("bad_id", raises(Rejected("bad_id")), world)
        await sight.refused("cycle", raises(RemoteRejected(failure("cycle"))), world)
        sight.error("poison", failure("poison"), world)
        sight.raised("conflict", lambda: None, world)

    points = await played(Scenario(("bad_id", "cycle", "poison", "conflict"), play), "w", "there")
    assert [(point.name, point.outcome) for point in points] == [
        ("bad_id", "pass"),
        ("cycle", "pass"),
        ("poison", "pass"),
        ("conflict", "fail"),
    ]
    assert points[0].seen == "there: w"


@pytest.mark.parametrize("broken", [Rejected("not_found"), KeyError("x"), OSError("gone")])
async def test_what_breaks_on_the_way_fails_the_codes_that_were_not_seen(broken):
    async def play(world: str, sight: Sight) -> None:
        await sight.refused("bad_id", raises(Rejected("bad_id")), world)
        raise broken

    points = await played(Scenario(("bad_id", "cycle"), play), "w", "there")
    assert [(point.name, point.outcome) for point in points] == [("bad_id", "pass"), ("cycle", "fail")]


async def test_a_scenario_has_a_deadline(monkeypatch):
    async def play(world: str, sight: Sight) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(scenario_module, "SCENARIO_S", 0.01)
    (point,) = await played(Scenario(("cycle",), play), "w", "there")
    assert (point.outcome, point.seen) == ("fail", "there: not within 0.01 s")
