"""A run as bytes and back: an explicit image of what its events have said. Pure.

Only facts are in the image. Links between tasks, counts of what is missing, heaps and indexes follow from them and are
built anew. Images are written by one version of the code and read by the same: FORMAT says which.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from contracts.llm import LlmRequest
from contracts.run import LlmAnswered, RunOptions
from contracts.run_tools import ToolAnswered, ToolRequested
from contracts.task import TASK_STATES_FINAL, RunState, TaskSpec, TaskState
from services.executor.run.state import (
    Call,
    Gate,
    Run,
    Taint,
    Talk,
    TaskRecord,
    Work,
    deadline_holds,
    is_group,
    make_ready,
    may_start,
)

FORMAT: Final = "run-9"
"""Changes with the shape of the image or of the state, or with the meaning of either: older snapshots are ignored."""

STATES: Final[tuple[TaskState, ...]] = (
    "pending",
    "in_progress",
    "waiting_approval",
    "blocked",
    "completed",
    "failed",
    "cancelled",
)
"""A task's state is one byte: its place here."""
_NUMBERS: Final[Mapping[str, int]] = {name: number for number, name in enumerate(STATES)}


class TalkImage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An answer that wants tools, and what they gave so far."""

    request: LlmRequest
    said: LlmAnswered
    asked: list[ToolRequested]
    results: list[ToolAnswered]


class WorkImage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Work of one attempt, without its open calls."""

    agents: list[dict[str, Any]]
    pattern: str
    strategy: str | None
    steps: list[dict[str, Any]] | None
    answers: list[LlmAnswered | None]
    rework: int
    fixes: list[str]
    last_step: str
    talks: dict[int, TalkImage]
    tools: list[ToolRequested]
    tool_calls: int
    tool_rounds: int
    programs: dict[int, tuple[str, int]]


class CallImage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An open LLM call; tasks are named by their number in order of arrival."""

    task: int
    step: str
    index: int
    request: LlmRequest
    deadline_at_ms: int
    extended: bool


class TaskImage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What most tasks of a run do not have. `deadline_at_ms` is that of the attempt under way, else 0."""

    attempts_base: int
    deadline_at_ms: int
    due_at_ms: int
    error: dict[str, Any] | None
    blocked_by: str | None
    work: WorkImage | None
    reworks: int
    calls_made: int
    abandoned: Sequence[LlmRequest]
    tokens: int
    cost_usd_micros: int
    cost_unknown: bool
    models: Sequence[str]
    tool_calls: int
    gate: Gate | None
    human: bool
    taint: Taint | None


class RunImage(msgspec.Struct, frozen=True, gc=False):
    """A run. Numbers stand for tasks; `waits` are deadlines that hold: ticket, task, and the call or None."""

    run_id: str
    status: RunState | None
    goal: str
    epic_id: str | None
    options: RunOptions
    strategy: str | None
    open: bool
    plan_digest: str
    deadline_at_ms: int
    cancel_reason: str | None
    ended: int
    recorded_digest: str | None
    error: dict[str, Any] | None
    answered_count: int
    tokens: int
    cost_usd_micros: int
    cost_unknown: bool
    ticket: int
    specs: list[TaskSpec]
    states: bytes
    attempts: list[int]
    results: dict[int, Any]
    more: dict[int, TaskImage]
    calls: list[CallImage]
    let_go: list[tuple[str, int]]
    waits: list[tuple[int, int, str | None]]
    retries: list[int]
    ready_groups: list[int]
    closing: list[int]
    fallen: list[int]


SCALARS: Final = (
    "run_id",
    "status",
    "goal",
    "epic_id",
    "options",
    "strategy",
    "open",
    "plan_digest",
    "deadline_at_ms",
    "cancel_reason",
    "ended",
    "recorded_digest",
    "error",
    "answered_count",
    "tokens",
    "cost_usd_micros",
    "cost_unknown",
    "ticket",
)
"""Fields that a run and its image share as they stand."""

_ENCODE: Final = msgspec.msgpack.Encoder().encode
_DECODE: Final = msgspec.msgpack.Decoder(RunImage).decode


def dump(run: Run) -> bytes:
    """The run as bytes; `restore` gives it back. Nothing of the run is changed."""
    return _ENCODE(image_of(run))


def restore(data: bytes) -> Run:
    """The run that was dumped. Raises an exception of any kind when these bytes are no image of this format."""
    return run_of(_DECODE(data))


def events_between(run: Run) -> int:
    """How far apart snapshots should lie: an image of a big run takes longer to make, and to read, than many events."""
    return 2 * len(run.tasks)


def image_of(run: Run) -> RunImage:
    """What a run consists of, once entries that no longer hold are left out of its heaps."""
    tasks = run.tasks.values()
    numbers = _NUMBERS
    return RunImage(
        **{name: getattr(run, name) for name in SCALARS},
        specs=[task.spec for task in tasks],
        states=bytes([numbers[task.status] for task in tasks]),
        attempts=[task.attempt for task in tasks],
        results={task.order: task.result for task in tasks if task.result is not None},
        more={task.order: _task_image(task) for task in tasks if _has_more(task)},
        calls=[
            CallImage(call.task.order, call.step, call.index, call.request, call.deadline_at_ms, call.extended)
            for call in run.calls.values()
        ],
        let_go=[(corr_id, task.order) for corr_id, task in run.let_go.items()],
        waits=sorted(
            (ticket, task.order, corr_id)
            for _, ticket, task, _, corr_id in filter(lambda entry: deadline_holds(run, entry), run.deadlines)
        ),
        retries=sorted({n for due, n, task in run.retries if task.status == "pending" and task.due_at_ms == due}),
        ready_groups=_numbers_of(run.ready_groups),
        closing=_numbers_of(run.closing),
        fallen=_numbers_of(run.fallen),
    )


def _numbers_of(tasks: Sequence[TaskRecord]) -> list[int]:
    return [*dict.fromkeys(task.order for task in tasks)]


def _has_more(task: TaskRecord) -> bool:
    return bool(
        task.status == "in_progress"
        or task.gate is not None
        or task.human
        or task.taint is not None
        or task.calls_made
        or task.tool_calls
        or task.error is not None
        or task.blocked_by is not None
        or task.attempts_base
        or task.due_at_ms
    )


def _task_image(task: TaskRecord) -> TaskImage:
    return TaskImage(
        task.attempts_base,
        task.deadline_at_ms if task.status == "in_progress" or task.gate is not None else 0,
        task.due_at_ms,
        task.error,
        task.blocked_by,
        None if task.work is None else _work_image(task.work),
        task.reworks,
        task.calls_made,
        task.abandoned,
        task.tokens,
        task.cost_usd_micros,
        task.cost_unknown,
        task.models,
        task.tool_calls,
        task.gate,
        task.human,
        task.taint,
    )


def _work_image(work: Work) -> WorkImage:
    return WorkImage(
        work.agents,
        work.pattern,
        work.strategy,
        work.steps,
        work.answers,
        work.rework,
        work.fixes,
        work.last_step,
        {
            index: TalkImage(talk.request, talk.said, talk.asked, [*talk.results.values()])
            for index, talk in work.talks.items()
        },
        [*work.tools.values()],
        work.tool_calls,
        work.tool_rounds,
        work.programs,
    )


def run_of(image: RunImage) -> Run:
    """The run that an image tells of."""
    run = Run(image.run_id)
    for name in SCALARS:
        setattr(run, name, getattr(image, name))
    results, more = image.results, image.more
    records = []
    for number, (spec, state, attempt) in enumerate(zip(image.specs, image.states, image.attempts, strict=True)):
        task = TaskRecord(spec, number, is_group(spec), STATES[state], attempt, result=results.get(number))
        records.append(task)
        run.tasks[spec.id] = task
    for number, had in more.items():
        _take_more(records[number], had)
    _count(run)
    _link(run)
    _take_calls(run, image, records)
    run.ready_groups = [records[number] for number in image.ready_groups]
    run.closing = [records[number] for number in image.closing]
    run.fallen = [records[number] for number in image.fallen]
    run.retries = sorted((records[number].due_at_ms, number, records[number]) for number in image.retries)
    waiting = set(image.retries)
    for task in records:
        if task.order not in waiting and not task.is_group and may_start(task):
            make_ready(run, task)
    return run


def _take_more(task: TaskRecord, had: TaskImage) -> None:
    task.attempts_base = had.attempts_base
    task.deadline_at_ms = had.deadline_at_ms
    task.due_at_ms = had.due_at_ms
    task.error = had.error
    task.blocked_by = had.blocked_by
    if had.work is not None:
        work = had.work
        task.work = Work(
            work.agents,
            work.pattern,
            work.strategy,
            work.steps,
            work.answers,
            rework=work.rework,
            fixes=work.fixes,
            last_step=work.last_step,
            talks={
                index: Talk(talk.request, talk.said, talk.asked, {result.call: result for result in talk.results})
                for index, talk in work.talks.items()
            },
            tools={asked.call: asked for asked in work.tools},
            tool_calls=work.tool_calls,
            tool_rounds=work.tool_rounds,
            programs=dict(work.programs),
        )
    task.reworks = had.reworks
    task.calls_made = had.calls_made
    task.abandoned = [*had.abandoned] or ()
    task.tokens = had.tokens
    task.cost_usd_micros = had.cost_usd_micros
    task.cost_unknown = had.cost_unknown
    task.models = [*had.models] or ()
    task.tool_calls = had.tool_calls
    task.gate = had.gate
    task.human = had.human
    task.taint = had.taint


def _count(run: Run) -> None:
    for task in run.tasks.values():
        status = task.status
        if status == "completed":
            run.completed_count += 1
        elif status == "failed":
            run.failed_count += 1
        elif status == "cancelled":
            run.cancelled_count += 1
        elif status != "blocked":
            run.open_count += 1
            run.running += status == "in_progress" and not task.is_group


def _link(run: Run) -> None:
    """Who waits for whom, and who is part of what, in the order of the tasks, as `evolve` does it."""
    tasks, unresolved = run.tasks, run.unresolved
    for task in tasks.values():
        spec = task.spec
        for needed in spec.depends_on:
            other = tasks.get(needed)
            if other is None:
                unresolved.setdefault(needed, []).append(task)
                task.waiting_on += 1
            elif other.status != "completed":
                task.waiting_on += 1
                if other.dependents:
                    other.dependents.append(task)
                else:
                    other.dependents = [task]
        if spec.parent is not None:
            parent = tasks.get(spec.parent)
            if parent is None:
                unresolved.setdefault(spec.parent, []).append(task)
                task.waiting_on += 1
            else:
                _belong(task, parent)


def _belong(task: TaskRecord, parent: TaskRecord) -> None:
    task.parent = parent
    if parent.children:
        parent.children.append(task)
    else:
        parent.children = [task]
    if task.status not in TASK_STATES_FINAL:
        parent.children_open += 1
    elif task.status != "completed":
        parent.children_bad += 1


def _take_calls(run: Run, image: RunImage, records: list[TaskRecord]) -> None:
    for asked in image.calls:
        task = records[asked.task]
        call = Call(task, asked.step, asked.index, asked.request, asked.deadline_at_ms, asked.extended)
        run.calls[asked.request.corr_id] = call
        if task.work is not None:
            task.work.calls[asked.index] = call
    run.let_go = {corr_id: records[number] for corr_id, number in image.let_go}
    for ticket, number, corr_id in image.waits:
        task = records[number]
        at_ms = task.deadline_at_ms if corr_id is None else run.calls[corr_id].deadline_at_ms
        run.deadlines.append((at_ms, ticket, task, task.attempt, corr_id))
    run.deadlines.sort(key=lambda entry: entry[:2])
