"""Whether a human released the attempt that a call belongs to: by identity's signature, over the node as it stands.

The run's log only carries the proof. Its writer is not believed: not that somebody was asked, nor what they were shown.
"""

from collections import OrderedDict
from typing import Final

import msgspec

from contracts.approval import TakeApproval, action_digest
from contracts.errors import Rejected
from contracts.policy import CallOf
from contracts.release import action_of, may_release
from contracts.streams import EVENTS_EXECUTOR
from contracts.task import TaskSpec
from services.policy_gateway.run_facts import Bound
from services.runtime.bus import Bus
from services.runtime.grants import Grants

PROVEN_MAX: Final = 4_096
"""So many attempts are remembered as released; others are only verified once more."""


class _Added(msgspec.Struct, frozen=True):
    """An event, as far as it adds tasks; which of them is wanted is seen by its id alone, before it is decoded."""

    tasks: list[msgspec.Raw] = []


class _Commit(msgspec.Struct, frozen=True):
    events: list[_Added]


class _Named(msgspec.Struct, frozen=True):
    id: str


_COMMIT: Final = msgspec.json.Decoder(_Commit).decode
_NAMED: Final = msgspec.json.Decoder(_Named).decode
_SPEC: Final = msgspec.json.Decoder(TaskSpec).decode


class Releases:
    """Verifies releases, each once."""

    def __init__(self, bus: Bus, grants: Grants) -> None:
        self._bus, self._grants = bus, grants
        self._proven: OrderedDict[tuple[object, ...], None] = OrderedDict()

    async def check(self, call: CallOf, bound: Bound) -> None:
        """Refuse an attempt that no human released as it stands now. `bound` is what RunFacts says of the call.

        Raises Rejected: approval_required, approval_stale, approval_not_genuine, or what the bus raises while neither
        the log nor identity's key can be read.
        """
        release = bound.release  # of this attempt, or there is none
        if release is None:
            raise Rejected("approval_required")
        name = (call.run_id, call.task_id, release, bound.added_seq, bound.workspace)
        if name in self._proven:
            self._proven.move_to_end(name)
            return
        spec = await self._spec(call, bound.added_seq)
        digest = action_digest(action_of(spec, bound.workspace))
        if digest != release.digest:
            raise Rejected("approval_stale", gate_id=release.gate_id, digest=digest, shown=release.digest)
        if not may_release(spec, release.user):
            raise Rejected("approval_not_genuine", "the task names others who may release it", user=release.user)
        await self._grants.check(
            TakeApproval(
                release.gate_id, call.run_id, call.task_id, call.attempt, "granted", release.digest, release.at_ms,
                user=release.user, step=release.step, signature=release.signature, key=release.key,
            )
        )  # fmt: skip
        self._proven[name] = None
        if len(self._proven) > PROVEN_MAX:
            self._proven.popitem(last=False)

    async def _spec(self, call: CallOf, added_seq: int) -> TaskSpec:
        """The task as its run's log has it."""
        record = await self._bus.at(EVENTS_EXECUTOR, added_seq)
        if record is None:
            # A replica that is a moment behind the one that this gateway has read the log from.
            raise Rejected("nats_unavailable", "the log of the run cannot be read", run_id=call.run_id)
        try:
            raw = [task for event in _COMMIT(record.data).events for task in event.tasks]
            return next(_SPEC(task) for task in reversed(raw) if _NAMED(task).id == call.task_id)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, StopIteration) as error:
            raise Rejected("approval_stale", "the task cannot be read", task_id=call.task_id) from error
