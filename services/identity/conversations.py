"""What identity remembers between the two turns of a conversation: which account, which gates; never what was typed.

It lies in a stream that is written lazily, so that either turn may reach any replica. Who loses it is asked again.
"""

from hashlib import sha256
from typing import Final

import msgspec

from contracts.errors import Rejected
from contracts.identity import GateRef
from contracts.streams import CONVERSATIONS
from contracts.subjects import conversation
from services.identity.accounts import Claim
from services.runtime.bus import Bus
from services.runtime.ids import Ids

SESSION_CHARS_MAX: Final = 128


class Turn(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who is about to prove being whom. `barred` is a code for somebody who may not answer these gates at all.

    One that is `over` ended badly, and says only of which gates its session spoke. `mixed` is one in a session that
    spoke of other gates before: somebody else may have begun it, for whoever still means those.
    """

    account: str
    shadow: bool = False
    gates: list[GateRef] = []
    barred: str = ""
    over: bool = False
    mixed: bool = False

    @property
    def claim(self) -> Claim:
        """The account as it is judged."""
        return Claim(self.account, self.shadow)

    def follows(self, before: "Turn | None") -> "Turn":
        """The same in a session whose last conversation was this one, if it had one that ended badly."""
        if before is None:
            return self
        return msgspec.structs.replace(self, mixed=before.mixed or _ids(before.gates) != _ids(self.gates))

    def ended(self) -> "Turn":
        """What is remembered of it unless it ends well."""
        return Turn("", gates=self.gates, over=True, mixed=self.mixed)


def _ids(gates: list[GateRef]) -> set[str]:
    return {gate.approval_id for gate in gates}


_DECODE: Final = msgspec.json.Decoder(Turn).decode
_ENCODE: Final = msgspec.json.Encoder().encode


class Conversations:
    """All conversations that wait for their second turn."""

    def __init__(self, bus: Bus, ids: Ids) -> None:
        self._bus, self._ids = bus, ids

    def session(self, asked: str) -> str:
        """The session that was said, or a new one. Raises too_large."""
        if len(asked) > SESSION_CHARS_MAX:
            raise Rejected("too_large", "the session's name is too long", field="session", max=SESSION_CHARS_MAX)
        return asked or self._ids.new()

    async def recall(self, purpose: str, session: str) -> Turn | None:
        """The first turn of this conversation, or what is left of the last one; None when there was none."""
        record = await self._bus.last(CONVERSATIONS, _subject(purpose, session))
        return _DECODE(record.data) if record is not None and record.data else None

    async def remember(self, purpose: str, session: str, turn: Turn) -> None:
        """Keep the first turn."""
        await self._put(purpose, session, _ENCODE(turn))

    async def forget(self, purpose: str, session: str) -> None:
        """The conversation is over; the next text in this session is a name again."""
        await self._put(purpose, session, b"")

    async def _put(self, purpose: str, session: str, data: bytes) -> None:
        subject = _subject(purpose, session)
        await self._bus.store(subject, data, stream=CONVERSATIONS, msg_id=self._ids.new())


def _subject(purpose: str, session: str) -> str:
    # A digest: whatever a channel calls its sessions stands in no subject.
    return conversation(sha256(f"{purpose}\n{session}".encode()).hexdigest())
