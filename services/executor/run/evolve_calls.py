"""Taking in what models and tools are asked, and what they say. Never fails on a log that was judged, never judges."""

from heapq import heappush
from typing import Any

from contracts.run import LlmAnswered, LlmAwaited, LlmRequested, LlmSettled
from contracts.run_tools import ToolAnswered, ToolRequested
from services.executor.run import taint
from services.executor.run.state import TOOL_BODY, Call, Run, Talk, TaskRecord, Work, step_index
from services.executor.run.tool_verdicts import ran_badly


def plan_steps(work: Work, steps: list[dict[str, Any]]) -> None:
    """Begin a round: these are its steps, nobody has answered."""
    work.steps = steps
    work.answers = [None] * len(steps)


def llm_requested(run: Run, event: LlmRequested) -> None:
    """A model is asked; what its tools gave before is in the request now."""
    task = run.tasks[event.task_id]
    work = task.work
    if work is None:  # a node of type llm has no agents: it is one call
        work = task.work = Work([], "solo", None)
        plan_steps(work, [{"agent": 0, "after": []}])
    index = step_index(event.step, work)
    call = Call(task, event.step, index, event.request, event.deadline_at_ms)
    work.calls[index] = call
    work.talks.pop(index, None)
    run.calls[event.request.corr_id] = call
    task.calls_made += 1
    run.ticket += 1
    heappush(run.deadlines, (event.deadline_at_ms, run.ticket, task, event.attempt, event.request.corr_id))


def llm_awaited(run: Run, event: LlmAwaited) -> None:
    """A model gets more time."""
    call = run.calls.get(event.corr_id)
    if call is None:
        return
    call.deadline_at_ms = event.deadline_at_ms
    call.extended = True
    run.ticket += 1
    heappush(run.deadlines, (event.deadline_at_ms, run.ticket, call.task, call.task.attempt, event.corr_id))


def llm_answered(run: Run, event: LlmAnswered) -> None:
    """A model has answered; if it wants tools, what it was asked is kept until they have answered."""
    call = run.calls.pop(event.corr_id, None)
    if call is None:
        return
    task = call.task
    run.answered_count += 1
    _spend(run, task, event)
    work = task.work
    if work is not None:
        del work.calls[call.index]
        work.answers[call.index] = event
        work.last_step = event.step
        if event.tool_calls:
            work.talks[call.index] = Talk(call.request, event)
            work.tool_rounds += 1


def llm_settled(run: Run, event: LlmSettled) -> None:
    """A call that was let go is over: it counts for its task, whatever has become of that."""
    task = run.let_go.pop(event.corr_id, None)
    if task is not None:
        _spend(run, task, event)


def _spend(run: Run, task: TaskRecord, event: LlmAnswered | LlmSettled) -> None:
    if event.paid:
        tokens = event.usage.total_tokens if event.usage is not None else 0
        task.tokens += tokens
        run.tokens += tokens
        if event.cost_usd_micros is None:
            task.cost_unknown = run.cost_unknown = True
        else:
            task.cost_usd_micros += event.cost_usd_micros
            run.cost_usd_micros += event.cost_usd_micros
    if event.model_used and event.model_used not in task.models:
        task.models = [*task.models, event.model_used]


def tool_requested(run: Run, event: ToolRequested) -> None:
    """A tool is asked, by a model or by a node of type tool."""
    task = run.tasks[event.task_id]
    task.tool_calls += 1
    work = task.work
    if work is None:  # a node of type tool has no agents: it is one call
        work = task.work = Work([], "solo", None)
        plan_steps(work, [])
    work.tool_calls = event.call
    work.tools[event.call] = event
    talk = _talk_of(event, work)
    if talk is not None:
        talk.asked.append(event)
        work.answers[step_index(event.step, work)] = None  # what wants tools is not the step's answer yet


def tool_answered(run: Run, event: ToolAnswered) -> None:
    """A tool has answered."""
    task = run.tasks[event.task_id]
    work = task.work
    asked = work.tools.pop(event.call, None) if work is not None else None
    if asked is not None:
        taint.tool_answered(task, asked, event)
    talk = _talk_of(asked, work) if asked is not None and work is not None else None
    if talk is not None:
        talk.results[event.call] = event
    if asked is not None and work is not None and asked.step != TOOL_BODY:
        _ran(asked, event, work)


def _ran(asked: ToolRequested, event: ToolAnswered, work: Work) -> None:
    bad = ran_badly(asked, event)
    if bad is None:
        return
    index = step_index(asked.step, work)
    step, before = work.programs.get(index, ("", 0))
    work.programs[index] = (asked.step, bad + (before if step == asked.step else 0))


def _talk_of(asked: ToolRequested, work: Work) -> Talk | None:
    return None if asked.step == TOOL_BODY else work.talks.get(step_index(asked.step, work))
