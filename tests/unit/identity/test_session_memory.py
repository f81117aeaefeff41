"""Identity remembers so many sessions: when some may be forgotten, it says so, and the doctor says until when."""

from datetime import UTC, datetime, timedelta

import pytest

from contracts.streams import CONVERSATIONS
from services.console.connection import Console
from services.console.doctor import identity
from tests.unit.identity.desk import Hall

ROOM = 3


@pytest.fixture
async def narrow(hall: Hall) -> Hall:
    """With room for a few sessions only, as if very many were spoken in."""
    config = (await hall.bus.api(f"STREAM.INFO.{CONVERSATIONS}"))["config"]
    await hall.bus.api(f"STREAM.UPDATE.{CONVERSATIONS}", {**config, "max_msgs": ROOM})
    await hall.enrol()
    return hall


async def flood(hall: Hall, count: int) -> None:
    for number in range(count):
        await hall.ask("login.converse", session=f"flood-{number}", text="somebody")


@pytest.mark.parametrize("verb", ["approval.converse", "approval.deny"])
async def test_a_bare_code_is_refused_for_the_reason_that_is_true(narrow: Hall, verb: str):
    await narrow.request("apr-1")
    await flood(narrow, ROOM)
    said = await narrow.converse(verb, "aka", narrow.code(), approval_id="apr-1")
    assert (said["state"], said["code"]) == ("refused", "approval_stale")
    assert "older ones were pushed out" in said["say"]
    assert "say them with the code" in said["say"]
    assert "another connection" not in said["say"]
    # The same code, beside its gate: it was not looked at before.
    await narrow.ask(verb, session="again", text="aka", approval_id="apr-1")
    said = await narrow.ask(verb, session="again", text=narrow.code(), approval_id="apr-1")
    assert said["state"] == "confirmed"


async def test_a_bare_code_of_another_connection_has_its_own_reason(narrow: Hall):
    await flood(narrow, ROOM)
    for gate in ("apr-1", "apr-2"):
        await narrow.request(gate, task_id=gate)
    for gate in ("apr-1", "apr-2"):
        await narrow.ask("approval.converse", session="s", text="aka", approval_id=gate)
        said = await narrow.ask("approval.converse", session="s", text=narrow.wrong())
    assert "the session spoke of other gates" in said["say"]


async def test_who_only_says_who_they_are_is_confirmed_all_the_same(narrow: Hall):
    await flood(narrow, ROOM)
    assert (await narrow.login("aka", narrow.code()))["state"] == "confirmed"


async def test_the_doctor_tells_of_it_and_until_when(narrow: Hall):
    console = Console(narrow.bus, 5.0)
    found = await identity.sessions(console)
    assert (found.status, found.message) == ("ok", f"0 remembered, of {ROOM} at most")
    began = datetime.now(UTC)
    await flood(narrow, ROOM)
    found = await identity.sessions(console)
    assert (found.name, found.status) == ("sessions", "warn")
    assert "HTDAG_CONVERSATIONS is full" in found.message
    days = {f"{at + timedelta(days=1):%Y-%m-%d %H:%M} UTC" for at in (began, datetime.now(UTC))}
    assert any(found.message.endswith(f"before {day}") for day in days)
    assert "say the gate with the code" in found.mend
