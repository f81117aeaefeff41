"""The calls of the ledger as people ask for them: those that fit, summed, and the newest of them. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from contracts.ledger import (
    Abandoned,
    LedgerEvent,
    LedgerQuery,
    LedgerRow,
    LedgerView,
    LlmPaid,
    LlmReleased,
    LlmReserved,
    LlmReused,
    LlmTakenOver,
)
from services.llm_worker.ledger.abandoned import plus, tokens_of, usd_of
from services.runtime.clock import rfc3339

ROWS_MAX: Final = 1_000


class Rows:
    """A fold of the ledger's events, as far as they fit a query."""

    def __init__(self, query: LedgerQuery) -> None:
        self._query = query
        self._rows: dict[str, LedgerRow] = {}
        self._held = 0
        self._calls = self._tokens = self._cost = self._unknown = 0

    @property
    def held(self) -> bool:
        """Whether a call that fits has not ended yet."""
        return self._held > 0

    def take(self, events: Iterable[LedgerEvent]) -> None:
        """Take in what happened next."""
        for event in events:
            before = self._rows.get(event.corr_id)
            if isinstance(event, LlmReused):
                if before is not None:
                    self._rows[event.corr_id] = msgspec.structs.replace(before, answers=before.answers + 1)
                continue
            row = _row(before, event)
            if row is None or not self._fits(row, _day(before, event)):
                continue
            if isinstance(event, LlmPaid):
                self._calls, self._tokens = self._calls + 1, self._tokens + event.tokens
                if event.cost_usd_micros is None:
                    self._unknown += 1
                else:
                    self._cost += event.cost_usd_micros
            self._held += (row.status == "reserved") - (before is not None and before.status == "reserved")
            self._rows.pop(event.corr_id, None)
            self._rows[event.corr_id] = row
            if len(self._rows) > 2 * ROWS_MAX:
                self._forget()

    def view(self) -> LedgerView:
        """The answer."""
        held = [row for row in self._rows.values() if row.status == "reserved"]
        limit = self._query.limit
        return LedgerView(
            calls=self._calls,
            tokens=self._tokens,
            cost_usd_micros=self._cost,
            cost_unknown=self._unknown,
            reserved=len(held),
            reserved_usd_micros=sum(row.reserved_usd_micros or 0 for row in held),
            rows=list(self._rows.values())[-limit:] if limit else [],
        )

    def _fits(self, row: LedgerRow, day: str) -> bool:
        query = self._query
        return all(
            wanted is None or wanted == found
            for wanted, found in (
                (query.corr_id, row.corr_id),
                (query.run_id, row.run_id),
                (query.task_id, row.task_id),
                (query.epic_id, row.epic_id),
                (query.day, day),
            )
        )

    def _forget(self) -> None:
        """The oldest calls that have ended are only in the sums."""
        ended = [corr_id for corr_id, row in self._rows.items() if row.status != "reserved"]
        for corr_id in ended[:ROWS_MAX]:
            del self._rows[corr_id]


def _day(before: LedgerRow | None, event: LedgerEvent) -> str:
    """The day (UTC) of a call is the one in which it was reserved, whenever it ends."""
    if isinstance(event, LlmPaid | LlmReserved) and event.day:
        return event.day
    if before is not None and before.status == "reserved":
        return before.at[:10]
    return rfc3339(event.at_ms)[:10]


def _row(before: LedgerRow | None, event: LedgerEvent) -> LedgerRow | None:
    """A call as it stands behind one more event; None when nothing is known of it."""
    at = rfc3339(event.at_ms)
    change = msgspec.structs.replace
    match event:
        case LlmReserved():
            return LedgerRow(
                event.corr_id,
                "reserved",
                at,
                event.model,
                event.run_id,
                event.node_id,
                event.task_id,
                event.epic_id,
                event.worker_id,
                **_held(event.tokens, event.usd_micros, event.abandoned),
            )
        case LlmTakenOver():
            return None if before is None else change(before, worker_id=event.worker_id, **_held_again(before, event))
        case LlmPaid():
            row = before or LedgerRow(event.corr_id, "paid", at)
            return change(
                row,
                status="paid",
                at=at,
                model=event.model,
                run_id=event.run_id,
                node_id=event.node_id,
                task_id=event.task_id,
                epic_id=event.epic_id,
                worker_id=event.worker_id,
                prompt_tokens=event.prompt_tokens,
                completion_tokens=event.completion_tokens,
                cost_usd_micros=event.cost_usd_micros,
                estimated=event.estimated,
                answers=row.answers + 1,
                abandoned_tokens=tokens_of(event.abandoned),
                abandoned_usd_micros=usd_of(event.abandoned),
            )
        case LlmReleased():
            return None if before is None else change(before, status="released", at=at, reason=event.reason)
        case LlmReused():
            return before


def _held(tokens: int, usd_micros: int | None, abandoned: Sequence[Abandoned]) -> dict[str, Any]:
    """What a call is held for: its own worst case, and what may be billed of askings before."""
    return {
        "reserved_usd_micros": plus(usd_micros, usd_of(abandoned)),
        "reserved_tokens": tokens + tokens_of(abandoned),
        "abandoned_tokens": tokens_of(abandoned),
        "abandoned_usd_micros": usd_of(abandoned),
    }


def _held_again(before: LedgerRow, event: LlmTakenOver) -> dict[str, Any]:
    if not event.abandoned:
        return {}
    own = None
    if before.reserved_usd_micros is not None and before.abandoned_usd_micros is not None:
        own = before.reserved_usd_micros - before.abandoned_usd_micros
    return _held(before.reserved_tokens - before.abandoned_tokens, own, event.abandoned)
