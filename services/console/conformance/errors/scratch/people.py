"""On the scratch instance: accounts of people and of agents, their proofs, and the limits of guessing."""

import asyncio
import hashlib
import hmac
import http.client
from base64 import b32decode
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from contracts.identity import FAILURES_TO_LOCK, JUDGED_PER_MINUTE_MAX, STEP_S
from services.console import local_identity
from services.console.conformance.errors.scenario import Scenario, Sight, not_there
from services.console.conformance.errors.scratch.instance import ANSWER_S, Scratch

PASSWORD: Final = "conformance-password"
LINK: Final = "/auth/password/"
SIGN_IN: Final = "/auth/session/"
MINUTE_S: Final = 61


class Person:
    """A human account of the scratch instance, and the authenticator that belongs to it."""

    def __init__(self, scratch: Scratch, name: str) -> None:
        self._scratch, self.name = scratch, name
        self.session, self._secret = "", ""

    async def created(self) -> str:
        """Make the account; the token of its set-up link."""
        await self._scratch.ask("identity.user.create", {"name": self.name})
        return local_identity.token_of(self._scratch.home, self.name)

    async def live(self, token: str) -> None:
        """Choose the password, by the link."""
        told = await self.post(LINK, token=token, password=PASSWORD)
        self.session = told["session"]

    async def prove(self) -> None:
        """Turn proof on."""
        self._secret = (await self.post("/auth/mfa/setup/"))["secret"]
        await self.post("/auth/mfa/verify/", code=self.code())

    def code(self) -> str:
        """What the authenticator shows next: a code is good once, so time goes on."""
        self._scratch.clock.forward(STEP_S)
        return code_at(self._secret, self._scratch.clock.now_s)

    async def post(self, path: str, **body: Any) -> dict[str, Any]:
        """Ask identity's local listener, in one's own session if there is one."""
        asked = {"user": self.name, **body} if path in (LINK, SIGN_IN) else body
        return await local_identity.post(self._scratch.home, path, asked, self.session or None)


async def ready_person(scratch: Scratch, name: str) -> Person:
    """One whose proof is on."""
    person = Person(scratch, name)
    await person.live(await person.created())
    await person.prove()
    return person


def code_at(secret: str, now_s: int) -> str:
    """What an authenticator app shows (RFC 6238: SHA-1, six digits, half a minute)."""
    key = b32decode(secret + "=" * (-len(secret) % 8))
    mac = hmac.digest(key, (now_s // STEP_S).to_bytes(8), hashlib.sha1)
    at = mac[-1] & 15
    return f"{(int.from_bytes(mac[at : at + 4]) & 0x7FFFFFFF) % 1_000_000:06d}"


async def _accounts(scratch: Scratch, sight: Sight) -> None:
    person = Person(scratch, "conformance-anna")
    token = await person.created()
    await sight.refused("weak_password", person.post(LINK, token=token, password="short"), LINK)
    await sight.refused("bad_link", person.post(LINK, token="no-such-link", password=PASSWORD), LINK)
    await sight.refused("not_signed_in", person.post("/auth/mfa/setup/"), "/auth/mfa/setup/")
    await person.live(token)
    await sight.refused("mfa_not_set_up", person.post("/auth/mfa/verify/", code="000000"), "/auth/mfa/verify/")
    await sight.refused("mfa_not_enabled", person.post("/auth/mfa/disable/", code="000000"), "/auth/mfa/disable/")
    await person.prove()
    await sight.refused("mfa_already_enabled", person.post("/auth/mfa/setup/"), "/auth/mfa/setup/")
    await sight.refused("wrong_password", person.post(SIGN_IN, password="another-one"), SIGN_IN)
    await sight.refused("not_local", asyncio.to_thread(_forwarded, scratch), "/auth/keys/ through a proxy")
    agent = "agent:conformance"
    created = scratch.ask("identity.user.create", {"name": "conformance-ben"}, by=agent)
    await sight.refused("not_for_agents", created, "identity user.create by an agent")


def _forwarded(scratch: Scratch) -> dict[str, Any]:
    """What the local listener tells somebody who comes through a proxy."""
    parts = urlsplit(local_identity.address(scratch.home) or "")
    if parts.hostname is None:
        raise not_there("local listener")
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=ANSWER_S)
    try:
        connection.request("POST", "/auth/keys/", b"{}", {"X-Forwarded-For": "192.0.2.1"})
        told: dict[str, Any] = msgspec.json.decode(connection.getresponse().read())
    finally:
        connection.close()
    return {key: value for key, value in told.items() if key not in ("type", "title", "status")}


async def _guesses(scratch: Scratch, sight: Sight) -> None:
    """One agent challenges another, first rightly, then again and again."""
    asking, asked = [
        await scratch.ask("identity.agent.create", {"name": f"conformance-{name}"}) for name in ("one", "two")
    ]

    def challenge(code: str) -> Any:
        body = {"agent": asked["name"], "code": code, "credential": asking["credential"]}
        return scratch.ask("identity.agent.challenge", body)

    shown = (await scratch.ask("identity.agent.code", {"credential": asked["credential"]}))["code"]
    await challenge(shown)
    where = "identity agent.challenge"
    await sight.refused("code_reused", challenge(shown), where)
    wrong = f"{(int(shown) + 1) % 1_000_000:06d}"
    await sight.refused("invalid_code", challenge(wrong), where)
    left = JUDGED_PER_MINUTE_MAX - 3
    for _ in range(left):
        await _refused(challenge(wrong))
    await sight.refused("rate_limited", challenge(wrong), where)
    for number in range(FAILURES_TO_LOCK - left - 2):
        if number % JUDGED_PER_MINUTE_MAX == 0:
            scratch.clock.forward(MINUTE_S)
        await _refused(challenge(wrong))
    await sight.refused("locked", challenge(wrong), where)


async def _refused(asked: Any) -> None:
    """A wrong code more: what it is told is looked at elsewhere."""
    await asyncio.gather(asked, return_exceptions=True)


PEOPLE: Final = (
    Scenario(
        (
            "weak_password", "bad_link", "not_signed_in", "mfa_not_set_up", "mfa_not_enabled", "mfa_already_enabled",
            "wrong_password", "not_local", "not_for_agents",
        ),
        _accounts,
    ),
    Scenario(("code_reused", "invalid_code", "rate_limited", "locked"), _guesses),
)  # fmt: skip
