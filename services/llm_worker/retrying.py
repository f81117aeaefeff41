"""Asking a provider again: ours by stamina, with growing pauses and a spread; the SDKs' own retries are off."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import stamina

from contracts.errors import Rejected

T = TypeVar("T")
TRIES: Final = 3
FIRST_S: Final = 0.25
LONGEST_S: Final = 2.0
GROWTH: Final = 4.0


async def asked_again(
    failed: Rejected, may: Callable[[Rejected], bool], call: Callable[[], Awaitable[T]], until_s: float
) -> T:
    """The answer of one of the next tries, after `failed` ended the first one; raises what the last one said.

    A provider that says when it wants to be asked again is asked then, and not at all when that is after `until_s` of
    the loop's clock.

    What goes well at once never comes here, so it pays nothing for being retried: for stamina the failure that is
    known already is the first attempt. The deadline is the caller's.
    """
    known: Rejected | None = failed

    def worth_it(error: Exception) -> bool | float:
        if not isinstance(error, Rejected) or not may(error):
            return False
        told_s = error.detail.get("retry_after")
        if not isinstance(told_s, int):
            return True
        return asyncio.get_running_loop().time() + told_s < until_s and max(FIRST_S, float(told_s))

    async for attempt in stamina.retry_context(
        on=worth_it,
        attempts=TRIES,
        timeout=None,
        wait_initial=FIRST_S,
        wait_max=LONGEST_S,
        wait_jitter=FIRST_S,
        wait_exp_base=GROWTH,
    ):
        with attempt:
            if known is not None:
                error, known = known, None
                raise error
            return await call()
    raise failed
