"""Every version of every strategy, as the planner's log has it: a run keeps the version it began with."""

import asyncio
from typing import Final

from contracts.codec import CommitCodec
from contracts.errors import Rejected
from contracts.strategy import StrategyActivated, StrategyBody, StrategyDeactivated, StrategyEvent, StrategyPut
from services.runtime.event_store import Recorded

VERSION_WAIT_S: Final = 5.0
"""A run may begin before the strategy it names has arrived here; it is waited for this long."""


class StrategyBook:
    """A projection. Versions never change and are never forgotten: a look-up may find nothing, but nothing wrong."""

    def __init__(self) -> None:
        self._codec: CommitCodec[StrategyEvent] = CommitCodec(StrategyEvent)
        self._bodies: dict[str, StrategyBody] = {}
        self._active: dict[str, int] = {}
        self._grown = asyncio.Event()

    def take(self, record: Recorded) -> None:
        """Take in one stored commit; types of a newer version are skipped."""
        for event in self._codec.decode(record.data, skip_unknown=True).events:
            match event:
                case StrategyPut():
                    self._bodies[f"{event.name}@{event.version}"] = event.body
                    self._active[event.name] = event.version
                case StrategyActivated():
                    self._active[event.name] = event.version
                case StrategyDeactivated():
                    self._active.pop(event.name, None)
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()

    def resolve(self, reference: str) -> str:
        """`name@version` for a name (its active version) or a reference that has a version already."""
        name, at, _ = reference.partition("@")
        if at:
            return reference
        version = self._active.get(name)
        if version is None:
            raise Rejected("strategy_not_found", f"no version of {name[:64]} is active", name=name[:64])
        return f"{name}@{version}"

    def has(self, reference: str) -> bool:
        """Whether this `name@version` is here."""
        return reference in self._bodies

    @property
    def any_active(self) -> bool:
        """Whether some strategy could match."""
        return bool(self._active)

    async def find(self, reference: str, wait_s: float = VERSION_WAIT_S) -> StrategyBody:
        """The scripts of `name@version`, waiting for them if they are not here yet; raises strategy_not_found."""
        try:
            async with asyncio.timeout(wait_s):
                while (body := self._bodies.get(reference)) is None:
                    await self._grown.wait()
        except TimeoutError:
            raise Rejected("strategy_not_found", f"no such strategy: {reference[:100]}", name=reference[:100]) from None
        return body
