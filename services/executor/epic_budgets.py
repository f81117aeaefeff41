"""What each epic may use, as the planner's log has it now: a budget that is raised holds for the next call."""

from typing import Final, NamedTuple, Protocol

import msgspec

from contracts.commit import HEADER_SUMMARY
from contracts.ledger import Budget, Charge
from contracts.streams import EVENTS_PLANNER
from contracts.subjects import events, parse_events
from services.runtime.event_store import Recorded


class _Summary(msgspec.Struct, frozen=True):
    budget_usd_micros: int | None = None
    budget_tokens: int | None = None


_SUMMARY: Final = msgspec.json.Decoder(_Summary).decode


class _Known(NamedTuple):
    seq: int
    budget: Budget | None


class Log(Protocol):
    """The part of the bus that a look-up needs."""

    async def last(self, stream: str, subject: str) -> Recorded | None:
        """The newest message of one subject."""
        ...


class EpicBudgets:
    """A projection of the summaries in the headers of epic commits. `log` answers for epics that are not here yet."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._known: dict[str, _Known] = {}

    def take(self, record: Recorded) -> None:
        """Take in one stored commit of an epic; headers are enough."""
        text = record.headers.get(HEADER_SUMMARY)
        epic_id = parse_events(record.subject).aggregate_id
        known = self._known.get(epic_id)
        if text is None or (known is not None and known.seq >= record.seq):
            return
        said = _SUMMARY(text)
        budget = None
        if said.budget_usd_micros is not None or said.budget_tokens is not None:
            budget = Budget("epic", epic_id, said.budget_usd_micros, said.budget_tokens)
        self._known[epic_id] = _Known(record.seq, budget)

    def complete(self, charge: Charge) -> Charge | None:
        """The charge with its epic's budget; None when the epic is not known here and must be looked up."""
        if not charge.epic_id:
            return charge
        known = self._known.get(charge.epic_id)
        if known is None:
            return None
        if known.budget is None:
            return charge
        return msgspec.structs.replace(charge, budgets=[*charge.budgets, known.budget])

    async def look_up(self, charge: Charge) -> Charge:
        """The same, after asking the log. Raises Rejected when the broker is away."""
        found = await self._log.last(EVENTS_PLANNER, events("planner", "epic", charge.epic_id))
        if found is not None:
            self.take(found)
        return self.complete(charge) or charge
