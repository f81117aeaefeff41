"""Configuration of the executor. Section `executor` of `htdag.toml`."""

from typing import Annotated, Final

import msgspec

from contracts.approval import APPROVAL_TIMEOUT_DEFAULT_MS, APPROVAL_TIMEOUT_MAX_MS

SECTION: Final = "executor"

Count = Annotated[int, msgspec.Meta(ge=1, le=100_000)]


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an executor can be told.

    `lua_children` processes run Lua; at most `bodies_max` NATS calls are under way at once.
    `partition_credit` mailbox messages of one partition may be unsettled; an actor at rest for `idle_s` leaves memory.
    Runs that ended stay as long, but together with at most `ended_tasks_max` tasks, the biggest leave first.
    A run's state is kept beside its log after `snapshot_every_events` (later if it is big), so that it wakes fast.
    `auto_admin` lets admin tasks start without a human: it is logged loudly. Else they wait `approval_timeout_ms`.
    `approval_keys` are public keys of identity (hex) whose releases are believed; without one identity is asked.
    """

    lua_children: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2
    bodies_max: Count = 1024
    partition_credit: Count = 256
    ended_tasks_max: Annotated[int, msgspec.Meta(ge=0, le=10_000_000)] = 10_000
    actors_max: Count = 20_000
    mailbox_messages_max: Count = 20_000
    idle_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 30.0
    auto_admin: bool = False
    approval_timeout_ms: Annotated[int, msgspec.Meta(ge=1000, le=APPROVAL_TIMEOUT_MAX_MS)] = APPROVAL_TIMEOUT_DEFAULT_MS
    approval_keys: list[str] = []
    snapshot_every_events: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 10_000

    def warnings(self) -> list[str]:
        """What whoever starts this must hear."""
        return ["AUTO ADMIN: admin tasks start without a human (executor.auto_admin)."] if self.auto_admin else []
