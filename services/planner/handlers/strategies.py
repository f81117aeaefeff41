"""`strategy.put|get|list|activate|rollback|try|seed`."""

import asyncio
from typing import Any, Final

from contracts.errors import Rejected
from contracts.limits import LUA_TIMEOUT_DEFAULT_MS
from contracts.requests import Nothing, StrategyChoose, StrategyPutRequest, StrategyRef, StrategyTry
from contracts.strategy import (
    CHOICE_TEXTS_MAX,
    NO_STRATEGY,
    STAGE_ALIASES,
    STAGES,
    StrategyChoice,
    StrategyEvent,
    StrategyPut,
    StrategyTrial,
    StrategyView,
)
from contracts.subjects import check_id
from services.planner.pattern import Pattern
from services.planner.shipped import shipped_strategies
from services.planner.strategy.decider import (
    ActivateStrategy,
    PutStrategy,
    RollBackStrategy,
    StrategyCommand,
)
from services.planner.strategy.state import Strategy
from services.planner.strategy_book import STRATEGIES_MAX, StrategyBook
from services.planner.trial import trial_context
from services.runtime.actor import ActorHost
from services.runtime.clock import Clock
from services.runtime.lua.host import LuaHost
from services.runtime.rpc import Caller

DESCRIPTION_CHARS_MAX: Final = 20_000
PRIORITY_MAX: Final = 1_000_000
TRIALS_WAITING_MAX: Final = 8
"""So many trials may wait while one runs; each may take LUA_TIMEOUT_DEFAULT_MS."""


class StrategyHandlers:
    """Stores, activates and tries strategies. Nothing that does not compile is stored."""

    def __init__(
        self,
        *,
        host: ActorHost[StrategyCommand, Strategy, StrategyEvent],
        book: StrategyBook,
        lua: LuaHost,
        clock: Clock,
    ) -> None:
        self._host, self._book, self._lua, self._clock = host, book, lua, clock
        # Trials are for people who wait and see: one at a time, so that plans find a child of the pool.
        self._trial = asyncio.Lock()
        self._trials = 0

    async def put(self, request: StrategyPutRequest, caller: Caller) -> StrategyView:
        """Compile, then store as a new version and activate it; the same content again changes nothing."""
        name = check_id(request.name, "name")
        if name == NO_STRATEGY:
            raise Rejected("bad_id", f"{NO_STRATEGY} means no strategy: choose another name", field="name", value=name)
        if name not in self._book and len(self._book) >= STRATEGIES_MAX:
            raise Rejected("too_large", f"there are {STRATEGIES_MAX} strategies already", max=STRATEGIES_MAX)
        scripts = {_stage(stage): source for stage, source in request.scripts.items()}
        _check_fields(request)
        for stage, source in scripts.items():
            await self._compile(name, stage, source)
        command = PutStrategy(name, scripts, request.pattern, request.priority, request.description)
        return await self._decide(name, command, caller)

    async def get(self, request: StrategyRef, _caller: Caller) -> StrategyPut:
        """One version with its scripts."""
        return self._book.get(check_id(request.name, "name"), request.version)

    async def show_all(self, _request: Nothing, _caller: Caller) -> list[StrategyView]:
        """All strategies by name; version 0 means that none is active."""
        return self._book.views()

    async def choose(self, request: StrategyChoose, _caller: Caller) -> StrategyChoice:
        """Which active strategy a plan with these texts gets."""
        if len(request.texts) > CHOICE_TEXTS_MAX:
            raise Rejected("too_large", field="texts", max=CHOICE_TEXTS_MAX, requested=len(request.texts))
        choice = self._book.choose(*request.texts)
        return StrategyChoice(choice.label if choice else None)

    async def activate(self, request: StrategyRef, caller: Caller) -> StrategyView:
        """Make a stored version active, the newest when none is named."""
        name = check_id(request.name, "name")
        return await self._decide(name, ActivateStrategy(name, request.version), caller)

    async def rollback(self, request: StrategyRef, caller: Caller) -> StrategyView:
        """Go back to the version that was active before; behind the first one the strategy is inactive."""
        name = check_id(request.name, "name")
        return await self._decide(name, RollBackStrategy(name), caller)

    async def seed(self, _request: Nothing, caller: Caller) -> list[StrategyView]:
        """Store the shipped strategies that were never stored; answers all strategies.

        One that is refused keeps none of the others away; the last refusal is raised.
        """
        refused: Rejected | None = None
        for command in shipped_strategies():
            try:
                await self._decide(command.name, command, caller)
            except Rejected as error:
                refused = error
        if refused is not None:
            raise refused
        return self._book.views()

    async def try_stage(self, request: StrategyTry, _caller: Caller) -> StrategyTrial:
        """Run one stage on given input, without any effect."""
        stage = _stage(request.stage)
        put = self._book.get(check_id(request.name, "name"), request.version)
        label = f"{put.name}@{put.version}"
        source = put.body.scripts.get(stage)
        if source is None:
            raise Rejected("not_found", f"{label} has no script for {stage}", name=put.name, stage=stage)
        context = trial_context(stage, request.task, request.context)
        value, seconds = await self._try(source, context, stage)
        return StrategyTrial(strategy=label, stage=stage, value=value, duration_ms=round(seconds * 1000, 3))

    async def _try(self, source: str, context: Any, stage: str) -> tuple[Any, float]:
        """The value of a script and the seconds it took, once it is its turn. Raises mailbox_full."""
        if self._trials > TRIALS_WAITING_MAX:
            raise Rejected("mailbox_full", "too many trials wait for their turn", max=TRIALS_WAITING_MAX)
        self._trials += 1
        try:
            async with self._trial:
                began_s = self._clock.monotonic_s()
                value = await self._lua.call(source, context, timeout_ms=LUA_TIMEOUT_DEFAULT_MS, stage=stage)
                return value, self._clock.monotonic_s() - began_s
        finally:
            self._trials -= 1

    async def _compile(self, name: str, stage: str, source: str) -> None:
        try:
            await self._lua.check(source)
        except Rejected as error:
            raise Rejected(
                error.code, f"{stage}: {error.message}", **{**error.detail, "name": name, "stage": stage}
            ) from error

    async def _decide(self, name: str, command: StrategyCommand, caller: Caller) -> StrategyView:
        outcome = await self._host.ask(name, command, message_id=caller.message_id, by=caller.by, corr=caller.corr)
        self._book.replace(outcome.state, outcome.seq)
        return outcome.state.view()


def _stage(name: str) -> Any:
    stage = STAGE_ALIASES.get(name, name)
    if stage not in STAGES:
        raise Rejected("bad_request", f"there is no stage {name[:80]!r}", field="stage", known=list(STAGES))
    return stage


def _check_fields(request: StrategyPutRequest) -> None:
    if request.pattern is not None:
        Pattern(request.pattern)
    if request.priority is not None and abs(request.priority) > PRIORITY_MAX:
        raise Rejected(
            "bad_request", "priority is out of bounds", field="priority", min=-PRIORITY_MAX, max=PRIORITY_MAX
        )
    if request.description is not None and len(request.description) > DESCRIPTION_CHARS_MAX:
        raise Rejected("too_large", "the description is too long", field="description", max=DESCRIPTION_CHARS_MAX)
