"""`approval.list|show|key`: gates as people see them before they answer, and the key that answers are signed with."""

from typing import Final

from contracts.approval import ApprovalKey, ApprovalList, ApprovalRef, ApprovalView
from contracts.errors import Rejected
from contracts.requests import Nothing
from contracts.subjects import check_id
from services.identity.approval_book import ApprovalBook, view_of
from services.identity.gates import ApprovalHost, gate_of
from services.runtime.clock import Clock
from services.runtime.rpc import Caller

PAGE_MAX: Final = 500


class ApprovalHandlers:
    """Shows gates. `public_key` is that of the signatures on releases."""

    def __init__(self, host: ApprovalHost, book: ApprovalBook, public_key: str, clock: Clock) -> None:
        self._host, self._book, self._public_key, self._clock = host, book, public_key, clock

    async def key(self, _request: Nothing, _caller: Caller) -> ApprovalKey:
        """The key that whoever acts on a release checks it with."""
        return ApprovalKey(self._public_key)

    async def page(self, request: ApprovalList, _caller: Caller) -> list[ApprovalView]:
        """Open gates, or all that are remembered."""
        if not 1 <= request.limit <= PAGE_MAX:
            raise Rejected("bad_request", f"limit must be 1 to {PAGE_MAX}", field="limit", min=1, max=PAGE_MAX)
        return self._book.page(
            run_id=request.run_id,
            everything=request.all,
            limit=request.limit,
            now_ms=self._clock.now_ms(),
            after=request.after,
        )

    async def show(self, request: ApprovalRef, _caller: Caller) -> ApprovalView:
        """One gate as the log has it now. Raises approval_not_found."""
        state = await gate_of(self._host, check_id(request.approval_id, "approval_id"))
        if state.requested is None:
            raise Rejected("approval_not_found", approval_id=request.approval_id)
        return view_of(state, self._clock.now_ms())
