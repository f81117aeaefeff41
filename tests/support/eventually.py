"""Waiting for something to become true, with a deadline, instead of sleeping and hoping."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any, Final

PATIENCE_S: Final = 15.0
"""A busy machine is no failure: only a test that fails waits so long."""


async def eventually(check: Callable[[], Any], *, timeout_s: float = PATIENCE_S, interval_s: float = 0.01) -> Any:
    """Call `check` (plain or async) until it returns something true, and return that.

    An AssertionError inside `check` means "not yet". After `timeout_s` raises AssertionError that shows what the last
    call said. Every other exception is passed on at once.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            value = check()
            if inspect.isawaitable(value):
                async with asyncio.timeout(max(deadline_s - time.monotonic(), interval_s)):
                    value = await value
            if value:
                return value
            last = f"last value: {value!r}"
        except AssertionError as error:
            last = f"last refusal: {error}"
        except TimeoutError:
            last = "the check itself did not end"
        if time.monotonic() >= deadline_s:
            raise AssertionError(f"not true after {timeout_s} s; {last}")
        await asyncio.sleep(interval_s)
