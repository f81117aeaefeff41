"""What is written down for a call when it ends: its own bill, and beside it askings that nobody heard. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from contracts.ledger import Abandoned, LlmPaid
from services.llm_worker.ledger.abandoned import known_usd_of, plus, tokens_of, usd_of
from services.llm_worker.ledger.state import Open, day_of


class Pay(NamedTuple):
    """A call was answered. The ids and budgets count when it was never reserved, because nothing was limited.

    The tokens and the cost are its own; `abandoned_*` is what the answer says beside them.
    """

    corr_id: str
    worker_id: str
    request_seq: int
    model: str
    provider: str
    prompt_tokens: int
    completion_tokens: int
    cost_usd_micros: int | None
    estimated: bool = False
    run_id: str = ""
    node_id: str = ""
    task_id: str = ""
    epic_id: str = ""
    budgets: tuple[str, ...] = ()
    disputed_tokens: int = 0
    disputed_usd_micros: int = 0
    abandoned_tokens: int = 0
    abandoned_usd_micros: int | None = 0


def beside(bill: Pay, entry: Open) -> tuple[Abandoned, ...]:
    """Which askings are paid with an answer: those that it tells of, unless more may have been made since.

    Where it says more than the ledger has abandoned, the asking that is held is meant, too: whoever answers has found
    it so, and did not ask. Where it says less, its worker did not know yet that the call was taken over: that costs
    nothing as long as whoever took it over only looks, and finds this answer.
    """
    if bill.abandoned_tokens > tokens_of(entry.abandoned):
        return entry.unheard
    if entry.looks and bill.abandoned_tokens <= tokens_of(entry.lost):
        return entry.lost
    return entry.abandoned


def payment(bill: Pay, entry: Open | None, abandoned: Sequence[Abandoned], now_ms: int) -> LlmPaid:
    """What is written down once for a call, with all askings of it that may be billed."""
    known: Open | Pay = bill if entry is None else entry
    cost = plus(bill.cost_usd_micros, usd_of(abandoned))
    model = known.model
    if any(one.model == bill.model for one in abandoned):
        model = bill.model  # of a worker that was taken over, by one that asks another model
    return LlmPaid(
        bill.corr_id,
        now_ms,
        bill.worker_id,
        day_of(now_ms) if entry is None else entry.day,
        model,
        bill.provider,
        bill.prompt_tokens,
        bill.completion_tokens,
        cost,
        bill.request_seq,
        run_id=known.run_id,
        node_id=known.node_id,
        task_id=known.task_id,
        epic_id=known.epic_id,
        budgets=list(known.budgets),
        estimated=bill.estimated,
        charged_usd_micros=_charged(bill, entry, abandoned) if cost is None else None,
        disputed_tokens=bill.disputed_tokens,
        disputed_usd_micros=bill.disputed_usd_micros,
        abandoned=list(abandoned),
    )


def _charged(bill: Pay, entry: Open | None, abandoned: Sequence[Abandoned]) -> int | None:
    """What budgets count for a call whose cost nobody knows: all that was reserved of what has a price."""
    own = bill.cost_usd_micros
    if own is None and entry is not None:
        own = entry.usd_micros
    return own if own is None and not abandoned else (own or 0) + known_usd_of(abandoned)


def within(bill: Pay, entry: Open) -> Pay:
    """The bill, no larger than what was held for it: limits hold at every sequence, whoever reports what."""
    over = max(0, bill.prompt_tokens + bill.completion_tokens - entry.tokens)
    from_prompt = min(over, bill.prompt_tokens)
    cost = bill.cost_usd_micros
    excess = 0 if cost is None or entry.usd_micros is None else max(0, cost - entry.usd_micros)
    if not over and not excess:
        return bill
    return bill._replace(
        prompt_tokens=bill.prompt_tokens - from_prompt,
        completion_tokens=bill.completion_tokens - (over - from_prompt),
        cost_usd_micros=None if cost is None else cost - excess,
        disputed_tokens=bill.disputed_tokens + over,
        disputed_usd_micros=bill.disputed_usd_micros + excess,
    )
