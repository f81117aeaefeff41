"""Askings that nobody heard the answer of: when a worker dies in the middle of a call, its provider may bill it still.

Nobody can know whether the dead one had asked already, and how much was said to it: so it is the worst case that stays
held, beside what the next asking may cost, and becomes a part of what the call has cost. Pure.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from contracts.ledger import Abandoned
from contracts.llm import LlmAnswer, LlmError, Usage


def merged(askings: Iterable[Abandoned]) -> tuple[Abandoned, ...]:
    """One entry for each model: however often a call loses its worker, the list stays short."""
    found: dict[tuple[str, str], Abandoned] = {}
    for one in askings:
        key = (one.provider, one.model)
        before = found.get(key, Abandoned(*key, 0, 0))
        usd = plus(before.usd_micros, one.usd_micros)
        found[key] = Abandoned(*key, before.tokens + one.tokens, usd)
    return tuple(found.values())


def plus(left: int | None, right: int | None) -> int | None:
    """A sum with what nobody knows is unknown."""
    return None if left is None or right is None else left + right


def tokens_of(abandoned: Iterable[Abandoned]) -> int:
    """All their tokens."""
    return sum(one.tokens for one in abandoned)


def usd_of(abandoned: Iterable[Abandoned]) -> int | None:
    """What they may have cost; None when the price of one is unknown."""
    total: int | None = 0
    for one in abandoned:
        total = plus(total, one.usd_micros)
    return total


def known_usd_of(abandoned: Iterable[Abandoned]) -> int:
    """The part of it that is known."""
    return sum(one.usd_micros or 0 for one in abandoned)


def told_with(answer: LlmAnswer | LlmError, abandoned: Sequence[Abandoned]) -> LlmAnswer | LlmError:
    """The outcome of a call with what was abandoned on the way to it: its cost is what the ledger will say."""
    if not abandoned:
        return answer
    tokens, usd = tokens_of(abandoned), usd_of(abandoned)
    if isinstance(answer, LlmError):
        return msgspec.structs.replace(answer, error=error_with(answer.error, abandoned))
    cost = plus(answer.cost_usd_micros, usd)
    return msgspec.structs.replace(answer, cost_usd_micros=cost, abandoned_tokens=tokens, abandoned_usd_micros=usd)


def error_with(wire: dict[str, Any], abandoned: Sequence[Abandoned]) -> dict[str, Any]:
    """The same for an error: it is paid, whether or not the last asking used anything itself."""
    if "usage" not in wire:
        nothing = {"usage": msgspec.to_builtins(Usage(0, 0, 0)), "usage_estimated": True, "cost_usd_micros": 0}
        wire = {**wire, **nothing}
    return {
        **wire,
        "cost_usd_micros": plus(wire.get("cost_usd_micros"), usd_of(abandoned)),
        "abandoned_tokens": tokens_of(abandoned),
        "abandoned_usd_micros": usd_of(abandoned),
    }
