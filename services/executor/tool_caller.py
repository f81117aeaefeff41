"""Asking policy-gateway for tool calls, as often as it takes: the same call has the same name, so it happens once.

A reply that was lost, a gateway that died in the middle, one that is not there yet or has no room: asking again finds
the call under way, its recorded answer, or somebody who begins it.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from contracts.commit import HEADER_BY
from contracts.errors import Rejected
from contracts.limits import JSON_DEPTH_MAX, TOOL_ASK_AGAIN_S, TOOL_RESULT_CHARS_MAX
from contracts.policy import CallOf
from contracts.reply import RemoteRejected, parse
from contracts.subjects import rpc, tool_call, tool_call_of_task
from contracts.task import ADMIN
from contracts.tools import as_sent
from services.executor.run.effects import CallTool
from services.executor.tool_results import fit
from services.runtime.bus import Message
from services.runtime.clock import Clock
from services.runtime.intake import deeper_than

NOBODY_S: Final = 1.0
"""How long to wait when nobody answers at all: a gateway that is started anew is back in seconds."""
WITHDRAW: Final = rpc("policy-gateway", "call", "withdraw")
WITHDRAW_S: Final = 8.0
ASKED_AGAIN: Final = frozenset({"no_responders", "timeout", "nats_unavailable"})
_ENCODE: Final = msgspec.json.Encoder().encode


class Asking(Protocol):
    """The part of the bus that is needed."""

    async def request(
        self, subject: str, data: bytes, *, timeout_s: float = 10.0, headers: Mapping[str, str] | None = None
    ) -> Message:
        """Send and wait for the first reply."""
        ...


class ToolOutcome(NamedTuple):
    """What a tool call gave: a value, or an error."""

    value: Any = None
    error: dict[str, Any] | None = None
    truncated: bool = False


class ToolCaller:
    """Carries CallTool out. `result_bytes_max` bounds what a task gets as its result."""

    def __init__(
        self,
        bus: Asking,
        clock: Clock,
        *,
        result_bytes_max: int,
        again_s: float = TOOL_ASK_AGAIN_S,
        nobody_s: float = NOBODY_S,
    ) -> None:
        self._bus, self._clock = bus, clock
        self._result_bytes_max = result_bytes_max
        self._again_s, self._nobody_s = again_s, nobody_s

    async def call(self, run_id: str, effect: CallTool) -> ToolOutcome:
        """The outcome of one call, whatever it is; at the latest when its deadline has come."""
        try:
            value = await self._value(run_id, effect)
        except RemoteRejected as refused:
            error, cut = fit(refused.error, TOOL_RESULT_CHARS_MAX)
            named = {"class": refused.error.get("class"), "code": refused.code}
            return ToolOutcome(error=error if isinstance(error, dict) else {**named, "message": error}, truncated=cut)
        except Rejected as wrong:
            return ToolOutcome(error=wrong.to_wire())
        most = TOOL_RESULT_CHARS_MAX if effect.for_model else self._result_bytes_max
        value, cut = fit(value, most)
        said_so = isinstance(value, Mapping) and value.get("truncated") is True
        return ToolOutcome(value, truncated=cut or said_so)

    async def withdraw(self, run_id: str, effect: CallTool) -> None:
        """Have a call ended whose task is over. Raises Rejected when nobody says that it is done."""
        call = CallOf(run_id, effect.task_id, effect.attempt, effect.call)
        _read(await self._bus.request(WITHDRAW, _ENCODE(call), timeout_s=WITHDRAW_S))

    async def _value(self, run_id: str, effect: CallTool) -> Any:
        tool, args = as_sent(effect.tool, effect.args)
        subject = tool_call_of_task(effect.role, tool) if effect.role == ADMIN else tool_call(effect.role, tool)
        task = {"run_id": run_id, "task_id": effect.task_id, "attempt": effect.attempt, "call": effect.call}
        asked = {"args": args, "opts": effect.opts, "task": task, "workspace": None}
        body = _ENCODE({**asked, "barred": True} if effect.barred else asked)
        headers = {HEADER_BY: f"agent:{run_id}/{effect.task_id}"}
        waited_for = Rejected("timeout", "the deadline of the task passed", tool=effect.tool)
        while (left_s := (effect.deadline_at_ms - self._clock.now_ms()) / 1000) > 0:
            try:
                return _read(
                    await self._bus.request(subject, body, timeout_s=min(self._again_s, left_s), headers=headers)
                )
            except RemoteRejected as refused:
                if refused.code != "mailbox_full" or "retry_after_s" not in refused.error:
                    raise
                waited_for = Rejected(
                    "service_unavailable", "policy-gateway has no room", service="policy-gateway", tool=effect.tool
                )
                await asyncio.sleep(min(self._nobody_s, left_s))
            except Rejected as error:
                if error.code not in ASKED_AGAIN:
                    raise
                if error.code == "timeout":
                    waited_for = Rejected("timeout", "the tool did not end before its task", tool=effect.tool)
                    continue
                waited_for = Rejected(
                    "service_unavailable", "policy-gateway does not answer", service="policy-gateway", tool=effect.tool
                )
                await asyncio.sleep(min(self._nobody_s, left_s))
        raise waited_for


def _read(reply: Message) -> Any:
    if "Nats-Service-Error" in reply.headers:
        raise Rejected("bad_reply", f"the gateway refused: {reply.headers['Nats-Service-Error'][:200]}")
    if deeper_than(reply.data, JSON_DEPTH_MAX):
        raise Rejected("bad_reply", "the reply is nested too deep", max=JSON_DEPTH_MAX)
    try:
        return parse(reply.data)
    except (Rejected, RecursionError, UnicodeDecodeError) as error:
        raise Rejected("bad_reply", "the gateway's reply cannot be read") from error
