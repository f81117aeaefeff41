"""The journal of final answers: who was answered, with what; so that no `corr_id` is paid twice.

One subject per node holds the answers of all calls of that node, newest last. Usually the newest is the one that is
looked for; where it is not, the subject is read once and remembered.
"""

from asyncio import Future
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from contracts.commit import HEADER_CORRELATION
from contracts.llm import HEADER_MODEL, HEADER_OUTCOME, HEADER_REQUEST
from contracts.streams import LLM_RESPONSES
from contracts.subjects import llm_response
from services.llm_worker.compile import ADHOC_NODE, adhoc_run
from services.llm_worker.providers.protocol import FINAL
from services.runtime.bus import Bus
from services.runtime.event_store import Recorded
from services.runtime.publisher import Stored
from services.runtime.telemetry import TRACEPARENT

SUBJECTS_REMEMBERED_MAX: Final = 1_024
IDS_REMEMBERED_MAX: Final = 200_000
SCANNED_MAX: Final = 100_000
OK: Final = "ok"

_DECODE: Final = msgspec.json.Decoder(dict[str, Any]).decode


class Key(NamedTuple):
    """Names one call: where its answer stands, and which of the answers there is its own."""

    run_id: str
    node_id: str
    corr_id: str

    @property
    def subject(self) -> str:
        """The subject of its answer."""
        return llm_response(self.run_id, self.node_id)

    @classmethod
    def of(cls, entry: Recorded) -> "Key":
        """The call that a journaled answer answers."""
        _, run_id, node_id = entry.subject.rsplit(".", 2)
        return cls(run_id, node_id, corr_of(entry.headers))


def corr_of(headers: Mapping[str, str]) -> str:
    """The `corr_id` of a journaled answer."""
    return headers.get(HEADER_CORRELATION, "")


def settles(entry: Recorded, request_seq: int) -> bool:
    """Whether a journaled answer also answers the request stored at `request_seq`.

    A final answer always does, and an error that was paid: its call is not paid twice. An error that may pass and cost
    nothing settles only the very request it answered: the same call, asked again, is tried again.
    """
    if entry.headers.get(HEADER_OUTCOME, OK) in FINAL:
        return True
    return settles_itself(entry, request_seq) or _was_paid(entry)


def settles_itself(entry: Recorded, request_seq: int) -> bool:
    """Whether a journaled answer was given to this very request: another one of the same call was never charged."""
    return entry.headers.get(HEADER_REQUEST) == str(request_seq)


def _was_paid(entry: Recorded) -> bool:
    """Whether a failed call used something all the same, or may be billed for an asking that nobody heard."""
    error = decode(entry.data).get("error")
    return isinstance(error, dict) and bool(error.get("usage") or error.get("abandoned_tokens"))


class _Seen:
    """Which calls one subject holds, read up to `covered`."""

    __slots__ = ("covered", "seq_of")

    def __init__(self) -> None:
        self.covered = 0
        self.seq_of: dict[str, int] = {}


class Journal:
    """Reads and writes the journal."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._ids = 0

    def store(
        self, key: Key, data: bytes, *, outcome: str, model_used: str, request_seq: int, trace: str = ""
    ) -> "Future[Stored]":
        """Write the answer of a call; the same call is written once. `outcome` is "ok" or the code of the error."""
        # An error that may pass must not shut out the answer that comes later.
        msg_id = f"resp:{key.corr_id}" if outcome in FINAL else f"resp:{key.corr_id}:{request_seq}"
        headers = {
            HEADER_CORRELATION: key.corr_id,
            HEADER_OUTCOME: outcome,
            HEADER_REQUEST: str(request_seq),
        }
        if model_used:
            headers[HEADER_MODEL] = model_used
        if trace:
            headers[TRACEPARENT] = trace
        return self._bus.store(key.subject, data, stream=LLM_RESPONSES, msg_id=msg_id, headers=headers)

    async def find(self, key: Key) -> Recorded | None:
        """The newest answer of one call."""
        return (await self.find_many([key])).get(key)

    async def find_many(self, keys: Sequence[Key]) -> dict[Key, Recorded]:
        """The newest answer of each call that has one: one round trip for all that are new or their node's newest."""
        subjects = list(dict.fromkeys(key.subject for key in keys))
        newest = await self._newest(subjects)
        found: dict[Key, Recorded] = {}
        for key in keys:
            last = newest.get(key.subject)
            if last is None:
                continue
            entry = last if corr_of(last.headers) == key.corr_id else await self._older(key, last)
            if entry is not None:
                found[key] = entry
        return found

    async def scan(self, corr_id: str, run_id: str | None, node_id: str | None) -> Recorded | None:
        """Find a call by its id alone: a few likely places, then the newest `SCANNED_MAX` answers at most."""
        if run_id and node_id:
            return await self.find(Key(run_id, node_id, corr_id))
        adhoc = await self.find(Key(run_id or adhoc_run(corr_id), node_id or ADHOC_NODE, corr_id))
        if adhoc is not None:
            return adhoc
        info = await self._bus.api(f"STREAM.INFO.{LLM_RESPONSES}")
        after = max(0, int(info["state"]["last_seq"]) - SCANNED_MAX)
        found: Recorded | None = None
        async for entry in self._bus.history(LLM_RESPONSES, llm_response(run_id or "*", node_id or "*"), after):
            if corr_of(entry.headers) == corr_id:
                found = entry
        return found

    async def _newest(self, subjects: list[str]) -> dict[str, Recorded]:
        if len(subjects) > 1:
            return await self._bus.last_of_many(LLM_RESPONSES, subjects)
        # The usual case when little is going on, and the cheaper read.
        last = await self._bus.last(LLM_RESPONSES, subjects[0])
        return {} if last is None else {last.subject: last}

    async def _older(self, key: Key, last: Recorded) -> Recorded | None:
        seen = self._remembered(key.subject)
        if seen.covered < last.seq:
            before = len(seen.seq_of)
            async for entry in self._bus.history(LLM_RESPONSES, key.subject, seen.covered):
                seen.seq_of[corr_of(entry.headers)] = entry.seq
                seen.covered = entry.seq
            self._ids += len(seen.seq_of) - before
        seq = seen.seq_of.get(key.corr_id)
        if seq is None:
            return None
        async for entry in self._bus.history(LLM_RESPONSES, key.subject, seq - 1):
            return entry
        return None

    def _remembered(self, subject: str) -> _Seen:
        seen = self._seen.pop(subject, None) or _Seen()
        while self._seen and (len(self._seen) >= SUBJECTS_REMEMBERED_MAX or self._ids > IDS_REMEMBERED_MAX):
            _, oldest = self._seen.popitem(last=False)
            self._ids -= len(oldest.seq_of)
        self._seen[subject] = seen
        return seen


def decode(data: bytes) -> dict[str, Any]:
    """A journaled answer as JSON data."""
    return _DECODE(data)
