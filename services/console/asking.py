"""Asking a service of several processes: the broker hands a question to one of them, and that one may be frozen.

So a question that changes nothing is put once more after a moment, most likely to another one; the first answer counts.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from services.console.connection import Console
    from services.console.output import Output

MOMENT_S: Final = 0.5
TRIES_MAX: Final = 8


async def first_answer(ask: Callable[[], Awaitable[Any]]) -> tuple[Any, bool]:
    """The first answer or refusal, and whether somebody kept silent before it. Each question has its own deadline.

    Raises what the last question raises when none is answered.
    """
    asked = [asyncio.ensure_future(ask())]
    try:
        while True:
            moment_s = MOMENT_S if len(asked) < TRIES_MAX else None  # then the deadline of the questions ends it
            done, _ = await asyncio.wait(asked, timeout=moment_s, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return await next(one for one in asked if one in done), len(asked) > 1
            asked.append(asyncio.ensure_future(ask()))
    finally:
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


async def ask_pool(console: "Console", verb: str, body: Any, output: "Output") -> Any:
    """Ask the pool what changes nothing: one worker that is frozen costs a moment, and is named."""
    found, silence = await first_answer(lambda: console.call(f"llm-worker.llm.{verb}", body))
    if silence:
        views, _ = await first_answer(lambda: console.call("llm-worker.llm.workers", {}))
        silent = [view.worker_id for view in views if view.silent]
        output.note(f"no answer at first; silent now: {', '.join(silent) or 'nobody'}")
    return found
