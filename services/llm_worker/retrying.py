"""Asking a provider again: ours by stamina, with growing pauses and a spread; the SDKs' own retries are off."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import stamina

from contracts.errors import Rejected

T = TypeVar("T")
TRIES: Final = 3
FIRST_S: Final = 0.25
LONGEST_S: Final = 2.0
GROWTH: Final = 4.0


async def asked_again(failed: Rejected, may: Callable[[Rejected], bool], call: Callable[[], Awaitable[T]]) -> T:
    """The answer of one of the next tries, after `failed` ended the first one; raises what the last one said.

    What goes well at once never comes here, so it pays nothing for being retried: for stamina the failure that is
    known already is the first attempt. The deadline is the caller's.
    """
    known: Rejected | None = failed

    def worth_it(error: Exception) -> bool:
        return isinstance(error, Rejected) and may(error)

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
