"""What the ledger knows: open reservations, sums of days, models and budgets, and the grants of the last minute. Pure.

Changes are made in place. A change made for a commit that is not stored yet can be taken back: `Ledger.undo` lists how.
"""

import hashlib
from bisect import bisect_right, insort
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

from contracts.ledger import GRANTS_MAX, Abandoned, LedgerEvent, LlmPaid, LlmReleased, LlmReserved, LlmTakenOver
from services.llm_worker.ledger.abandoned import known_usd_of, merged

WINDOW_MS: Final = 60_000
DAY_MS: Final = 86_400_000
CLOSED_MAX: Final = 20_000
"""So many paid calls are remembered, in case their request is delivered once more."""
DAYS_MAX: Final = 40
BUDGETS_MAX: Final = 100_000
"""Sums of tasks and runs that had a budget; those not used for longest are forgotten. Those of epics are kept."""
ALL: Final = ""
"""Stands for all models together, where grants and calls are counted by model."""


class Spent(NamedTuple):
    """What is paid on one account. `unknown` counts calls whose cost nobody knows."""

    calls: int = 0
    tokens: int = 0
    usd_micros: int = 0
    unknown: int = 0


class Held(NamedTuple):
    """What open reservations hold of one account."""

    tokens: int = 0
    usd_micros: int = 0


class Open(NamedTuple):
    """A reservation that is neither paid nor released. `accounts` are all that it is held against.

    `abandoned` is held besides: askings of the same call, before the one that `tokens` and `usd_micros` are for. Where
    its worker `looks`, that one is not made yet, and of the others only those in `lost` are surely never answered.
    """

    worker_id: str
    request_seq: int
    at_ms: int
    expires_at_ms: int
    day: str
    model: str
    tokens: int
    usd_micros: int | None
    accounts: tuple[str, ...]
    budgets: tuple[str, ...]
    run_id: str
    node_id: str
    task_id: str
    epic_id: str
    billed_by: str = ""
    abandoned: tuple[Abandoned, ...] = ()
    looks: bool = False
    lost: tuple[Abandoned, ...] = ()

    @property
    def unheard(self) -> tuple[Abandoned, ...]:
        """All that may be billed for the call if nobody hears the answer of the asking that is held."""
        if self.looks or not self.billed_by:
            return self.abandoned
        return merged((*self.abandoned, Abandoned(self.billed_by, self.model, self.tokens, self.usd_micros)))


class Ledger:
    """The state of the aggregate."""

    __slots__ = ("closed", "grants", "held", "live", "open", "spent", "undo")

    def __init__(self) -> None:
        self.open: dict[str, Open] = {}
        self.spent: dict[str, Spent] = {}
        self.held: dict[str, Held] = {}
        self.live: dict[str, int] = {}
        self.grants: dict[str, list[int]] = {}
        self.closed: dict[int, None] = {}
        self.undo: list[Callable[[], Any]] | None = None

    def put(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        """Set one entry."""
        if self.undo is not None:
            if key in table:
                self.undo.append(lambda before=table[key]: table.__setitem__(key, before))  # type: ignore[misc]
            else:
                self.undo.append(lambda: table.pop(key))
        table[key] = value

    def drop(self, table: dict[Any, Any], key: Any) -> Any:
        """Take one entry out."""
        before = table.pop(key)
        if self.undo is not None:
            self.undo.append(lambda: table.__setitem__(key, before))
        return before

    def grant(self, model: str, at_ms: int) -> None:
        """One more call of a model was let through."""
        for name in (ALL, model):
            times = self.grants.setdefault(name, [])
            insort(times, at_ms)
            if self.undo is not None:
                self.undo.append(lambda times=times: times.pop(bisect_right(times, at_ms) - 1))  # type: ignore[misc]

    def may_have_forgotten(self, corr_id: str, request_seq: int) -> bool:
        """Whether a call may have been paid of which nothing is known here any more."""
        return len(self.closed) >= CLOSED_MAX and call_mark(corr_id, request_seq) not in self.closed

    def take_back(self) -> None:
        """Undo everything since `undo` was set, newest first."""
        for step in reversed(self.undo or ()):
            step()
        self.undo = None


def initial(_ledger_id: str) -> Ledger:
    """Nothing was ever called."""
    return Ledger()


def day_of(at_ms: int) -> str:
    """The UTC day of a moment, as `2026-11-28`."""
    return _day(at_ms // DAY_MS)


@lru_cache(maxsize=8)
def _day(number: int) -> str:
    return f"{datetime.fromtimestamp(number * DAY_MS / 1000, UTC):%Y-%m-%d}"


def resets_at_ms(at_ms: int) -> int:
    """The next midnight UTC."""
    return (at_ms // DAY_MS + 1) * DAY_MS


def day_account(day: str) -> str:
    """The account of a day."""
    return f"day/{day}"


def model_account(day: str, model: str) -> str:
    """The account of one model on a day."""
    return f"model/{day}/{model}"


def call_mark(corr_id: str, request_seq: int) -> int:
    """A number that stands for one call, as its request is stored."""
    return int.from_bytes(hashlib.blake2b(f"{request_seq}/{corr_id}".encode(), digest_size=7).digest())


def evolve(ledger: Ledger, event: LedgerEvent) -> Ledger:
    """Take a fact in. Never fails, never judges."""
    match event:
        case LlmReserved():
            _reserved(ledger, event)
        case LlmTakenOver():
            before = ledger.open.get(event.corr_id)
            if before is not None:
                _taken_over(ledger, event, before)
        case LlmPaid():
            held = ledger.open.get(event.corr_id)
            if held is not None and held.request_seq == event.request_seq:
                _close(ledger, event.corr_id)
            _paid(ledger, event)
        case LlmReleased():
            _close(ledger, event.corr_id)
    return ledger


def _reserved(ledger: Ledger, event: LlmReserved) -> None:
    if event.corr_id in ledger.open:
        return
    day = event.day or day_of(event.at_ms)
    accounts = (day_account(day), model_account(day, event.model), *event.budgets)
    entry = Open(
        event.worker_id,
        event.request_seq,
        event.at_ms,
        event.expires_at_ms,
        day,
        event.model,
        event.tokens,
        event.usd_micros,
        accounts,
        tuple(event.budgets),
        event.run_id,
        event.node_id,
        event.task_id,
        event.epic_id,
        event.billed_by,
        tuple(event.abandoned),
    )
    ledger.put(ledger.open, event.corr_id, entry)
    _hold(ledger, entry, 1)
    ledger.grant(event.model, event.at_ms)


def _taken_over(ledger: Ledger, event: LlmTakenOver, before: Open) -> None:
    lost = before.lost if before.looks else before.abandoned
    after = before._replace(
        worker_id=event.worker_id,
        request_seq=event.request_seq,
        expires_at_ms=event.expires_at_ms,
        abandoned=tuple(event.abandoned) or before.abandoned,
        looks=event.looks,
        lost=lost if event.looks else (),
    )
    ledger.put(ledger.open, event.corr_id, after)
    if after.abandoned != before.abandoned:
        _hold_abandoned(ledger, before, -1)
        _hold_abandoned(ledger, after, 1)
    if not before.looks or before.worker_id != event.worker_id:  # who has looked is the same request as before
        ledger.grant(before.model, event.at_ms)


def _hold(ledger: Ledger, entry: Open, sign: int) -> None:
    for account in entry.accounts:
        _add(ledger, account, sign * entry.tokens, sign * (entry.usd_micros or 0))
    _hold_abandoned(ledger, entry, sign)
    for name in (ALL, entry.model):
        live = ledger.live.get(name, 0) + sign
        if live:
            ledger.put(ledger.live, name, live)
        else:
            ledger.drop(ledger.live, name)


def _hold_abandoned(ledger: Ledger, entry: Open, sign: int) -> None:
    for account, (tokens, micros) in shares(entry.day, entry.budgets, entry.abandoned).items():
        _add(ledger, account, sign * tokens, sign * micros)


def _add(ledger: Ledger, account: str, tokens: int, usd_micros: int) -> None:
    before = ledger.held.get(account, Held())
    held = Held(before.tokens + tokens, before.usd_micros + usd_micros)
    if any(held):
        ledger.put(ledger.held, account, held)
    elif account in ledger.held:
        ledger.drop(ledger.held, account)


def shares(day: str, budgets: Sequence[str], abandoned: Sequence[Abandoned]) -> dict[str, Held]:
    """What askings that nobody heard are of each account: of their own model's, and of what the call counts for."""
    found: dict[str, Held] = {}
    for one in abandoned:
        for account in (day_account(day), model_account(day, one.model), *budgets):
            tokens, micros = found.get(account, Held())
            found[account] = Held(tokens + one.tokens, micros + (one.usd_micros or 0))
    return found


def _close(ledger: Ledger, corr_id: str) -> None:
    if corr_id in ledger.open:
        _hold(ledger, ledger.drop(ledger.open, corr_id), -1)


def _paid(ledger: Ledger, event: LlmPaid) -> None:
    cost = event.cost_usd_micros
    charged = (event.charged_usd_micros or 0) if cost is None else cost
    own_tokens, own_micros = event.prompt_tokens + event.completion_tokens, charged - known_usd_of(event.abandoned)
    besides = shares(event.day, event.budgets, event.abandoned)
    own = (day_account(event.day), model_account(event.day, event.model), *event.budgets)
    for account in (*own, *(other for other in besides if other not in own)):
        more, counts = besides.get(account, Held()), account in own
        # Anew at the end: what is forgotten first is what was not used for longest, not what began first.
        calls, used, micros, unknown = ledger.drop(ledger.spent, account) if account in ledger.spent else Spent()
        used, micros = used + more.tokens, micros + more.usd_micros
        if counts:
            calls, used, micros = calls + 1, used + own_tokens, micros + own_micros
        ledger.put(ledger.spent, account, Spent(calls, used, micros, unknown + (counts and cost is None)))
    ledger.put(ledger.closed, call_mark(event.corr_id, event.request_seq), None)


def without(ledger: Ledger, corr_id: str, kept: Mapping[str, Held]) -> Ledger:
    """What would be held if one reservation were gone but for `kept`; the ledger itself stays as it is."""
    other = Ledger()
    other.spent, other.grants, other.closed = ledger.spent, ledger.grants, ledger.closed
    other.open, other.held, other.live = dict(ledger.open), dict(ledger.held), dict(ledger.live)
    _close(other, corr_id)
    for account, (tokens, micros) in kept.items():
        _add(other, account, tokens, micros)
    return other


def trim(ledger: Ledger, now_ms: int) -> None:
    """Forget what no decision needs any more. Not while a commit is under way."""
    while len(ledger.closed) > CLOSED_MAX:
        del ledger.closed[next(iter(ledger.closed))]
    for name, times in list(ledger.grants.items()):
        gone = max(bisect_right(times, now_ms - WINDOW_MS), len(times) - GRANTS_MAX)
        if gone:
            del times[:gone]
        if not times:
            del ledger.grants[name]
    if len(ledger.spent) > BUDGETS_MAX:
        _forget_oldest(ledger)


def _forget_oldest(ledger: Ledger) -> None:
    """Days of long ago and the oldest tasks and runs go; a tenth more than needed, so that it is seldom done."""
    by_day = sorted({key.split("/", 2)[1] for key in ledger.spent if key.startswith("day/")})
    kept = set(by_day[-DAYS_MAX:])
    for key in [key for key in ledger.spent if key.startswith(("day/", "model/")) and key.split("/", 2)[1] not in kept]:
        del ledger.spent[key]
    surplus = len(ledger.spent) - BUDGETS_MAX * 9 // 10
    for key in [key for key in ledger.spent if key.startswith(("task/", "run/"))][: max(0, surplus)]:
        if key not in ledger.held:
            del ledger.spent[key]
