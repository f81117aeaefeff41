"""The tool calls that this process has asked for and that are under way: carried out, and withdrawn with their task.

Withdrawing is a courtesy: it ends a call at once. A gateway that does not hear of it sees in the run's log that the
task is over.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable

from contracts.errors import Rejected, failure
from contracts.run_tools import TakeToolResult
from services.executor.run.effects import CallTool, WithdrawTools
from services.executor.tool_caller import ToolCaller, ToolOutcome
from services.runtime.clock import Clock
from services.runtime.lifecycle import Log
from services.runtime.withdrawal import unless_withdrawn

Attempt = tuple[str, str, int]
"""Run, task and attempt."""
Observe = Callable[[str, str, float], None]


class _Open:
    """One call under way; `over` holds why nobody waits for it any more."""

    def __init__(self, effect: CallTool) -> None:
        self.effect = effect
        self.over: asyncio.Future[Rejected] = asyncio.get_running_loop().create_future()
        self.asked = False


class ToolDesk:
    """Carries CallTool and WithdrawTools out; at most `at_once_max` calls, and as many barred ones, at once."""

    def __init__(self, caller: ToolCaller, clock: Clock, log: Log, observe: Observe, at_once_max: int) -> None:
        self._caller, self._clock, self._log, self._observe = caller, clock, log, observe
        self._turns = asyncio.Semaphore(at_once_max)
        # Refusals are quick, and must not wait until others' tools have ended.
        self._refused_turns = asyncio.Semaphore(at_once_max)
        self._open: dict[Attempt, set[_Open]] = defaultdict(set)

    async def call(self, run_id: str, effect: CallTool) -> TakeToolResult:
        """What one call gave, whatever it is."""
        began_s = self._clock.monotonic_s()
        attempt, call = (run_id, effect.task_id, effect.attempt), _Open(effect)
        self._open[attempt].add(call)
        try:
            outcome: ToolOutcome = await unless_withdrawn(self._outcome(run_id, call), call.over)
        except Rejected as withdrawn:
            outcome = ToolOutcome(error=withdrawn.to_wire())
        except Exception as broken:  # the edge: what breaks here must end the call, not hang its task
            self._log.error("tool_call_failed", task_id=effect.task_id, tool=effect.tool, exc_info=broken)
            outcome = ToolOutcome(error=failure("internal"))
        finally:
            self._open[attempt].discard(call)
            if not self._open[attempt]:
                del self._open[attempt]
        duration_s = self._clock.monotonic_s() - began_s
        self._observe("tool", "ok" if outcome.error is None else str(outcome.error.get("code")), duration_s)
        duration_ms = round(duration_s * 1000, 3)
        return TakeToolResult(effect.task_id, effect.attempt, effect.call, *outcome, duration_ms=duration_ms)

    async def withdraw(self, run_id: str, effect: WithdrawTools) -> None:
        """Ask for the calls of an attempt no more, and have those ended that a gateway may have under way."""
        calls = [*self._open.get((run_id, effect.task_id, effect.attempt), ())]
        for call in calls:
            if not call.over.done():
                call.over.set_result(Rejected("call_withdrawn"))
        await asyncio.gather(*(self._withdraw(run_id, call.effect) for call in calls if call.asked))

    async def _outcome(self, run_id: str, call: _Open) -> ToolOutcome:
        async with self._refused_turns if call.effect.barred else self._turns:
            call.asked = True
            return await self._caller.call(run_id, call.effect)

    async def _withdraw(self, run_id: str, effect: CallTool) -> None:
        try:
            await self._caller.withdraw(run_id, effect)
        except Rejected as error:
            self._log.warning("call_not_withdrawn", run_id=run_id, task_id=effect.task_id, code=error.code)
