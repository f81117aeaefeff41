"""What identity remembers between the two turns of a conversation: which account, which gates; never what was typed.

It lies in a stream that is written lazily, so that either turn may reach any replica. Who loses it is asked again.
Sessions have names that others may know: of two who speak in one at the same moment one is refused, and for a day a
session remembers whether more than one set of gates was spoken of in it.
"""

from collections.abc import Collection, Iterable
from datetime import datetime
from hashlib import sha256
from typing import Final, Literal, NamedTuple

import msgspec

from contracts.errors import Rejected
from contracts.identity import GateRef
from contracts.streams import CONVERSATIONS, STREAMS
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

MESSAGES_MAX: Final = int(next(one.config["max_msgs"] for one in STREAMS if one.name == CONVERSATIONS))
"""So many sessions are remembered at most."""

Spoken = Literal["login", "approval", "deny"]
"""What a conversation is for."""


class Turn(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who is about to prove being whom. `barred` is a code for somebody who may not answer these gates at all.

    `gates` are those of the log, with the log's own digests; `unknown` says that others were named, too: what they were
    called is kept nowhere, not even as a digest, since it may have been a code. `asker` says over which connection this
    turn came: sessions have names that others may know.
    """

    account: str
    shadow: bool = False
    gates: list[GateRef] = []
    barred: str = ""
    asker: str = ""
    unknown: bool = False

    @property
    def claim(self) -> Claim:
        """The account as it is judged."""
        return Claim(self.account, self.shadow)


def asker_of(caller: Caller) -> str:
    """The connection that a request came over, as far as its reply subject tells; a digest.

    A client takes all its answers in one inbox, of which only the last token is that of the request. Its name cannot
    be guessed, but whoever overheard it can give it as theirs: by itself this proves nothing (`Talk.is_alone_with`).
    """
    return sha256(caller.reply.rpartition(".")[0].encode()).hexdigest()


class _Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """A session as it is stored; see Talk. `of` is its subject: in the place of another it says nothing."""

    of: str = ""
    turn: Turn | None = None
    gates: str = ""
    mixed: bool = False


class Talk(NamedTuple):
    """A session as it was found. `turn` is the one that waits for its code, if one does.

    `gates` are those that were spoken of first, as one digest, "" when none were; `mixed` says that others were, too,
    or that nobody knows which: what is stored of it was put there by somebody else, or is gone.
    """

    purpose: Spoken
    session: str
    seq: int = 0
    turn: Turn | None = None
    gates: str = ""
    mixed: bool = False

    def is_alone_with(self, caller: Caller) -> bool:
        """Whether nobody else can have begun another conversation in it since the name was said.

        That is: it came over the same connection, as far as a reply subject tells, and the session never spoke of
        other gates. Anybody who knows its name may speak in it.
        """
        return not self.mixed and self.turn is not None and self.turn.asker == asker_of(caller)

    def speaking_of(self, gates: Iterable[GateRef]) -> "Talk":
        """The same session once these gates were spoken of in it; none change nothing, nor does one more set."""
        these = _digest({gate.approval_id for gate in gates})
        if not these or self.mixed:
            return self
        return self._replace(gates=self.gates or these, mixed=self.gates not in ("", these))


_DECODE: Final = msgspec.json.Decoder(_Kept).decode
_ENCODE: Final = msgspec.json.Encoder().encode
_NOBODY_KNOWS: Final = _Kept()


class Conversations:
    """All conversations that wait for their second turn.

    `clock` is the machine's, as the broker's is, which stamps the first turns.
    """

    def __init__(self, bus: Bus, ids: Ids, clock: Clock) -> None:
        self._store, self._bus = JetStreamEventStore(bus, CONVERSATIONS), bus
        self._ids, self._clock = ids, clock

    def session(self, asked: str) -> str:
        """The session that was said, or a new one. Raises too_large."""
        if len(asked) > SESSION_CHARS_MAX:
            raise Rejected("too_large", "the session's name is too long", field="session", max=SESSION_CHARS_MAX)
        return asked or self._ids.new()

    async def recall(self, purpose: Spoken, session: str) -> Talk:
        """What is known of a session."""
        subject = _subject(purpose, session)
        # Not the newest that is genuine: in the place of what was remembered another one stands, and it is gone.
        found = await self._bus.last_stored(CONVERSATIONS, subject)
        if found is None:
            return Talk(purpose, session)
        kept = _NOBODY_KNOWS if found.forged else _kept(found.data)
        if kept.of != subject:
            # Somebody else put it there, or an older version: whoever speaks begins with a name.
            return Talk(purpose, session, found.seq, mixed=True)
        late = self._clock.now_ms() - _ms(found.headers[STORED_AT]) > TURN_MS
        return Talk(purpose, session, found.seq, None if late else kept.turn, kept.gates, kept.mixed)

    async def forgets_none(self) -> bool:
        """Whether each session that was spoken in within a day is remembered.

        The stream holds so many and no more: whoever speaks in very many sessions has others forgotten, and a session
        that is forgotten looks like one that nobody ever spoke in. The doctor tells of it, and until when.
        """
        info = await self._bus.api(f"STREAM.INFO.{CONVERSATIONS}")
        return int(info["state"]["messages"]) < min(int(info["config"]["max_msgs"]), MESSAGES_MAX)

    async def begin(self, talk: Talk, turn: Turn) -> None:
        """Keep the first turn. Raises conflict when somebody else spoke in this session at this moment."""
        try:
            talk = talk._replace(mixed=talk.mixed or turn.unknown)
            await self._put(talk.speaking_of(turn.gates)._replace(turn=turn))
        except Conflict as error:
            raise Rejected("conflict", "somebody else speaks in this session") from error

    async def end(self, talk: Talk, said: Iterable[GateRef] = ()) -> None:
        """The conversation is over; the next text in this session is a name again. `said` are gates said at its end."""
        try:
            await self._put(talk.speaking_of(said)._replace(turn=None))
        except Conflict:
            return  # somebody speaks in it already, and what is remembered of it was taken over

    async def _put(self, talk: Talk) -> None:
        subject = _subject(talk.purpose, talk.session)
        kept = _Kept(subject, talk.turn, talk.gates, talk.mixed)
        await self._store.append(subject, (_ENCODE(kept),), expect=talk.seq, msg_id=self._ids.new(), headers={})


def _kept(data: bytes) -> _Kept:
    try:
        return _DECODE(data)
    except msgspec.MsgspecError:
        return _NOBODY_KNOWS


def _ms(stored_at: str) -> float:
    return datetime.fromisoformat(stored_at).timestamp() * 1000


def _digest(names: Collection[str]) -> str:
    """A set of gates in few bytes; "" for none."""
    return sha256("\n".join(sorted(names)).encode()).hexdigest() if names else ""


def _subject(purpose: str, session: str) -> str:
    # A digest: whatever a channel calls its sessions stands in no subject.
    return conversation(sha256(f"{purpose}\n{session}".encode()).hexdigest())
