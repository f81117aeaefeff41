"""Work that ends when it is told to: nothing of it goes on once its outcome is known."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from contracts.errors import Rejected

CUT_S: Final = 20.0
"""Work ends what it started within this time; what does not is stuck in the kernel or in a program of others."""


async def unless_withdrawn(work: Coroutine[Any, Any, Any], withdrawn: "asyncio.Future[Rejected]") -> Any:
    """The outcome of some work. Raises what `withdrawn` holds, once the work has been cut, if that comes first."""
    if withdrawn.done():
        work.close()
        raise withdrawn.result()
    task = asyncio.get_running_loop().create_task(work)
    try:
        await asyncio.wait((task, withdrawn), return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        await _cut(task)
        raise
    if not task.done():
        await _cut(task)
        if task.cancelled() or not task.done():
            raise withdrawn.result()
    return task.result()


async def _cut(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    await asyncio.wait((task,), timeout=CUT_S)
    if task.done() and not task.cancelled():
        task.exception()  # looked at, so that it is not reported as lost
