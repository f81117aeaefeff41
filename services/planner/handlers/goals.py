"""`goal.plan` and `goal.submit`: from a sentence to a graph, and on to the executor."""

import asyncio

from contracts.epic import DEFAULT_EPIC, EpicEvent, GoalPlanned, Plan
from contracts.errors import Rejected
from contracts.limits import COMPLEXITY_MAX, GOAL_CHARS_MAX, ROOT_COMPLEXITY
from contracts.requests import GoalSubmit
from contracts.subjects import EPIC_RUN_PREFIX, check_id
from services.planner.decompose import LuaCalls, decompose
from services.planner.epic.decider import EPIC, EpicCommand, PlanGoal
from services.planner.epic.hand_over import hand_over
from services.planner.epic.state import Epic
from services.planner.epic_list import EpicList
from services.planner.epic_reading import plan_of
from services.planner.hand_overs import HandOvers
from services.planner.options import accept_options
from services.planner.reads import Reads
from services.planner.strategy_book import Choice, StrategyBook
from services.runtime.actor import ActorHost
from services.runtime.ids import Ids
from services.runtime.rpc import Caller


class GoalHandlers:
    """Decomposes goals, stores their plans and hands them over."""

    def __init__(
        self,
        *,
        host: ActorHost[EpicCommand, Epic, EpicEvent],
        book: StrategyBook,
        lua: LuaCalls,
        reads: Reads,
        epic_list: EpicList,
        hand_overs: HandOvers,
        ids: Ids,
        plan_timeout_s: float,
    ) -> None:
        self._host, self._book, self._lua, self._reads, self._list = host, book, lua, reads, epic_list
        self._hand_overs, self._ids, self._plan_timeout_s = hand_overs, ids, plan_timeout_s

    async def plan(self, request: GoalSubmit, _caller: Caller) -> Plan:
        """Decompose without storing or running anything."""
        check_goal(request)
        return await self._decompose(request)

    async def submit(self, request: GoalSubmit, caller: Caller) -> Plan:
        """Decompose, store, hand over. The same run id again answers with the plan that is there."""
        check_goal(request)
        accept_options(request.options)
        if request.plan_only:
            return await self._decompose(request)
        epic_id = check_id(request.epic_id or DEFAULT_EPIC, "epic_id")
        if request.run_id is not None:
            check_run_id(request.run_id)
            there = await self._attach(request.run_id, request)
            if there is not None:
                return there
        if epic_id != DEFAULT_EPIC and (await self._reads.epic(epic_id)).epic.created is None:
            raise Rejected("epic_not_found", f"there is no epic {epic_id}", epic_id=epic_id)
        run_id = request.run_id or self._ids.new()
        plan = await self._decompose(request)
        command = PlanGoal(
            run_id=run_id,
            goal=request.goal,
            strategy=plan.strategy,
            tasks=plan.tasks,
            options=request.options,
            reasoning=plan.reasoning,
            by=caller.by,
        )
        self._reads.note_run(run_id, epic_id)
        outcome = await self._host.ask(epic_id, command, message_id=caller.message_id, by=caller.by, corr=caller.corr)
        self._list.note(epic_id, EPIC.summary(outcome.state), outcome.seq)
        await self._hand_overs.wait(run_id)
        # Somebody else may have been first with the same run; then theirs is the plan.
        mine = next((event for event in outcome.events if isinstance(event, GoalPlanned)), None)
        stored = mine or await self._reads.plan(run_id, epic_id)
        if stored is None:
            raise Rejected("internal", "the plan that was just stored cannot be read", run_id=run_id)
        return plan_of(stored, epic_id)

    async def _attach(self, run_id: str, request: GoalSubmit) -> Plan | None:
        """The plan of a run that is there already; None when there is none of this id."""
        epic_id = await self._reads.epic_of_run(run_id, request.epic_id)
        planned = await self._reads.plan(run_id, epic_id)
        if planned is None:
            if (await self._reads.board(run_id)).created is not None:
                raise Rejected("duplicate_id", f"run {run_id} exists and was started otherwise", run_id=run_id)
            return None
        if planned.goal != request.goal:
            raise Rejected("duplicate_id", f"run {run_id} has another goal", run_id=run_id)
        if (await self._reads.board(run_id)).created is None:
            self._hand_overs.start(epic_id, hand_over(epic_id, planned), lambda _: None)
            await self._hand_overs.wait(run_id)
        return plan_of(planned, epic_id)

    async def _decompose(self, request: GoalSubmit) -> Plan:
        choice = self._choose(request)
        script = choice.body.scripts.get("decomposition") if choice else None
        complexity = ROOT_COMPLEXITY if request.complexity is None else request.complexity
        try:
            async with asyncio.timeout(self._plan_timeout_s):
                made = await decompose(request.goal, complexity, script, self._lua)
        except TimeoutError as error:
            raise Rejected(
                "timeout",
                "the goal was not decomposed in time; it was not started",
                max=int(self._plan_timeout_s * 1000),
            ) from error
        return Plan(
            goal=request.goal,
            strategy=choice.label if choice else None,
            reasoning=made.reasoning,
            depth=made.depth,
            tasks=made.tasks,
        )

    def _choose(self, request: GoalSubmit) -> Choice | None:
        if request.strategy is not None:
            return self._book.named(request.strategy)
        return self._book.choose(request.goal)


def check_goal(request: GoalSubmit) -> None:
    """Refuse with empty_goal, too_large or bad_request."""
    if not request.goal.strip():
        raise Rejected("empty_goal", field="goal")
    if len(request.goal) > GOAL_CHARS_MAX:
        raise Rejected(
            "too_large",
            f"a goal has at most {GOAL_CHARS_MAX} characters",
            field="goal",
            max=GOAL_CHARS_MAX,
            requested=len(request.goal),
        )
    if request.complexity is not None and not 0 <= request.complexity <= COMPLEXITY_MAX:
        text = f"complexity must be 0 to {COMPLEXITY_MAX:g}"
        raise Rejected("bad_request", text, field="complexity", max=COMPLEXITY_MAX, requested=request.complexity)


def check_run_id(run_id: str) -> None:
    """Refuse with bad_id. Ids that begin with EPIC_RUN_PREFIX belong to epics."""
    check_id(run_id, "run_id")
    if run_id.startswith(EPIC_RUN_PREFIX):
        raise Rejected(
            "bad_id", f"run ids that begin with {EPIC_RUN_PREFIX} belong to epics", field="run_id", value=run_id
        )
