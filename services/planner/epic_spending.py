"""What the LLM calls of each epic cost: a projection of the ledger, the one place that counts money.

Runs know what the answers they took cost. A call that was stopped, or answered after its run had ended, was paid too.
"""

from typing import Final, NamedTuple

from contracts.codec import CommitCodec
from contracts.commit import HEADER_TYPES
from contracts.ledger import LedgerEvent, LlmPaid
from services.runtime.event_store import Recorded

LEDGER_CODEC: Final[CommitCodec[LedgerEvent]] = CommitCodec(LedgerEvent)
PAID: Final = LEDGER_CODEC.tags[LlmPaid]


class EpicSpent(NamedTuple):
    """Tokens and known cost of an epic's calls; `unknown` counts those whose cost nobody knows."""

    tokens: int = 0
    usd_micros: int = 0
    unknown: int = 0


class EpicSpending:
    """The projection. `take` gets every commit of the ledger, in order."""

    def __init__(self) -> None:
        self._spent: dict[str, EpicSpent] = {}
        self._seq = 0

    def take(self, record: Recorded) -> None:
        """A commit of the ledger; one that comes again changes nothing."""
        if record.seq <= self._seq:
            return
        self._seq = record.seq
        if PAID not in record.headers.get(HEADER_TYPES, ""):
            return
        for event in LEDGER_CODEC.decode(record.data, skip_unknown=True).events:
            if isinstance(event, LlmPaid) and event.epic_id:
                self._add(event)

    def of(self, epic_id: str) -> EpicSpent:
        """What an epic has spent up to now."""
        return self._spent.get(epic_id, EpicSpent())

    def _add(self, paid: LlmPaid) -> None:
        tokens, micros, unknown = self.of(paid.epic_id)
        tokens += paid.tokens
        if paid.cost_usd_micros is None:
            unknown += 1
        else:
            micros += paid.cost_usd_micros
        self._spent[paid.epic_id] = EpicSpent(tokens, micros, unknown)
