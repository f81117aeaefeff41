"""May this call begin, and what did it cost: the ledger's commands and what they lead to. Pure.

A refusal that time or the end of another call may lift is a `Later`: whoever asks may wait. Order of the checks: the
same call, price, budgets (day, model, task, run, epic), then what may pass: budgets that only reservations fill,
calls under way, calls of the last minute.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from contracts.errors import Rejected
from contracts.ledger import Budget, LedgerEvent, LlmPaid, LlmReleased, LlmReserved, LlmReused, LlmTakenOver
from services.llm_worker.ledger.limits import Limits
from services.llm_worker.ledger.state import (
    ALL,
    WINDOW_MS,
    Held,
    Ledger,
    Open,
    Spent,
    call_mark,
    day_account,
    day_of,
    evolve,
    initial,
    model_account,
    resets_at_ms,
    without,
)
from services.runtime.decider import Decider

MICROS: Final = 1_000_000


class Reserve(NamedTuple):
    """Let a call begin that uses at most so much, and is over `lasts_ms` later. `usd_micros` None: price unknown."""

    corr_id: str
    worker_id: str
    request_seq: int
    model: str
    tokens: int
    usd_micros: int | None
    lasts_ms: int
    limits: Limits
    model_limits: Limits = Limits()
    budgets: tuple[Budget, ...] = ()
    allow_unpriced: bool = False
    run_id: str = ""
    node_id: str = ""
    task_id: str = ""
    epic_id: str = ""


class Pay(NamedTuple):
    """A call was answered. The ids and budgets count when it was never reserved, because nothing was limited."""

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


class Release(NamedTuple):
    """A call cost nothing. It is released only if `holder` holds it still, or if it is held for the same request.

    Whoever took it over in between may be in the middle of it: then it is theirs to end.
    """

    corr_id: str
    worker_id: str
    reason: str
    holder: str = ""
    request_seq: int = 0


class Reuse(NamedTuple):
    """A call was asked for once more, and answered from the journal."""

    corr_id: str
    worker_id: str


LedgerCommand = Reserve | Pay | Release | Reuse


class Later(Rejected):
    """Not now. `at_ms` is when it may be so, None when another call must end first."""

    def __init__(self, code: str, message: str | None = None, *, at_ms: int | None = None, **detail: Any) -> None:
        super().__init__(code, message, **detail)
        self.at_ms = at_ms


def decide(command: LedgerCommand, ledger: Ledger, now_ms: int) -> Sequence[LedgerEvent]:
    """Judge a wish against the facts. Raises Rejected: price_unknown, budget_exceeded, …, or Later."""
    match command:
        case Reserve():
            return _reserve(command, ledger, now_ms)
        case Pay():
            return _pay(command, ledger, now_ms)
        case Release():
            entry = ledger.open.get(command.corr_id)
            if entry is None or (command.holder and command.holder != entry.worker_id):
                return ()
            if command.request_seq and command.request_seq != entry.request_seq:
                return ()
            return (LlmReleased(command.corr_id, now_ms, command.worker_id, command.reason),)
        case Reuse():
            return (LlmReused(command.corr_id, now_ms, command.worker_id),)


def _reserve(wish: Reserve, ledger: Ledger, now_ms: int) -> Sequence[LedgerEvent]:
    entry = ledger.open.get(wish.corr_id)
    if entry is not None and entry.model != wish.model:
        # Another model answers instead: what the first one was held for is free, if there is room for this one.
        swapped = _granted(wish, without(ledger, wish.corr_id), now_ms)
        return (LlmReleased(wish.corr_id, now_ms, wish.worker_id, "fallback"), *swapped)
    if entry is not None:
        if entry.worker_id == wish.worker_id and entry.request_seq == wish.request_seq:
            return ()  # said twice is said once
        # The provider is asked once more, so it counts as a request; what it may cost is held already.
        _check_rate(wish, ledger, now_ms)
        return (LlmTakenOver(wish.corr_id, now_ms, wish.worker_id, wish.request_seq, now_ms + wish.lasts_ms),)
    return _granted(wish, ledger, now_ms)


def _granted(wish: Reserve, ledger: Ledger, now_ms: int) -> Sequence[LedgerEvent]:
    _check_price(wish)
    _check_budgets(wish, ledger, now_ms)
    _check_concurrent(wish, ledger)
    _check_rate(wish, ledger, now_ms)
    return (
        LlmReserved(
            wish.corr_id,
            now_ms,
            wish.worker_id,
            wish.model,
            wish.tokens,
            wish.usd_micros,
            wish.request_seq,
            now_ms + wish.lasts_ms,
            run_id=wish.run_id,
            node_id=wish.node_id,
            task_id=wish.task_id,
            epic_id=wish.epic_id,
            budgets=[budget.key for budget in wish.budgets],
        ),
    )


def _pay(bill: Pay, ledger: Ledger, now_ms: int) -> Sequence[LedgerEvent]:
    entry = ledger.open.get(bill.corr_id)
    if entry is None and call_mark(bill.corr_id, bill.request_seq) in ledger.closed:
        return ()
    if entry is not None:
        bill = _within(bill, entry)
    known: Open | Pay = bill if entry is None else entry
    unknown = bill.cost_usd_micros is None
    return (
        LlmPaid(
            bill.corr_id,
            now_ms,
            bill.worker_id,
            day_of(now_ms) if entry is None else entry.day,
            known.model,
            bill.provider,
            bill.prompt_tokens,
            bill.completion_tokens,
            bill.cost_usd_micros,
            bill.request_seq,
            run_id=known.run_id,
            node_id=known.node_id,
            task_id=known.task_id,
            epic_id=known.epic_id,
            budgets=list(known.budgets),
            estimated=bill.estimated,
            charged_usd_micros=entry.usd_micros if unknown and entry is not None else None,
            disputed_tokens=bill.disputed_tokens,
            disputed_usd_micros=bill.disputed_usd_micros,
        ),
    )


def _within(bill: Pay, entry: Open) -> Pay:
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


class _Account(NamedTuple):
    """One budget of a call: where it is counted, how much there is of it, and what a refusal says of it."""

    account: str
    code: str
    scope: str
    usd_micros: int | None
    tokens: int | None
    about: dict[str, Any]


def _accounts(wish: Reserve, now_ms: int) -> Iterator[_Account]:
    day = day_of(now_ms)
    if wish.limits.usd_micros:
        yield _Account(day_account(day), "budget_exceeded", "day", wish.limits.usd_micros, None, {})
    if wish.model_limits.usd_micros:
        account, about = model_account(day, wish.model), {"model": wish.model}
        yield _Account(account, "budget_exceeded", "model", wish.model_limits.usd_micros, None, about)
    for budget in wish.budgets:
        code = "epic_budget_exceeded" if budget.kind == "epic" else "budget_exceeded"
        yield _Account(budget.key, code, budget.kind, budget.usd_micros, budget.tokens, {"id": budget.id})


def _check_price(wish: Reserve) -> None:
    if wish.usd_micros is not None or wish.allow_unpriced:
        return
    budgets = (wish.limits.usd_micros, wish.model_limits.usd_micros)
    if any(budgets) or any(budget.usd_micros is not None for budget in wish.budgets):
        raise Rejected("price_unknown", model=wish.model)


def _check_budgets(wish: Reserve, ledger: Ledger, now_ms: int) -> None:
    """Refuse what cannot fit; put off what would fit if the calls under way cost nothing."""
    later: Later | None = None
    for one in _accounts(wish, now_ms):
        spent, held = ledger.spent.get(one.account, Spent()), ledger.held.get(one.account, Held())
        for unit, limit, paid, reserved, needed in (
            ("usd", one.usd_micros, spent.usd_micros, held.usd_micros, wish.usd_micros or 0),
            ("tokens", one.tokens, spent.tokens, held.tokens, wish.tokens),
        ):
            if limit is None or not needed or paid + reserved + needed <= limit:
                continue
            detail = _detail(one, unit, limit, paid, reserved, needed)
            if one.scope in ("day", "model"):
                detail["resets_at"] = f"{day_of(resets_at_ms(now_ms))}T00:00:00Z"
            if paid + needed > limit:
                raise Rejected(one.code, **detail)
            later = later or Later(one.code, **detail)
    if later is not None:
        raise later


def _detail(one: _Account, unit: str, limit: int, paid: int, reserved: int, needed: int) -> dict[str, Any]:
    def shown(amount: int) -> float:
        return amount / MICROS if unit == "usd" else amount

    return {
        "scope": one.scope,
        **one.about,
        "unit": unit,
        f"budget_{unit}": shown(limit),
        "limit": shown(limit),
        "spent": shown(paid),
        "reserved": shown(reserved),
        "needed": shown(needed),
    }


def _check_concurrent(wish: Reserve, ledger: Ledger) -> None:
    for name, limit in ((ALL, wish.limits.concurrent), (wish.model, wish.model_limits.concurrent)):
        if limit and ledger.live.get(name, 0) >= limit:
            raise Later("provider_overloaded", "too many calls are under way", concurrent=limit)


def _check_rate(wish: Reserve, ledger: Ledger, now_ms: int) -> None:
    for name, limit in ((ALL, wish.limits.per_minute), (wish.model, wish.model_limits.per_minute)):
        times = ledger.grants.get(name, ())
        # A call of exactly sixty seconds ago is out of the window.
        if not limit or len(times) - bisect_right(times, now_ms - WINDOW_MS) < limit:
            continue
        at_ms = times[-limit] + WINDOW_MS
        raise Later(
            "rate_limit_exceeded",
            at_ms=at_ms,
            requests_per_minute=limit,
            retry_after=max(1, -(-(at_ms - now_ms) // 1000)),
        )


LEDGER: Final[Decider[LedgerCommand, Ledger, LedgerEvent]] = Decider(
    initial=initial, decide=decide, evolve=evolve, is_terminal=lambda _: False
)
