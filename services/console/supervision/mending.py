"""Mends that need a hand: a broker whose disk was full refuses to store until it is started anew."""

import asyncio
import shutil
import signal
from typing import Final

from contracts.errors import Rejected
from services.console.home import Home, InstanceRecord
from services.console.output import size
from services.console.processes import ended, send
from services.console.supervision.broker import greeting
from services.console.supervision.readiness import probe

ROOM_BYTES_MIN: Final = 4 << 20
BROKER_STOP_S: Final = 35.0
BACK_S: Final = 30.0
_POLL_S: Final = 0.1
_CHECK: Final = "storage:"
"""How a service says on /readyz that the broker stores nothing."""


async def stuck(home: Home, record: InstanceRecord) -> dict[str, str]:
    """The services of an instance that cannot store, with what they say."""
    found: dict[str, str] = {}
    for name, service in record.services.items():
        said = await probe(home.run, name, service.process.pid)
        if _CHECK in said.reason:
            found[name] = said.reason
    return found


async def mend_broker(home: Home, record: InstanceRecord) -> bool:
    """Start the broker anew if it stores nothing; the services stay, and store what they hold. Whether it was needed.

    Raises Rejected storage_full while the disk is still full, nats_unavailable when the broker does not come back.
    """
    if not await stuck(home, record):
        return False
    if record.broker is None:
        raise Rejected("storage_full", hint="free disk space where the broker is, and start it anew")
    free = shutil.disk_usage(home.root).free
    if free < ROOM_BYTES_MIN:
        raise Rejected("storage_full", f"only {size(free)} are free at {home.root}", hint="free disk space first")
    # Whoever supervises it starts it again.
    send(record.broker.process, signal.SIGTERM)
    if await ended([record.broker.process], BROKER_STOP_S):
        raise Rejected("internal", "the broker does not end", pid=record.broker.process.pid)
    await _back(home, record)
    return True


async def _back(home: Home, record: InstanceRecord) -> None:
    """Wait until the broker answers and every service can store again."""
    try:
        async with asyncio.timeout(BACK_S):
            while True:
                try:
                    await greeting(record.operator_url, timeout_s=1.0)
                    if not await _away(home, record):
                        return
                except Rejected:
                    pass  # it is being started
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        hint = f"look at {home.logs}/nats.log"
        raise Rejected("nats_unavailable", "the broker does not come back", hint=hint) from None


async def _away(home: Home, record: InstanceRecord) -> bool:
    """Whether a service that is there has not found the broker yet, or still cannot store."""
    for name, service in record.services.items():
        said = await probe(home.run, name, service.process.pid)
        if _CHECK in said.reason or "nats:" in said.reason:
            return True
    return False
