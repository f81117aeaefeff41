"""From an accepted code to its gates, also when the process dies in between.

That a code was accepted for these gates is one commit in the account's log. Carrying it out is another, in each gate's
log; whoever starts, or takes over, finds in the account's log what was not carried out yet. Carrying out twice is once.
"""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from contracts.approval import ApprovalEvent, signed_text
from contracts.codec import CommitCodec, Undecodable, UnknownType
from contracts.errors import Rejected
from contracts.identity import AttemptAccepted, GateRef, UserEvent, UserKind
from contracts.subjects import parse_events
from services.identity.approval.decider import ApprovalCommand, DenyGate, GrantGate
from services.identity.approval.state import Approval
from services.identity.approval_book import ApprovalBook
from services.identity.sealing import Sealer
from services.runtime.actor import ActorHost
from services.runtime.event_store import Recorded

USER_CODEC: Final[CommitCodec[UserEvent]] = CommitCodec(UserEvent)


class Proof(NamedTuple):
    """A human's accepted code and what it was given for. Only humans get this far."""

    purpose: Literal["approval", "deny"]
    user_id: str
    kind: UserKind
    step: int
    at_ms: int
    gates: Sequence[GateRef]
    reason: str


class Finished(NamedTuple):
    """How many proofs were carried out, and at which gates that failed: those are tried again."""

    done: int
    failed: list[str]


class Proofs:
    """Carries proofs out, and remembers from the log which are not carried out yet."""

    def __init__(
        self, host: ActorHost[ApprovalCommand, Approval, ApprovalEvent], book: ApprovalBook, sealer: Sealer
    ) -> None:
        self._host, self._book, self._sealer = host, book, sealer
        self._pending: dict[tuple[str, int, str], tuple[Proof, GateRef]] = {}
        self._seen: set[tuple[str, int, str]] = set()

    async def apply(self, proof: Proof, gate: GateRef) -> Rejected | None:
        """Grant or deny one gate; the refusal when the gate did not stay open meanwhile."""
        try:
            await self._host.ask(gate.approval_id, await self._command(proof, gate), by=proof.user_id)
        except Rejected as error:
            if not error.code.startswith("approval_"):
                raise
            self._pending.pop((proof.user_id, proof.step, gate.approval_id), None)
            return error
        self._pending.pop((proof.user_id, proof.step, gate.approval_id), None)
        return None

    def take(self, record: Recorded) -> None:
        """Take in one commit of an account."""
        user_id = parse_events(record.subject).aggregate_id
        for event in USER_CODEC.decode(record.data, skip_unknown=True).events:
            if isinstance(event, AttemptAccepted) and event.purpose in ("approval", "deny"):
                purpose: Literal["approval", "deny"] = "deny" if event.purpose == "deny" else "approval"
                proof = Proof(purpose, user_id, "human", event.step, event.at_ms, event.gates, event.reason)
                for gate in event.gates:
                    self._pending[user_id, event.step, gate.approval_id] = (proof, gate)

    async def finish(self, *, at_start: bool) -> Finished:
        """Carry out what another process left behind, each for itself: one gate that is broken stops no other.

        Later than at the start it may only be under way: then it has time until the next look.
        """
        done, failed = 0, list[str]()
        for key, (proof, gate) in list(self._pending.items()):
            if self._book.is_closed(gate.approval_id):
                self._pending.pop(key, None)
            elif at_start or key in self._seen:
                try:
                    done += await self.apply(proof, gate) is None
                except (Rejected, UnknownType, Undecodable):
                    failed.append(gate.approval_id)
        self._seen = set(self._pending)
        return Finished(done, failed)

    def is_pending(self, approval_id: str) -> bool:
        """Whether a proof for this gate was accepted: then it is answered, not late."""
        return any(gate == approval_id for _, _, gate in self._pending)

    async def _command(self, proof: Proof, gate: GateRef) -> ApprovalCommand:
        if proof.purpose == "deny":
            return DenyGate(proof.user_id, proof.step, gate.digest, proof.at_ms, proof.reason)
        state, _ = await self._host.read(gate.approval_id)
        asked = state.requested
        if asked is None:
            raise Rejected("approval_not_found", approval_id=gate.approval_id)
        text = signed_text(
            approval_id=gate.approval_id,
            run_id=asked.run_id,
            task_id=asked.task_id,
            attempt=asked.attempt,
            digest=asked.digest,
            user=proof.user_id,
            step=proof.step,
            at_ms=proof.at_ms,
        )
        return GrantGate(
            user=proof.user_id,
            kind=proof.kind,
            step=proof.step,
            digest=gate.digest,
            at_ms=proof.at_ms,
            signature=self._sealer.sign(text),
            key=self._sealer.public_key,
            batch=tuple(proof.gates) if len(proof.gates) > 1 else (),
        )
