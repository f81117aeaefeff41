"""The tool loop of an agent: answers that want tools, what the tools give, the next question. Pure.

A refusal by policy is a result like any other: the model sees it and goes on, or gives up.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from contracts.errors import Rejected, failure
from contracts.limits import (
    LLM_TIMEOUT_GRACE_MS,
    TOOL_CALLS_PER_ANSWER_MAX,
    TOOL_CALLS_PER_ATTEMPT_MAX,
    TOOL_ROUNDS_PER_ATTEMPT_MAX,
)
from contracts.llm import LlmInput
from contracts.run import LlmAnswered, LlmRequested, RunEvent, TaskCompleted
from contracts.run_tools import TakeToolResult, ToolAnswered, ToolRequested
from services.executor.run.conversation import Wanted, continued, wanted
from services.executor.run.failures import ended_badly
from services.executor.run.llm_steps import corr_id, node_id, offered, tool_deadline_ms
from services.executor.run.state import TOOL_BODY, Run, Talk, TaskRecord, Work, step_index


def wants_tools(run: Run, task: TaskRecord, answered: LlmAnswered) -> list[Wanted]:
    """The tool calls that an answer asks for and that are the executor's to make."""
    if not answered.tool_calls or not offered(run, task.spec):
        return []
    return wanted(answered.tool_calls, answered.step)


def ask_tools(
    run: Run, task: TaskRecord, work: Work, answered: LlmAnswered, calls: Sequence[Wanted], now_ms: int
) -> Sequence[RunEvent]:
    """Ask for all tools that an answer wants at once, or fail the task that wants too much."""
    made = calls[:TOOL_CALLS_PER_ANSWER_MAX]
    over: dict[str, Any] = {}
    if work.tool_rounds + 1 >= TOOL_ROUNDS_PER_ATTEMPT_MAX:
        over = {"limit": "rounds", "max": TOOL_ROUNDS_PER_ATTEMPT_MAX, "requested": work.tool_rounds + 2}
    elif work.tool_calls + len(made) > TOOL_CALLS_PER_ATTEMPT_MAX:
        over = {"limit": "calls", "max": TOOL_CALLS_PER_ATTEMPT_MAX, "requested": work.tool_calls + len(made)}
    if over:
        return (ended_badly(run, task, failure("tool_limit_exceeded", **over), now_ms),)
    deadline = tool_deadline_ms(task.deadline_at_ms, now_ms)
    return [
        ToolRequested(
            task.spec.id, task.attempt, answered.step, number, call.tool, call.args, deadline, call.opts, call.id
        )
        for number, call in enumerate(made, work.tool_calls + 1)
    ]


def take_tool_result(command: TakeToolResult, run: Run, now_ms: int) -> Sequence[RunEvent]:
    """Judge what a tool call gave. What belongs to an older attempt, or came already, changes nothing."""
    task = run.tasks.get(command.task_id)
    if task is None or task.status != "in_progress" or task.attempt != command.attempt or task.work is None:
        return ()
    work = task.work
    asked = work.tools.get(command.call)
    if asked is None:
        return ()
    answered = ToolAnswered(
        command.task_id,
        command.attempt,
        command.call,
        command.value,
        command.error,
        command.truncated,
        command.duration_ms,
    )
    if asked.step == TOOL_BODY:
        if command.error is not None:
            return (answered, ended_badly(run, task, command.error, now_ms))
        return (answered, TaskCompleted(command.task_id, command.attempt, command.value))
    talk = work.talks.get(step_index(asked.step, work))
    if talk is None:
        return (answered,)
    results = {**talk.results, command.call: answered}
    if len(results) < len(talk.asked) or any(answer is not None and answer.error for answer in work.answers):
        return (answered,)
    try:
        return (answered, _next_question(run, task, talk, results, now_ms))
    except Rejected as error:
        return (answered, ended_badly(run, task, error.to_wire(), now_ms))


def _next_question(
    run: Run, task: TaskRecord, talk: Talk, results: dict[int, ToolAnswered], now_ms: int
) -> LlmRequested:
    said = talk.said
    first, _, number = said.step.partition(".")
    step = f"{first}.{int(number or 1) + 1}"
    in_order = [results[asked.call] for asked in talk.asked]
    messages = continued(talk.request.input.messages, said, wanted(said.tool_calls, said.step), in_order)
    request = msgspec.structs.replace(
        talk.request,
        input=LlmInput(messages),
        node_id=node_id(run, task.spec.id, task.calls_made + 1),
        corr_id=corr_id(run.run_id, task.spec.id, task.attempt, step),
    )
    deadline = now_ms + request.params.timeout_ms + LLM_TIMEOUT_GRACE_MS
    return LlmRequested(task.spec.id, task.attempt, step, request, deadline)
