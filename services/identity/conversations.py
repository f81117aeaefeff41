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
from services.runtime.rpc import Caller

SESSION_CHARS_MAX: Final = 128


class Turn(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who is about to prove being whom. `barred` is a code for somebody who may not answer these gates at all.

    `asker` says over which connection this turn came: sessions have names that others may know.
    """

    account: str
    shadow: bool = False
    gates: list[GateRef] = []
    barred: str = ""
    asker: str = ""

    @property
    def claim(self) -> Claim:
        """The account as it is judged."""
        return Claim(self.account, self.shadow)


def asker_of(caller: Caller) -> str:
    """The connection that a request came over, as a digest: its client takes all its answers in one inbox.

    The inbox of a client has a name that nobody else can guess; only the last token is that of the request.
    """
    return sha256(caller.reply.rpartition(".")[0].encode()).hexdigest()


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
        """The first turn of this conversation; None when there was none."""
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
