"""How long a call waits before it is begun: for a place at its model, and for a limit."""

import asyncio
from typing import Final

from contracts.errors import Rejected
from contracts.limits import LLM_TIMEOUT_GRACE_MS
from services.llm_worker.flight import Flight

ANSWER_MARGIN_S: Final = 1.0
"""So long before its deadline a run should hear that it waited in vain."""


def patience_s(flight: Flight, longest_s: float, now_ms: int) -> float:
    """How long a call may wait for a place.

    A run gives up at its deadline. It hears that the model is overloaded before that, and what is begun has its whole
    timeout, unless the deadline is so near that there would be no time to wait at all.
    """
    if not flight.for_run:
        return longest_s
    timeout_s = flight.request.params.timeout_ms / 1000
    usual_s = timeout_s + LLM_TIMEOUT_GRACE_MS / 1000
    until_ms = max(waiter.deadline_at_ms for waiter in flight.waiters)
    if not until_ms:
        return min(longest_s, usual_s)
    left_s = (until_ms - now_ms) / 1000
    return min(longest_s, max(left_s - usual_s, min(usual_s, left_s - ANSWER_MARGIN_S), 0.0))


def reserved_until_s(flight: Flight, end_s: float, now_ms: int) -> float:
    """Until when a call may wait for a limit: whoever asked without a run waits for its timeout and no longer.

    At an inbox that time began when the request was stored, wherever it waited since.
    """
    if flight.for_run:
        return end_s
    left_ms = flight.request.params.timeout_ms
    if all(waiter.reply for waiter in flight.waiters):
        left_ms -= max(0, now_ms - max(waiter.delivery.stored_at_ms for waiter in flight.waiters))
    return min(end_s, asyncio.get_running_loop().time() + max(0, left_ms) / 1000)


async def acquire(places: asyncio.Semaphore, end_s: float, wait_s: float) -> None:
    """Take a place, at `end_s` of the loop's clock at the latest. Raises Rejected("provider_overloaded")."""
    if not places.locked():
        await places.acquire()
        return
    try:
        async with asyncio.timeout_at(end_s):
            await places.acquire()
    except TimeoutError:
        raise Rejected("provider_overloaded", "no place became free at the model", waited_s=wait_s) from None
