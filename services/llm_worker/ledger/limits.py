"""Limits as configuration: of all calls, and of the calls of one model. Pure data."""

from typing import Annotated, NamedTuple

import msgspec

from contracts.ledger import GRANTS_MAX

Dollars = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
PerMinute = Annotated[int, msgspec.Meta(ge=0, le=GRANTS_MAX)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class Limits(NamedTuple):
    """What must hold at any time; 0 is no limit. Money is of one day (UTC), requests of any sixty seconds."""

    usd_micros: int = 0
    per_minute: int = 0
    concurrent: int = 0

    @property
    def lifted(self) -> bool:
        """Whether nothing is limited."""
        return not any(self)


class LimitsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[llm_worker.limits]`: limits of all workers together; 0 is no limit.

    `usd_per_day` counts by UTC, `requests_per_minute` over any sixty seconds. With `allow_unpriced` models whose price
    nobody knows may answer although money is limited: only their tokens are counted then.
    """

    usd_per_day: Dollars = 100.0
    requests_per_minute: PerMinute = 60
    concurrent: Count = 10
    allow_unpriced: bool = False

    @property
    def limits(self) -> Limits:
        """The same in whole micro-dollars."""
        return Limits(round(self.usd_per_day * 1_000_000), self.requests_per_minute, self.concurrent)
