"""May this call begin, and what did it cost: the ledger's commands and what they lead to. Pure.

A refusal that time or the end of another call may lift is a `Later`: whoever asks may wait. Order of the checks: the
same call, price, budgets (day, model, task, run, epic), then what may pass: budgets that only reservations fill,
calls under way, calls of the last minute.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from contracts.errors import Rejected
from contracts.ledger import (
    Abandoned,
    Budget,
    LedgerEvent,
    LlmReleased,
    LlmReserved,
    LlmReused,
    LlmTakenOver,
)
from services.llm_worker.ledger.limits import Limits
from services.llm_worker.ledger.payment import Pay, beside, payment, within
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
    shares,
    without,
)
from services.runtime.decider import Decider

MICROS: Final = 1_000_000
NOTHING: Final[Mapping[str, Held]] = {}


class Reserve(NamedTuple):
    """Let a call begin that uses at most so much, and is over `lasts_ms` later. `usd_micros` None: price unknown.

    `billed_by` is who may bill it although nobody hears the answer; empty: nobody does. A call that is paid already is
    reserved only `anew`: by whoever has seen that the journal has no answer to it. `lost`: the worker itself has asked
    before, and could keep nothing of what it heard.
    """

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
    billed_by: str = ""
    anew: bool = False
    lost: bool = False


class Release(NamedTuple):
    """A call cost nothing. Where `holder` or `request_seq` is given, it is released only if they hold it still.

    Whoever took it over in between may be in the middle of it: then it is theirs to end. `unheard`: nobody knows how it
    went, so whoever may bill it is paid, as for what was abandoned before.
    """

    corr_id: str
    worker_id: str
    reason: str
    holder: str = ""
    request_seq: int = 0
    unheard: bool = False


class Reuse(NamedTuple):
    """A call was asked for once more, and answered from the journal."""

    corr_id: str
    worker_id: str


class AskAgain(NamedTuple):
    """Who has taken a call over and looks has found no answer to it: now the provider is asked once more."""

    corr_id: str
    worker_id: str
    request_seq: int


LedgerCommand = Reserve | AskAgain | Pay | Release | Reuse


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
        case AskAgain():
            return _ask_again(command, ledger, now_ms)
        case Pay():
            return _pay(command, ledger, now_ms)
        case Release():
            return _release(command, ledger, now_ms)
        case Reuse():
            return (LlmReused(command.corr_id, now_ms, command.worker_id),)


def _reserve(wish: Reserve, ledger: Ledger, now_ms: int) -> Sequence[LedgerEvent]:
    entry = ledger.open.get(wish.corr_id)
    if entry is None:
        paid = call_mark(wish.corr_id, wish.request_seq) in ledger.closed
        return () if paid and not wish.anew else (_granted(wish, ledger, now_ms),)
    ours = entry.worker_id == wish.worker_id and entry.request_seq == wish.request_seq and not wish.lost
    if ours and entry.model == wish.model:
        return ()  # said twice is said once
    # Nobody knows how far a dead worker had come: whoever may bill its asking has asked for all of it.
    abandoned = entry.abandoned if ours else entry.unheard
    if entry.model != wish.model:
        return _swapped(wish, ledger, entry, abandoned, now_ms, "fallback")
    if (entry.tokens, entry.usd_micros) != (wish.tokens, wish.usd_micros):
        # Whoever goes on has other prices: what is held must be what it may cost now.
        return _swapped(wish, ledger, entry, abandoned, now_ms, "repriced")
    if abandoned != entry.abandoned:
        _check_budgets(wish, ledger, entry.day, now_ms, shares(entry.day, entry.budgets, abandoned))
    # The provider is asked once more, so it counts as a request.
    _check_rate(wish, ledger, now_ms)
    until_ms = now_ms + wish.lasts_ms
    holder = (wish.corr_id, now_ms, wish.worker_id, wish.request_seq, until_ms)
    return (LlmTakenOver(*holder, list(abandoned), looks=bool(abandoned)),)


def _ask_again(wish: AskAgain, ledger: Ledger, now_ms: int) -> Sequence[LedgerEvent]:
    """Nothing when the call has ended meanwhile, or is somebody else's."""
    entry = ledger.open.get(wish.corr_id)
    if entry is None or not entry.looks or (entry.worker_id, entry.request_seq) != wish[1:]:
        return ()
    return (LlmTakenOver(wish.corr_id, now_ms, *wish[1:], entry.expires_at_ms, list(entry.abandoned)),)


def _swapped(
    wish: Reserve, ledger: Ledger, entry: Open, abandoned: tuple[Abandoned, ...], now_ms: int, why: str
) -> Sequence[LedgerEvent]:
    """Another model answers instead, or for another price: what was held for it is free, if there is room for this.

    What may be billed for it all the same stays held, where it is.
    """
    kept = shares(entry.day, entry.budgets, abandoned)
    others = without(ledger, wish.corr_id, kept)
    reserved = _granted(wish, others, now_ms, entry.day if abandoned else "", abandoned, kept)
    return (LlmReleased(wish.corr_id, now_ms, wish.worker_id, why), reserved)


def _granted(
    wish: Reserve,
    ledger: Ledger,
    now_ms: int,
    day: str = "",
    abandoned: Sequence[Abandoned] = (),
    kept: Mapping[str, Held] = NOTHING,
) -> LlmReserved:
    _check_price(wish)
    _check_budgets(wish, ledger, day or day_of(now_ms), now_ms, kept)
    _check_concurrent(wish, ledger)
    _check_rate(wish, ledger, now_ms)
    return LlmReserved(
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
        billed_by=wish.billed_by,
        day="" if day == day_of(now_ms) else day,
        abandoned=list(abandoned),
    )


def _release(wish: Release, ledger: Ledger, now_ms: int) -> Sequence[LedgerEvent]:
    entry = ledger.open.get(wish.corr_id)
    if entry is None or (wish.holder and wish.holder != entry.worker_id):
        return ()
    if wish.request_seq and wish.request_seq != entry.request_seq:
        return ()
    # Whoever holds it and only looked has heard nothing of the others; whoever else ends it has seen their outcome.
    seen = entry.looks and not wish.holder
    abandoned = entry.unheard if wish.unheard else entry.lost if seen else entry.abandoned
    if not abandoned:
        return (LlmReleased(wish.corr_id, now_ms, wish.worker_id, wish.reason),)
    provider = entry.billed_by or abandoned[0].provider
    bill = Pay(wish.corr_id, wish.worker_id, entry.request_seq, entry.model, provider, 0, 0, 0, estimated=True)
    return (payment(bill, entry, abandoned, now_ms),)


def _pay(bill: Pay, ledger: Ledger, now_ms: int) -> Sequence[LedgerEvent]:
    entry = ledger.open.get(bill.corr_id)
    if entry is None or entry.request_seq != bill.request_seq:
        # Not reserved, released already, or held for another request of the same call: that one has its own end.
        if call_mark(bill.corr_id, bill.request_seq) in ledger.closed:
            return ()
        told = Abandoned(bill.provider, bill.model, bill.abandoned_tokens, bill.abandoned_usd_micros)
        return (payment(bill, None, (told,) if bill.abandoned_tokens else (), now_ms),)
    return (payment(within(bill, entry), entry, beside(bill, entry), now_ms),)


class _Account(NamedTuple):
    """One budget of a call: where it is counted, how much there is of it, and what a refusal says of it."""

    account: str
    code: str
    scope: str
    usd_micros: int | None
    tokens: int | None
    about: dict[str, Any]


def _accounts(wish: Reserve, day: str) -> Iterator[_Account]:
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


def _check_budgets(wish: Reserve, ledger: Ledger, day: str, now_ms: int, kept: Mapping[str, Held]) -> None:
    """Refuse what cannot fit; put off what would fit if the other calls under way cost nothing.

    `kept` is held for this very call already, and stays held whatever the others do.
    """
    later: Later | None = None
    for one in _accounts(wish, day):
        spent, held = ledger.spent.get(one.account, Spent()), ledger.held.get(one.account, Held())
        stays = kept.get(one.account, Held())
        for unit, limit, paid, reserved, sure, needed in (
            ("usd", one.usd_micros, spent.usd_micros, held.usd_micros, stays.usd_micros, wish.usd_micros or 0),
            ("tokens", one.tokens, spent.tokens, held.tokens, stays.tokens, wish.tokens),
        ):
            if limit is None or not needed or paid + reserved + needed <= limit:
                continue
            detail = _detail(one, unit, limit, paid, reserved, needed)
            if one.scope in ("day", "model"):
                detail["resets_at"] = f"{day_of(resets_at_ms(now_ms))}T00:00:00Z"
            if paid + sure + needed > limit:
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
