"""The event loop our processes run on: uvloop where it is installed, half the latency per message."""

import asyncio
from collections.abc import Callable


def factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What `asyncio.Runner` takes as its loop_factory; None for the loop of the standard library."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
