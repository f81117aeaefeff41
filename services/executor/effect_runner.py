"""Carrying out what runs ask for: LLM requests stored durably, Lua in its own processes, tools, calls over NATS.

Every effect ends: by its own deadline, or when the process stops, and then the log still knows that it is open.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, Protocol

import msgspec

from contracts.errors import Rejected, failure
from contracts.ledger import HEADER_BUDGET, Charge
from contracts.limits import JSON_DEPTH_MAX, LUA_TIMEOUT_DEFAULT_MS
from contracts.llm import HEADER_ANSWER_TO, HEADER_DEADLINE
from contracts.run import RunCommand, TakeAnswer, TakeResult
from contracts.run_tools import TakeToolResult
from contracts.streams import LLM_REQUESTS
from contracts.subjects import command, llm_request
from services.executor import agents
from services.executor.epic_budgets import EpicBudgets
from services.executor.gate_keeper import GateKeeper
from services.executor.letting_go import LettingGo
from services.executor.run.effects import (
    AskApproval,
    CallNats,
    CallTool,
    CancelLlm,
    RunNoop,
    RunScript,
    RunStage,
    SendLlm,
    WithdrawApproval,
    WithdrawTools,
)
from services.executor.strategy_book import StrategyBook
from services.executor.tool_caller import ToolCaller
from services.executor.tool_desk import ToolDesk
from services.runtime.bus import Message
from services.runtime.clock import Clock
from services.runtime.intake import deeper_than
from services.runtime.lifecycle import Log
from services.runtime.lua.host import BODY
from services.runtime.publisher import Stored

Done = Callable[[RunCommand | None], None]
RESULT_SHARE: Final = 4
"""A result may take one part in so many of the largest message: it must fit into a commit beside others."""
FLUSH_S: Final = 10.0
_ENCODE: Final = msgspec.json.Encoder().encode


class Broker(Protocol):
    """The part of the bus that effects need."""

    @property
    def payload_max(self) -> int:
        """The largest message, in bytes."""
        ...

    def store(
        self, subject: str, data: bytes, *, stream: str, msg_id: str, headers: Mapping[str, str] | None = None
    ) -> "asyncio.Future[Stored]":
        """Store one message durably."""
        ...

    def publish(self, subject: str, data: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None) -> None:
        """Send one message."""
        ...

    async def request(
        self, subject: str, data: bytes, *, timeout_s: float = 10.0, headers: Mapping[str, str] | None = None
    ) -> Message:
        """Send and wait for the first reply."""
        ...

    async def flush(self, timeout_s: float = 5.0) -> None:
        """Wait until the broker has what was sent; raises TimeoutError."""
        ...


class Lua(Protocol):
    """The part of the Lua host that effects need."""

    async def call(
        self, src: str, context: Any, *, argv: list[Any] = ..., timeout_ms: int = ..., stage: str = ...
    ) -> Any:
        """Run one script."""
        ...


class RunEffects:
    """The effect runner of the run aggregate.

    At most `bodies_max` NATS calls and as many tool calls are under way at once. Of Lua bodies and of Lua stages, as
    many as there are children each: the rest waits here, where a line has no end, so that neither is refused and
    neither starves. NATS calls go over `nodes`, a connection that may not speak where htdag itself does; without one,
    over `bus`.
    """

    def __init__(
        self,
        *,
        bus: Broker,
        nodes: Broker | None = None,
        lua: Lua,
        book: StrategyBook,
        budgets: EpicBudgets,
        clock: Clock,
        log: Log,
        observe: Callable[[str, str, float], None] = lambda _kind, _outcome, _seconds: None,
        bodies_max: int = 1024,
        lua_children: int = 2,
    ) -> None:
        self._bus, self._lua, self._book, self._clock, self._log = bus, lua, book, clock, log
        self._nodes, self._budgets = nodes or bus, budgets
        self._observe = observe
        self._calls = asyncio.Semaphore(bodies_max)
        self._scripts = asyncio.Semaphore(lua_children)
        self._stages = asyncio.Semaphore(lua_children)
        self._tasks: set[asyncio.Task[None]] = set()
        self._result_bytes_max = bus.payload_max // RESULT_SHARE
        self._gates, self._letting_go = GateKeeper(bus, clock, log), LettingGo(bus, log)
        caller = ToolCaller(bus, clock, result_bytes_max=self._result_bytes_max)
        self._tools = ToolDesk(caller, clock, log, observe, bodies_max)

    def start(self, actor_id: str, effect: Any, done: Done) -> None:
        """See EffectRunner.start."""
        if type(effect) is RunNoop:
            done(TakeResult(effect.task_id, effect.attempt, "body", effect.result))
            return
        try:
            self._begin(actor_id, effect, done)
        except Exception as broken:  # the edge: an effect that cannot begin must end, or its run waits for ever
            self._log.error("effect_not_begun", run_id=actor_id, effect=type(effect).__name__, exc_info=broken)
            done(_not_begun(effect))

    def _begin(self, actor_id: str, effect: Any, done: Done) -> None:
        if type(effect) is SendLlm:
            self._send_llm(actor_id, effect, done)
        elif type(effect) is RunScript:
            self._spawn(effect.task_id, effect.attempt, "body", self._script(effect), done)
        elif type(effect) is RunStage:
            self._spawn(effect.task_id, effect.attempt, effect.step, self._stage(effect), done)
        elif type(effect) is CallNats:
            self._spawn(effect.task_id, effect.attempt, "body", self._call_in_turn(effect), done)
        elif type(effect) is CallTool:
            self._keep(self._call_tool(actor_id, effect, done))
        elif type(effect) is WithdrawTools:
            self._keep(self._tools.withdraw(actor_id, effect))
            done(None)
        elif type(effect) is AskApproval:
            self._keep(self._ask_approval(actor_id, effect, done))
        elif type(effect) is WithdrawApproval:
            self._keep(self._withdraw_approval(actor_id, effect, done))
        elif type(effect) is CancelLlm:
            self._keep(self._withdraw_llm(actor_id, effect, done))
        else:
            raise TypeError(f"no such effect: {type(effect).__name__}")

    async def stop(self) -> None:
        """Cut what is under way; the log knows that it is open."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    # -- LLM -------------------------------------------------------------------------------------------------------

    def _send_llm(self, run_id: str, effect: SendLlm, done: Done) -> None:
        charge = self._budgets.complete(effect.charge)
        if charge is None:
            self._keep(self._send_after_look_up(run_id, effect, done))
        else:
            self._send_charged(run_id, effect, charge, done)

    async def _send_after_look_up(self, run_id: str, effect: SendLlm, done: Done) -> None:
        try:
            charge = await self._budgets.look_up(effect.charge)
        except Rejected as error:
            done(TakeAnswer(effect.request.corr_id, error=error.to_wire()))
        else:
            self._send_charged(run_id, effect, charge, done)

    def _send_charged(self, run_id: str, effect: SendLlm, charge: Charge, done: Done) -> None:
        request = effect.request

        def stored(future: "asyncio.Future[Stored]") -> None:
            if future.cancelled():
                done(None)
                return
            error = future.exception()
            if error is None:
                done(None)
                return
            wrong = error.to_wire() if isinstance(error, Rejected) else failure("internal")
            if wrong["code"] == "nats_unavailable":  # it may be stored all the same, and the next attempt asks anew
                self._keep(self._letting_go.of(run_id, request.corr_id, request.node_id))
            done(TakeAnswer(request.corr_id, error=wrong))

        self._bus.store(
            llm_request(request.model_id),
            _ENCODE(request),
            stream=LLM_REQUESTS,
            msg_id=request.corr_id,
            headers={
                HEADER_ANSWER_TO: command("executor", "run", run_id, "answer"),
                HEADER_DEADLINE: str(effect.deadline_at_ms),
                HEADER_BUDGET: _ENCODE(charge).decode(),
            },
        ).add_done_callback(stored)

    async def _withdraw_llm(self, run_id: str, effect: CancelLlm, done: Done) -> None:
        # Until it is kept, what led to it is not settled: after a crash it comes again.
        await self._letting_go.of(run_id, effect.corr_id, effect.node_id)
        done(None)

    async def _ask_approval(self, run_id: str, effect: AskApproval, done: Done) -> None:
        await self._gates.ask(run_id, effect)
        done(None)

    async def _withdraw_approval(self, run_id: str, effect: WithdrawApproval, done: Done) -> None:
        # Until it is stored, what led to it is not settled: after a crash it comes again.
        await self._gates.withdraw(run_id, effect)
        done(None)

    # -- bodies and stages -------------------------------------------------------------------------------------------

    def _spawn(self, task_id: str, attempt: int, step: str, work: Awaitable[Any], done: Done) -> None:
        self._keep(self._carry_out(task_id, attempt, step, work, done))

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, task_id: str, attempt: int, step: str, work: Awaitable[Any], done: Done) -> None:
        began_s = self._clock.monotonic_s()
        value: Any = None
        error: dict[str, Any] | None = None
        try:
            value = await work
            size = len(_ENCODE(value))
            if size > self._result_bytes_max:
                raise Rejected("too_large", "the result is too large", max=self._result_bytes_max, requested=size)
        except Rejected as refused:
            value, error = None, refused.to_wire()
        except asyncio.CancelledError:
            raise
        except Exception as broken:  # the edge: what breaks here must end the attempt, not hang it
            self._log.error("effect_failed", task_id=task_id, step=step, exc_info=broken)
            value, error = None, failure("internal")
        duration_s = self._clock.monotonic_s() - began_s
        self._observe(step, "ok" if error is None else str(error["code"]), duration_s)
        duration_ms = round(duration_s * 1000, 3)
        done(TakeResult(task_id, attempt, step, value, error, duration_ms))

    async def _call_tool(self, run_id: str, effect: CallTool, done: Done) -> None:
        done(await self._tools.call(run_id, effect))

    async def _script(self, effect: RunScript) -> Any:
        async with self._scripts:
            return await self._lua.call(
                effect.src, effect.context, argv=effect.argv, timeout_ms=effect.timeout_ms, stage=BODY
            )

    async def _stage(self, effect: RunStage) -> Any:
        body = await self._book.find(effect.strategy)
        src = body.scripts.get(effect.stage)
        if src is None:
            return agents.fallback_stage(effect.stage, effect.context)
        async with self._stages:
            return await self._lua.call(src, effect.context, timeout_ms=LUA_TIMEOUT_DEFAULT_MS, stage=effect.stage)

    async def _call_in_turn(self, effect: CallNats) -> Any:
        async with self._calls:
            return await self._call(effect)

    async def _call(self, effect: CallNats) -> Any:
        payload = b"{}" if effect.payload is None else _ENCODE(effect.payload)
        headers = {"Nats-Msg-Id": effect.msg_id}
        if effect.publish_only:
            self._nodes.publish(effect.subject, payload, headers=headers)
            try:
                await self._nodes.flush(min(effect.timeout_ms / 1000, FLUSH_S))
            except TimeoutError:
                raise Rejected("nats_unavailable", "the broker did not confirm the message") from None
            return None
        reply = await self._nodes.request(effect.subject, payload, timeout_s=effect.timeout_ms / 1000, headers=headers)
        if "Nats-Service-Error" in reply.headers:
            raise Rejected("bad_reply", f"the responder refused: {reply.headers['Nats-Service-Error'][:200]}")
        if not reply.data:
            return None
        if len(reply.data) > self._result_bytes_max:
            raise Rejected("too_large", "the reply is too large", max=self._result_bytes_max)
        if deeper_than(reply.data, JSON_DEPTH_MAX):
            raise Rejected("bad_reply", "the reply is nested too deep", max=JSON_DEPTH_MAX)
        try:
            return msgspec.json.decode(reply.data)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise Rejected("bad_reply", subject=effect.subject) from error


def _not_begun(effect: Any) -> RunCommand | None:
    """How an effect ends that broke before it began."""
    if isinstance(effect, RunScript | CallNats):
        return TakeResult(effect.task_id, effect.attempt, "body", error=failure("internal"))
    if isinstance(effect, RunStage):
        return TakeResult(effect.task_id, effect.attempt, effect.step, error=failure("internal"))
    if isinstance(effect, CallTool):
        return TakeToolResult(effect.task_id, effect.attempt, effect.call, error=failure("internal"))
    return TakeAnswer(effect.request.corr_id, error=failure("internal")) if isinstance(effect, SendLlm) else None
