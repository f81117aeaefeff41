"""What identity remembers between the two turns of a conversation: which account, which gates; never what was typed.

It lies in a stream that is written lazily, so that either turn may reach any replica. Who loses it is asked again.
Sessions have names that others may know: of two who speak in one at the same moment one is refused, and for a day a
session remembers whether more than one set of gates was spoken of in it.
"""

from collections.abc import Iterable
from datetime import datetime
from hashlib import sha256
from typing import Final, Literal, NamedTuple

import msgspec

from contracts.errors import Rejected
from contracts.identity import GateRef
from contracts.streams import CONVERSATIONS
from contracts.subjects import conversation
from services.identity.accounts import Claim
from services.runtime.bus import Bus
from services.runtime.clock import Clock
from services.runtime.direct_get import STORED_AT
from services.runtime.event_store import Conflict
from services.runtime.ids import Ids
from services.runtime.jetstream import JetStreamEventStore
from services.runtime.rpc import Caller

SESSION_CHARS_MAX: Final = 128
TURN_MS: Final = 600_000
"""So long a name waits for its code; then the next text is a name again."""


Spoken = Literal["login", "approval", "deny"]
"""What a conversation is for."""


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


class _Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """A session as it is stored. `gates` is which ones were spoken of first, `mixed` whether others were, too."""

    turn: Turn | None = None
    gates: str = ""
    mixed: bool = False


class Talk(NamedTuple):
    """A session as it was found: the turn that waits for its code, if one does, and what is remembered of gates."""

    purpose: Spoken
    session: str
    turn: Turn | None
    gates: str
    mixed: bool
    seq: int


_DECODE: Final = msgspec.json.Decoder(_Kept).decode
_ENCODE: Final = msgspec.json.Encoder().encode


class Conversations:
    """All conversations that wait for their second turn.

    `clock` is the machine's, as the broker's is, which stamps the first turns.
    """

    def __init__(self, bus: Bus, ids: Ids, clock: Clock) -> None:
        self._store, self._ids, self._clock = JetStreamEventStore(bus, CONVERSATIONS), ids, clock

    def session(self, asked: str) -> str:
        """The session that was said, or a new one. Raises too_large."""
        if len(asked) > SESSION_CHARS_MAX:
            raise Rejected("too_large", "the session's name is too long", field="session", max=SESSION_CHARS_MAX)
        return asked or self._ids.new()

    async def recall(self, purpose: Spoken, session: str) -> Talk:
        """What is known of a session."""
        subject = _subject(purpose, session)
        found = await self._store.last(subject)
        if found is None:
            return Talk(purpose, session, None, "", False, 0)
        kept = _DECODE(found.data)
        late = self._clock.now_ms() - _ms(found.headers[STORED_AT]) > TURN_MS
        return Talk(purpose, session, None if late else kept.turn, kept.gates, kept.mixed, found.seq)

    async def begin(self, talk: Talk, turn: Turn) -> None:
        """Keep the first turn. Raises conflict when somebody else spoke in this session at this moment."""
        gates = _those(gate.approval_id for gate in turn.gates)
        mixed = talk.mixed or talk.gates not in ("", gates)
        try:
            await self._put(talk, _Kept(turn, talk.gates or gates, mixed))
        except Conflict as error:
            raise Rejected("conflict", "somebody else speaks in this session") from error

    async def end(self, talk: Talk, said: Iterable[GateRef] = ()) -> None:
        """The conversation is over; the next text in this session is a name again. `said` are gates said at its end."""
        gates = _those(gate.approval_id for gate in said)
        try:
            await self._put(talk, _Kept(None, talk.gates, talk.mixed or gates not in ("", talk.gates)))
        except Conflict:
            return  # somebody speaks in it already, and what is remembered of it was taken over

    async def _put(self, talk: Talk, kept: _Kept) -> None:
        subject = _subject(talk.purpose, talk.session)
        await self._store.append(subject, (_ENCODE(kept),), expect=talk.seq, msg_id=self._ids.new(), headers={})


def _ms(stored_at: str) -> float:
    return datetime.fromisoformat(stored_at).timestamp() * 1000


def _those(gates: Iterable[str]) -> str:
    """A set of gates in few bytes; "" for none."""
    names = sorted(set(gates))
    return sha256("\n".join(names).encode()).hexdigest() if names else ""


def _subject(purpose: str, session: str) -> str:
    # A digest: whatever a channel calls its sessions stands in no subject.
    return conversation(sha256(f"{purpose}\n{session}".encode()).hexdigest())
