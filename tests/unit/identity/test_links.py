"""Set-up links stay good: one that has run out is replaced at once, and none leads to a listener that is gone."""

import pytest

from contracts.errors import Rejected
from contracts.reply import RemoteRejected
from services.console import local_identity
from services.console.home import Home
from services.identity.account.decider import USER, InviteUser
from services.identity.account.state import User
from tests.support.eventually import eventually
from tests.unit.identity.desk import PASSWORD, Hall

A_WEEK_S = 7 * 86_400


def link(hall: Hall) -> str:
    return (hall.home / "keys" / "set-up-links" / "aka").read_text()


async def test_after_a_replica_is_gone_the_links_lead_to_one_that_lives(hall: Hall) -> None:
    first = hall.url
    assert link(hall).startswith(f"{first}/auth/setup/?user=aka")
    second = await hall.start()
    assert hall.url != first
    assert link(hall).startswith(hall.url)
    second.kill()
    await eventually(lambda: link(hall).startswith(first), timeout_s=10)


async def test_who_sets_up_with_a_link_that_has_run_out_goes_on_with_the_next_one(hall: Hall) -> None:
    hall.later(A_WEEK_S)
    signed = await local_identity.bring_to_life(Home(hall.home), "aka", PASSWORD)
    assert signed["session"]
    with pytest.raises(Rejected, match="there is no set-up link"):
        await local_identity.bring_to_life(Home(hall.home), "aka", PASSWORD)


async def test_a_token_that_was_never_right_replaces_no_link(hall: Hall) -> None:
    before = hall.token()
    told = await hall.post("/auth/password/", {"user": "aka", "token": "guess", "password": PASSWORD})
    assert told.body["code"] == "bad_link"
    assert hall.token() == before


async def test_a_link_that_the_account_does_not_know_is_replaced_by_a_good_one(hall: Hall) -> None:
    """As when two replicas invite at one moment, and the slower one writes last."""
    right = hall.token()
    path = hall.home / "keys" / "set-up-links" / "aka"
    path.write_text(path.read_text().replace(right, "dead"))
    await eventually(lambda: hall.token() not in (right, "dead"), timeout_s=15)
    assert await hall.set_password()


async def test_what_was_used_is_refused_for_good(hall: Hall) -> None:
    old = hall.token()
    await hall.set_password()
    (hall.home / "keys" / "set-up-links" / "aka").write_text(f"x/auth/setup/?user=aka#{old}\n")
    with pytest.raises(RemoteRejected, match="bad_link"):
        await local_identity.bring_to_life(Home(hall.home), "aka", PASSWORD)


def test_of_two_replicas_that_replace_a_link_the_first_is_right() -> None:
    """Else the file could hold the token of one, and the log the digest of the other."""
    user = User("aka", name="Aka", kind="human", invitation="old")
    (first,) = USER.decide(InviteUser("first", instead="old"), user, 1)
    user = USER.evolve(user, first)
    assert USER.decide(InviteUser("second", instead="old"), user, 1) == ()
    assert user.invitation == "first"
    assert len(USER.decide(InviteUser("third"), user, 1)) == 1
