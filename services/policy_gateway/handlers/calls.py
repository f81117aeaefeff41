"""The verb on calls of tasks: withdraw."""

from typing import Final

from contracts.policy import CallOf, CallStanding
from services.policy_gateway.calls.call import id_of
from services.policy_gateway.calls.owners import Owners
from services.policy_gateway.calls.records import CallRecords
from services.policy_gateway.run_facts import check_call
from services.runtime.ids import Ids
from services.runtime.rpc import Caller

WAIT_S: Final = 5.0
"""How long an answer waits for the end of what is withdrawn."""


class CallHandlers:
    """Answers them for calls of every gateway."""

    def __init__(self, *, records: CallRecords, owners: Owners, ids: Ids, gateway: str) -> None:
        self._records, self._owners, self._ids, self._gateway = records, owners, ids, gateway

    async def withdraw(self, request: CallOf, caller: Caller) -> CallStanding:
        """End a call of a task that is over, wherever it runs. One that has ended, or never began, is no error."""
        check_call(request)
        call_id = id_of(request, self._ids)
        record = await self._records.read(call_id)
        if record is not None and record.finished is not None:
            return CallStanding(under_way=False)
        # Without a record it may be just about to be claimed, here; elsewhere that gateway looks by itself.
        gateway = record.claimed.decided.gateway if record is not None else self._gateway
        return CallStanding(under_way=not await self._owners.withdrawn(gateway, call_id, request, WAIT_S))
