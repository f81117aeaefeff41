"""Epic commands, what they lead to, and what is handed to the executor."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, assert_never

import msgspec

from contracts.epic import DEFAULT_EPIC, EpicCreated, EpicEvent, EpicUpdated, GoalPlanned, TasksEnqueued
from contracts.errors import Rejected
from contracts.limits import TASKS_PER_RUN_MAX
from contracts.run import AddTasks, RunOptions
from contracts.task import TaskSpec
from services.planner.epic.hand_over import HandOver, hand_over
from services.planner.epic.state import Epic, evolve, goal_digest
from services.planner.graph import check_graph, in_order
from services.planner.intake import body_digest, encoded_bytes
from services.runtime.decider import Decider

CHUNK_BYTES_MAX: Final = 400 << 10
CHUNK_TASKS_MAX: Final = 2_000
SUMMARY_CHARS_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class CreateEpic:
    """Begin an epic."""

    title: str
    description: str = ""
    priority: int = 5
    budget_usd_micros: int | None = None
    budget_tokens: int | None = None
    by: str = ""


@dataclass(frozen=True, slots=True)
class UpdateEpic:
    """Change what is given of an epic."""

    title: str | None = None
    description: str | None = None
    priority: int | None = None
    budget_usd_micros: int | None = None
    budget_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class PlanGoal:
    """Take a decomposed goal in, to be run as `run_id`."""

    run_id: str
    goal: str
    strategy: str | None
    tasks: list[TaskSpec]
    options: RunOptions
    reasoning: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class EnqueueTasks:
    """Take tasks in, whole or not at all. Each was accepted by `intake`; the graph is judged here."""

    tasks: list[TaskSpec]
    strategy: str | None
    options: RunOptions
    by: str = ""


EpicCommand = CreateEpic | UpdateEpic | PlanGoal | EnqueueTasks


def decide(command: EpicCommand, state: Epic, now_ms: int) -> Sequence[EpicEvent]:
    """Judge a wish against the facts."""
    match command:
        case CreateEpic():
            return _create(command, state, now_ms)
        case UpdateEpic():
            return _update(command, state)
        case PlanGoal():
            return _plan(command, state, now_ms)
        case EnqueueTasks():
            return _enqueue(command, state, now_ms)
        case _:
            assert_never(command)


def _create(command: CreateEpic, state: Epic, now_ms: int) -> Sequence[EpicEvent]:
    wished = EpicCreated(
        epic_id=state.epic_id,
        title=command.title,
        description=command.description,
        priority=command.priority,
        budget_usd_micros=command.budget_usd_micros,
        budget_tokens=command.budget_tokens,
        created_by=command.by,
        created_at_ms=now_ms,
    )
    there = state.founded
    if there is None:
        return (wished,)
    if msgspec.structs.replace(wished, created_by=there.created_by, created_at_ms=there.created_at_ms) == there:
        return ()
    raise Rejected("duplicate_id", f"epic {state.epic_id} exists with another body", epic_id=state.epic_id)


def _update(command: UpdateEpic, state: Epic) -> Sequence[EpicEvent]:
    there = state.created
    if there is None:
        raise Rejected("epic_not_found", f"there is no epic {state.epic_id}", epic_id=state.epic_id)
    before = EpicUpdated(there.title, there.description, there.priority, there.budget_usd_micros, there.budget_tokens)
    wishes = {name: value for name, value in dataclasses.asdict(command).items() if value is not None}
    after = msgspec.structs.replace(before, **wishes)
    return () if after == before else (after,)


def _founded(state: Epic, by: str, now_ms: int) -> tuple[EpicEvent, ...]:
    """The event that makes sure the epic exists; only the default one comes into being by itself."""
    if state.created is not None:
        return ()
    if state.epic_id != DEFAULT_EPIC:
        raise Rejected("epic_not_found", f"there is no epic {state.epic_id}", epic_id=state.epic_id)
    return (EpicCreated(epic_id=DEFAULT_EPIC, title="Default", created_by=by, created_at_ms=now_ms),)


def _plan(command: PlanGoal, state: Epic, now_ms: int) -> Sequence[EpicEvent]:
    known = state.goals.get(command.run_id)
    if known is not None:
        if known == goal_digest(command.goal):
            return ()
        raise Rejected("duplicate_id", f"run {command.run_id} has another goal", run_id=command.run_id)
    planned = GoalPlanned(
        run_id=command.run_id,
        goal=command.goal,
        strategy=command.strategy,
        tasks=command.tasks,
        options=msgspec.to_builtins(command.options),
        reasoning=command.reasoning,
    )
    return (*_founded(state, command.by, now_ms), planned)


def _enqueue(command: EnqueueTasks, state: Epic, now_ms: int) -> Sequence[EpicEvent]:
    founded = _founded(state, command.by, now_ms)
    check_graph(command.tasks, state.bodies)
    fresh = [task for task in command.tasks if not _is_there(task, state)]
    if not fresh:
        return ()
    if len(state.bodies) + len(fresh) > TASKS_PER_RUN_MAX:
        raise Rejected(
            "too_large",
            f"epic {state.epic_id} would hold more than {TASKS_PER_RUN_MAX} tasks",
            max=TASKS_PER_RUN_MAX,
            requested=len(state.bodies) + len(fresh),
        )
    options = msgspec.to_builtins(command.options)
    return (
        *founded,
        *(
            TasksEnqueued(run_id=state.run_id, tasks=chunk, strategy=command.strategy, options=options)
            for chunk in _chunks(fresh)
        ),
    )


def _is_there(task: TaskSpec, state: Epic) -> bool:
    known = state.bodies.get(task.id)
    if known is None:
        return False
    if known != body_digest(task):
        raise Rejected("duplicate_id", f"task {task.id} exists with another body", task_id=task.id)
    return True


def _chunks(tasks: list[TaskSpec]) -> Iterator[list[TaskSpec]]:
    """Parts that fit a message, each behind what it depends on, so that the executor can take them one by one.

    A batch with groups stays whole: a group whose children came later would be over before they come.
    """
    sizes = {task.id: encoded_bytes(task) for task in tasks}
    grouped = any(task.parent is not None for task in tasks)
    if grouped or (len(tasks) <= CHUNK_TASKS_MAX and sum(sizes.values()) <= CHUNK_BYTES_MAX):
        yield tasks
        return
    chunk: list[TaskSpec] = []
    size = 0
    for task in in_order(tasks):
        if chunk and (len(chunk) == CHUNK_TASKS_MAX or size + sizes[task.id] > CHUNK_BYTES_MAX):
            yield chunk
            chunk, size = [], 0
        chunk.append(task)
        size += sizes[task.id]
    yield chunk


def react(state: Epic, events: Sequence[EpicEvent]) -> Sequence[Any]:
    """What the executor must be told: each plan, and what was enqueued, as few commands as the bounds allow."""
    told: list[HandOver] = []
    count = size = 0
    for event in events:
        if isinstance(event, EpicCreated | EpicUpdated):
            continue
        one = hand_over(state.epic_id, event)
        more = sum(encoded_bytes(task) for task in event.tasks) if isinstance(event, TasksEnqueued) else 0
        last = told[-1].body if told else None
        fits = count + len(event.tasks) <= CHUNK_TASKS_MAX and size + more <= CHUNK_BYTES_MAX
        if isinstance(one.body, AddTasks) and isinstance(last, AddTasks) and fits:
            told[-1] = told[-1]._replace(body=msgspec.structs.replace(last, tasks=[*last.tasks, *one.body.tasks]))
            count, size = count + len(event.tasks), size + more
        else:
            told.append(one)
            count, size = len(event.tasks), more
    return told


def summary(state: Epic) -> Mapping[str, Any] | None:
    """What a list shows of the epic, beside its progress."""
    created = state.created
    if created is None:
        return None
    return {
        "title": created.title[:SUMMARY_CHARS_MAX],
        "description": created.description[:SUMMARY_CHARS_MAX],
        "priority": created.priority,
        "budget_usd_micros": created.budget_usd_micros,
        "budget_tokens": created.budget_tokens,
        "created_by": created.created_by,
        "created_at_ms": created.created_at_ms,
        "runs": len(state.goals) + bool(state.bodies),
    }


EPIC: Final[Decider[EpicCommand, Epic, EpicEvent]] = Decider(
    initial=Epic,
    decide=decide,
    evolve=evolve,
    is_terminal=lambda _: False,
    react=react,
    summary=summary,
)
