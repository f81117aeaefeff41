"""What identity has signed is believed; nothing else that calls itself a release is."""

from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from contracts.approval import ApprovalKey, TakeApproval
from contracts.errors import Rejected
from services.runtime import grants as grants_module
from services.runtime.clock import FixedClock
from services.runtime.grants import ASK_AGAIN_S, KEY, Grants
from tests.support.grants import PUBLIC, signed

ANSWER = TakeApproval("apr-1", "r1", "a", 1, "granted", "d" * 64, 1, user="aka", kind="human", step=7)
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(32))


class Identity:
    """Says its key, and counts who asks."""

    def __init__(self, key: str = PUBLIC) -> None:
        self.key: str | None = key
        self.asked = 0

    async def call(self, subject: str, body: Any, *, into: Any = None, timeout_s: float = 0.0) -> Any:
        assert (subject, body, into) == (KEY, {}, ApprovalKey)
        self.asked += 1
        if self.key is None:
            raise Rejected("no_responders")
        return ApprovalKey(self.key)


class Asked:
    """A bus on which one verb is answered."""

    def __init__(self, call: Any) -> None:
        self.call = call


@pytest.mark.parametrize("trusted", [(), (PUBLIC.upper(),)])
async def test_what_identity_signed_is_believed(trusted: tuple[str, ...]) -> None:
    identity = Identity()
    grants = Grants(identity, FixedClock(), trusted)
    await grants.check(signed(ANSWER))
    await grants.check(signed(msgspec.structs.replace(ANSWER, attempt=2)))
    assert identity.asked == (0 if trusted else 1)


@pytest.mark.parametrize(
    "forged",
    [
        ANSWER,
        msgspec.structs.replace(ANSWER, key=PUBLIC, signature="00" * 64),
        msgspec.structs.replace(ANSWER, key=PUBLIC, signature="nonsense"),
        signed(ANSWER, STRANGER),
        msgspec.structs.replace(signed(ANSWER, STRANGER), key=PUBLIC),
        *(
            msgspec.structs.replace(signed(ANSWER), **{field: value})
            for field, value in (
                ("approval_id", "apr-2"), ("run_id", "r2"), ("task_id", "b"), ("attempt", 2), ("digest", "e" * 64),
                ("user", "eve"), ("step", 8), ("at_ms", 2),
            )
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("trusted", [(), (PUBLIC,)])
async def test_nothing_else_is(forged: TakeApproval, trusted: tuple[str, ...]) -> None:
    with pytest.raises(Rejected, match="approval_not_genuine"):
        await Grants(Identity(), FixedClock(), trusted).check(forged)


async def test_without_identity_nothing_is_believed_yet() -> None:
    identity = Identity()
    identity.key = None
    with pytest.raises(Rejected, match="no_responders"):
        await Grants(identity, FixedClock()).check(signed(ANSWER))


async def test_a_no_needs_no_signature() -> None:
    identity = Identity()
    await Grants(identity, FixedClock()).check(msgspec.structs.replace(ANSWER, outcome="denied"))
    assert identity.asked == 0


async def test_an_identity_with_a_new_key_is_asked_again_but_not_for_each_forgery() -> None:
    identity, clock = Identity("00" * 32), FixedClock()
    grants = Grants(identity, clock)
    for _ in range(5):
        with pytest.raises(Rejected, match="approval_not_genuine"):
            await grants.check(signed(ANSWER))
    assert identity.asked == 1
    identity.key = PUBLIC
    clock.advance(round(ASK_AGAIN_S * 1000))
    await grants.check(signed(ANSWER))
    assert identity.asked == 2


async def test_who_is_patient_asks_an_identity_that_is_away_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grants_module, "AWAY_S", 0.0)
    identity, clock = Identity(), FixedClock()
    identity.key = None
    away = 3

    async def call(subject: str, body: Any, **more: Any) -> Any:
        clock.advance(1_000)
        if identity.asked == away:
            identity.key = PUBLIC
        return await Identity.call(identity, subject, body, **more)

    asking = Grants(Asked(call), clock, patience_s=10.0)
    await asking.check(signed(ANSWER))
    assert identity.asked == away + 1
    identity.key, identity.asked = None, 100
    with pytest.raises(Rejected, match="no_responders"):
        await Grants(Asked(call), clock, patience_s=10.0).check(signed(ANSWER))
    assert 105 < identity.asked < 115
