"""Every gate as it stands, in memory: a projection of the approval events, the same in every replica."""

from collections import OrderedDict
from typing import Final

import msgspec

from contracts.action_text import summary
from contracts.approval import ACTION_LISTED_BYTES_MAX, ApprovalEvent, ApprovalRequested, ApprovalView, signed_text
from contracts.codec import CommitCodec
from contracts.errors import Rejected
from contracts.subjects import parse_events
from contracts.taint import listed
from services.identity.approval.state import Approval, evolve
from services.runtime.clock import rfc3339
from services.runtime.event_store import Recorded
from services.runtime.signatures import signature_ok

CLOSED_KEPT_MAX: Final = 2_000
TITLE_LISTED_CHARS_MAX: Final = 200
PAGE_BYTES_MAX: Final = 4 << 20
"""A list ends before it has more: what a plan says of its tasks never makes an answer that nobody can carry."""
APPROVAL_CODEC: Final[CommitCodec[ApprovalEvent]] = CommitCodec(ApprovalEvent)


class ApprovalBook:
    """All gates that are open or owe an answer, and the last that do not."""

    def __init__(self) -> None:
        self._live: dict[str, Approval] = {}
        self._closed: OrderedDict[str, Approval] = OrderedDict()

    def take(self, record: Recorded) -> None:
        """Take in one commit."""
        approval_id = parse_events(record.subject).aggregate_id
        gate = self._live.get(approval_id) or self._closed.get(approval_id) or Approval(approval_id)
        for event in APPROVAL_CODEC.decode(record.data, skip_unknown=True).events:
            gate = evolve(gate, event)
        if gate.open or gate.owes_an_answer:
            self._live[approval_id] = gate
            return
        self._live.pop(approval_id, None)
        self._closed[approval_id] = gate
        self._closed.move_to_end(approval_id)
        if len(self._closed) > CLOSED_KEPT_MAX:
            self._closed.popitem(last=False)

    def is_closed(self, approval_id: str) -> bool:
        """Whether nothing can be answered there any more; also one that is forgotten."""
        gate = self._live.get(approval_id)
        return gate is None or not gate.open

    @property
    def open(self) -> int:
        """Gates that wait for a human."""
        return sum(gate.open for gate in self._live.values())

    def due(self, now_ms: int) -> list[str]:
        """Open gates whose time is over."""
        return [
            gate.approval_id
            for gate in self._live.values()
            if gate.open and gate.requested is not None and gate.requested.expires_at_ms <= now_ms
        ]

    def owing(self) -> list[str]:
        """Gates whose answer is not in the run's mailbox yet."""
        return [gate.approval_id for gate in self._live.values() if gate.owes_an_answer]

    def page(
        self, *, run_id: str | None, everything: bool, limit: int, now_ms: int, after: str | None = None
    ) -> list[ApprovalView]:
        """Gates: open ones by expiry, then, if wanted, the others, the one that was closed last first.

        Those behind `after`, when it is given, wherever that one stands by now. Raises approval_not_found.
        """
        gates = sorted((gate for gate in self._live.values() if gate.open), key=_order)
        if everything:
            owing = [gate for gate in self._live.values() if not gate.open]
            gates += [*owing, *reversed(self._closed.values())]
        if after is not None:
            gates = self._behind(gates, after)
        page: list[ApprovalView] = []
        room = PAGE_BYTES_MAX
        for gate in gates:
            if run_id is not None and _run(gate) != run_id:
                continue
            view = _listed(view_of(gate, now_ms))
            room -= len(msgspec.json.encode(view))
            if len(page) == limit or room < 0:
                break
            page.append(view)
        return page

    def _behind(self, gates: list[Approval], after: str) -> list[Approval]:
        last = self._live.get(after) or self._closed.get(after)
        if last is None:
            raise Rejected("approval_not_found", approval_id=after)
        if last in gates:
            return gates[gates.index(last) + 1 :]
        # It was closed since it was listed: what expires later is not listed yet.
        return [gate for gate in gates if _order(gate) > _order(last)]


def view_of(gate: Approval, now_ms: int) -> ApprovalView:
    """A gate as people and programs see it at a time."""
    asked = gate.requested
    if asked is None or gate.status is None:
        raise ValueError(f"{gate.approval_id} was never asked for")
    granted, denied = gate.granted, gate.denied
    return ApprovalView(
        approval_id=gate.approval_id,
        status=gate.status,
        run_id=asked.run_id,
        task_id=asked.task_id,
        attempt=asked.attempt,
        title=asked.title,
        digest=asked.digest,
        action=asked.action,
        requested_by=asked.requested_by,
        approvers=asked.approvers,
        requested_at=rfc3339(asked.at_ms),
        expires_at=rfc3339(asked.expires_at_ms),
        expires_at_ms=asked.expires_at_ms,
        user=granted.user if granted else denied.user if denied else None,
        kind="human" if granted or denied else None,
        step=granted.step if granted else denied.step if denied else None,
        reason=gate.reason,
        answered_at=rfc3339(gate.closed_at_ms) if gate.closed_at_ms else None,
        signature=granted.signature if granted else "",
        signature_ok=_signature_ok(gate, asked),
        action_bytes=len(msgspec.json.encode(asked.action)),
        summary=summary(asked.action),
        left_ms=max(0, asked.expires_at_ms - now_ms) if gate.open else None,
        read_from=asked.read_from,
        read_more=asked.read_more,
    )


def _listed(view: ApprovalView) -> ApprovalView:
    """Many gates fit into one answer: a large action is shown alone only, and so is a long title."""
    small = view.action_bytes <= ACTION_LISTED_BYTES_MAX
    title = view.title if len(view.title) <= TITLE_LISTED_CHARS_MAX else f"{view.title[: TITLE_LISTED_CHARS_MAX - 1]}…"
    told, more = listed(view.read_from, view.read_more)
    action = view.action if small else None
    return msgspec.structs.replace(view, action=action, title=title, read_from=told, read_more=more)


def _signature_ok(gate: Approval, asked: ApprovalRequested) -> bool | None:
    granted = gate.granted
    if granted is None:
        return None
    text = signed_text(
        approval_id=gate.approval_id,
        run_id=asked.run_id,
        task_id=asked.task_id,
        attempt=asked.attempt,
        digest=granted.digest,
        user=granted.user,
        step=granted.step,
        at_ms=granted.at_ms,
    )
    return signature_ok(granted.key, granted.signature, text)


def _order(gate: Approval) -> tuple[int, str]:
    return gate.requested.expires_at_ms if gate.requested else 0, gate.approval_id


def _run(gate: Approval) -> str | None:
    return gate.requested.run_id if gate.requested else None
