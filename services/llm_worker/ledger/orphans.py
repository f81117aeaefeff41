"""Reservations whose worker died and whose request nobody takes up: paid when their answer is journaled, else released.

Where their provider may bill what nobody heard they are paid, too: as reserved, or as the answer says that was kept and
not judged. That is the outcome of the call. It is journaled before, so that whoever gets the request after all hands it
over and does not ask a second time.

Usually the broker delivers a dead worker's request to another one, which goes on with the same reservation. But that
one may have no room for it as long as the reservation stands, and a request can be gone. So whoever has a call under
way is asked, as before a call that may be under way elsewhere; who is silent again and again does not have it.
"""

import asyncio
from collections import Counter
from typing import Any, Final

import msgspec

from contracts.errors import Rejected, failure
from contracts.llm import LlmError, LlmUnjudged
from services.llm_worker.claims import is_held
from services.llm_worker.flight import Flights
from services.llm_worker.journal import Journal, Key, settles
from services.llm_worker.judging.judge import SHOWN_CHARS_MAX
from services.llm_worker.ledger.abandoned import error_with
from services.llm_worker.ledger.cashier import Cashier
from services.llm_worker.ledger.state import Open
from services.llm_worker.unjudged import Unjudged
from services.runtime.bus import Bus
from services.runtime.clock import Clock
from services.runtime.held_secrets import tree_without_held
from services.runtime.metrics import Metrics

EVERY_S: Final = 1.0
YOUNG_MS: Final = 3_000
SILENT_MAX: Final = 14
"""Longer than the broker waits before it gives a request to another worker: that one goes on with what is held."""
ASKED_AT_ONCE_MAX: Final = 32
LOST: Final = "provider_error"
"""It may pass: the same call, asked anew, is called again."""
_ENCODE: Final = msgspec.json.Encoder().encode


class Orphans:
    """Looks after open reservations."""

    def __init__(
        self,
        *,
        bus: Bus,
        cashier: Cashier,
        journal: Journal,
        unjudged: Unjudged,
        flights: Flights,
        clock: Clock,
        metrics: Metrics,
        log: Any,
    ) -> None:
        self._bus, self._cashier, self._flights = bus, cashier, flights
        self._journal, self._unjudged = journal, unjudged
        self._clock, self._metrics, self._log = clock, metrics, log
        self._silent: Counter[tuple[str, str]] = Counter()
        self._asked: dict[tuple[str, str], int] = {}
        self._looks = 0

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.look()
            except Rejected as error:
                self._log.warning("orphans_not_seen_to", code=error.code)

    async def look(self) -> None:
        """Ask once for every reservation that is not quite young; see to those that nobody answered for so often."""
        oldest_ms = self._clock.now_ms() - YOUNG_MS
        suspects = [
            (corr_id, left)
            for corr_id, left in self._cashier.book.state.open.items()
            if left.at_ms <= oldest_ms and self._flights.of(corr_id) is None
        ]
        names = {(corr_id, left.worker_id) for corr_id, left in suspects}
        self._silent = Counter({name: count for name, count in self._silent.items() if name in names})
        self._asked = {name: look for name, look in self._asked.items() if name in names}
        some = sorted(suspects, key=self._urgency)[:ASKED_AT_ONCE_MAX]
        self._looks += 1
        self._asked.update(((corr_id, left.worker_id), self._looks) for corr_id, left in some)
        asker = self._cashier.worker_id
        taken = await asyncio.gather(*(is_held(self._bus, corr_id, asker) for corr_id, _ in some))
        for (corr_id, left), is_taken in zip(some, taken, strict=True):
            name = (corr_id, left.worker_id)
            if is_taken:
                del self._silent[name]
                continue
            self._silent[name] += 1
            if self._silent[name] >= SILENT_MAX:
                del self._silent[name]
                await self._see_to(corr_id, left)

    def _urgency(self, suspect: tuple[str, Open]) -> tuple[bool, int]:
        """Who is silent is asked again at once, the others in turn: calls of the living must not hide a dead one."""
        name = (suspect[0], suspect[1].worker_id)
        return name not in self._silent, self._asked.get(name, 0)

    async def _see_to(self, corr_id: str, left: Open) -> None:
        key = Key(left.run_id, left.node_id, corr_id)
        entry = await self._journal.find(key)
        if entry is None or not settles(entry, left.request_seq):
            entry = None  # of another request of the same call
            heard = await self._unjudged.find(key)
            if heard is not None and heard.said.request_seq == left.request_seq:
                await self._keep_outcome(key, left, heard.said)
                entry = await self._journal.find(key)
            elif left.unheard:
                await self._keep_outcome(key, left, None)
        events = await self._cashier.close_orphan(corr_id, left, entry)
        for event in events:
            outcome = type(event).__name__.removeprefix("Llm").lower()
            self._metrics.inc("htdag_llm_orphans_total", outcome=outcome)
            self._log.warning("orphan_closed", corr_id=corr_id, worker=left.worker_id, outcome=outcome)

    async def _keep_outcome(self, key: Key, left: Open, heard: LlmUnjudged | None) -> None:
        if heard is None:
            wire = failure(
                LOST, "its worker died in the middle of the call, which is paid as reserved", model=left.model
            )
            wire = error_with(wire, left.unheard)
        else:
            wire = failure(LOST, "its worker died before its answer was judged", model=left.model, **_shown(heard))
            besides = left.lost if left.looks else left.abandoned
            wire = error_with(wire, besides) if besides else wire
        data = _ENCODE(LlmError(*key, left.model, wire))
        await self._journal.store(key, data, outcome=LOST, model_used="", request_seq=left.request_seq)


def _shown(heard: LlmUnjudged) -> dict[str, Any]:
    """What an error says of an answer that is paid."""
    answer = heard.answer
    said: dict[str, Any] = {
        "output": answer.output[:SHOWN_CHARS_MAX],
        "usage": msgspec.to_builtins(answer.usage),
        "usage_estimated": heard.estimated,
        "cost_usd_micros": answer.cost_usd_micros,
    }
    told: dict[str, Any] = tree_without_held(said)
    return told
