"""The tool loop of an agent: answers that want tools, what the tools give, the next question. Pure.

A refusal is a result like any other: the model sees it and goes on, or gives up. A tool that a task does not have is
barred: policy-gateway is asked for it all the same, so that the refusal is in the audit. Whatever it says, and if
nobody answers in time, the call is refused here.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from contracts.errors import Rejected, failure
from contracts.limits import (
    LLM_TIMEOUT_GRACE_MS,
    TOOL_CALLS_PER_ANSWER_MAX,
    TOOL_CALLS_PER_ATTEMPT_MAX,
    TOOL_ROUNDS_PER_ATTEMPT_MAX,
)
from contracts.llm import LlmInput, LlmRequest
from contracts.run import LlmAnswered, LlmRequested, RunEvent, TaskCompleted
from contracts.run_tools import TakeToolResult, ToolAnswered, ToolRequested
from contracts.tools import only_reads
from services.executor.run.conversation import Wanted, continued, wanted, without_tools
from services.executor.run.failures import DENIED, ended_badly, opens_gate
from services.executor.run.llm_steps import (
    corr_id,
    has_loop,
    is_later_round,
    node_id,
    offered,
    permitted,
    tool_deadline_ms,
)
from services.executor.run.state import TOOL_BODY, Run, Talk, TaskRecord, Work, step_index
from services.executor.run.tool_verdicts import failed_program

READS_PER_ATTEMPT_MAX: Final = 3
"""A tool node's call that only reads is made so often in one attempt when its gateway dies."""
BARRED_WAIT_MS: Final = 10_000
"""So long a refusal waits for policy-gateway to record it."""


def wants_tools(task: TaskRecord, answered: LlmAnswered) -> list[Wanted]:
    """The tool calls that an answer asks for and that are the executor's to make, or to refuse."""
    if not answered.tool_calls or not has_loop(task.spec):
        return []
    return wanted(answered.tool_calls, answered.step)


def ask_tools(
    run: Run, task: TaskRecord, request: LlmRequest, answered: LlmAnswered, calls: Sequence[Wanted], now_ms: int
) -> Sequence[RunEvent]:
    """Ask for the tools that an answer to `request` wants, and refuse those beyond the bounds of an attempt.

    A model that still wants some after it was told that there are none any more has no answer: that fails the attempt.
    """
    work = task.work
    if work is None:
        return ()
    talk = Talk(request, answered, [], {})
    insists = _insists(talk)
    if insists and offered(run, task.spec):
        return (ended_badly(run, task, _beyond_bounds(work, calls), now_ms),)
    events: list[RunEvent] = []
    for number, call in enumerate(calls[:TOOL_CALLS_PER_ANSWER_MAX], work.tool_calls + 1):
        barred = insists or not permitted(run, task.spec, call.tool)
        deadline = tool_deadline_ms(task.deadline_at_ms, now_ms)
        if barred:
            deadline = min(deadline, now_ms + BARRED_WAIT_MS)
        asked = ToolRequested(
            task.spec.id,
            task.attempt,
            answered.step,
            number,
            call.tool,
            call.args,
            deadline,
            call.opts,
            call.id,
            barred,
        )
        events.append(asked)
        talk.asked.append(asked)
        refused = _refusal(work, asked)
        if refused is not None:
            talk.results[number] = ToolAnswered(task.spec.id, task.attempt, number, error=refused)
            events.append(talk.results[number])
    if len(talk.results) < len(talk.asked):
        return events
    return (*events, _what_follows(run, task, talk, work.tool_rounds + 1, work.tool_calls + len(talk.asked), now_ms))


def _insists(talk: Talk) -> bool:
    """Whether a model wants tools even though it was told that there are none any more."""
    return not talk.request.params.tools and is_later_round(talk.said.step)


def _beyond_bounds(work: Work, calls: Sequence[Wanted]) -> dict[str, Any]:
    """The end of an attempt that has used up its calls or rounds and still wants more."""
    if work.tool_calls >= TOOL_CALLS_PER_ATTEMPT_MAX:
        requested = work.tool_calls + len(calls)
        return failure("tool_limit_exceeded", limit="calls", max=TOOL_CALLS_PER_ATTEMPT_MAX, requested=requested)
    rounds = work.tool_rounds + 2
    return failure("tool_limit_exceeded", limit="rounds", max=TOOL_ROUNDS_PER_ATTEMPT_MAX, requested=rounds)


def _refusal(work: Work, asked: ToolRequested) -> dict[str, Any] | None:
    """Why the executor does not even ask for this call; None when it does."""
    if work.tool_rounds + 1 >= TOOL_ROUNDS_PER_ATTEMPT_MAX:
        return failure("tool_limit_exceeded", limit="rounds", max=TOOL_ROUNDS_PER_ATTEMPT_MAX)
    if asked.call > TOOL_CALLS_PER_ATTEMPT_MAX:
        return failure("tool_limit_exceeded", limit="calls", max=TOOL_CALLS_PER_ATTEMPT_MAX)
    return None


def take_tool_result(command: TakeToolResult, run: Run, now_ms: int) -> Sequence[RunEvent]:
    """Judge what a tool call gave. What belongs to an older attempt, or came already, changes nothing."""
    task = run.tasks.get(command.task_id)
    if task is None or task.status != "in_progress" or task.attempt != command.attempt or task.work is None:
        return ()
    work = task.work
    asked = work.tools.get(command.call)
    if asked is None:
        return ()
    if asked.barred:
        command = _barred(run, task, asked, command)
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
        return (answered, _body_ended(run, task, asked, command, now_ms))
    talk = work.talks.get(step_index(asked.step, work))
    if talk is None:
        return (answered,)
    if opens_gate(task, command.error):
        return (answered, ended_badly(run, task, command.error or {}, now_ms))
    results = {**talk.results, command.call: answered}
    if len(results) < len(talk.asked) or any(answer is not None and answer.error for answer in work.answers):
        return (answered,)
    talk = Talk(talk.request, talk.said, talk.asked, results)
    return (answered, _what_follows(run, task, talk, work.tool_rounds, work.tool_calls, now_ms))


def _barred(run: Run, task: TaskRecord, asked: ToolRequested, command: TakeToolResult) -> TakeToolResult:
    """What a barred call gave: the policy's refusal as it says it, and ours instead of anything else."""
    error = command.error or {}
    if error.get("class") == DENIED and error.get("code") == "forbidden_tool":
        return command
    tools = list(offered(run, task.spec))
    refused = failure("forbidden_tool", "this task does not have this tool", tool=asked.tool, tools=tools)
    return msgspec.structs.replace(command, value=None, error=refused, truncated=False)


def _what_follows(run: Run, task: TaskRecord, talk: Talk, rounds: int, made: int, now_ms: int) -> RunEvent:
    """The next question, or the end of an attempt that cannot go on, once every call of an answer has a result."""
    if _insists(talk):
        none = failure("forbidden_tool", "this task has no tools", tool=talk.asked[0].tool, tools=[])
        return ended_badly(run, task, none, now_ms)
    try:
        return _next_question(run, task, talk, rounds, made, now_ms)
    except Rejected as error:
        return ended_badly(run, task, error.to_wire(), now_ms)


def _body_ended(run: Run, task: TaskRecord, asked: ToolRequested, command: TakeToolResult, now_ms: int) -> RunEvent:
    """What the call of a tool node leads to."""
    error = command.error or failed_program(task.spec, command.value)
    if error is None:
        return TaskCompleted(command.task_id, command.attempt, command.value)
    again = asked.call < READS_PER_ATTEMPT_MAX and only_reads(asked.tool, asked.args)
    if error.get("code") == "call_interrupted" and again:
        # Its gateway died; what only reads has done nothing, so it is no attempt.
        return msgspec.structs.replace(asked, call=asked.call + 1)
    return ended_badly(run, task, error, now_ms)


def _next_question(run: Run, task: TaskRecord, talk: Talk, rounds: int, made: int, now_ms: int) -> LlmRequested:
    """The conversation with what the tools gave; the last one within the bounds has none any more, but needs an answer.

    `rounds` are the answers of this attempt that wanted tools, `made` its calls.
    """
    said = talk.said
    first, _, number = said.step.partition(".")
    step = f"{first}.{int(number or 1) + 1}"
    in_order = [talk.results[asked.call] for asked in talk.asked]
    messages = continued(talk.request.input.messages, said, wanted(said.tool_calls, said.step), in_order)
    params = talk.request.params
    bounds_reached = rounds + 1 >= TOOL_ROUNDS_PER_ATTEMPT_MAX or made >= TOOL_CALLS_PER_ATTEMPT_MAX
    if bounds_reached or not params.tools:
        messages = without_tools(messages)
        params = msgspec.structs.replace(params, tools=None)
    request = msgspec.structs.replace(
        talk.request,
        input=LlmInput(messages),
        node_id=node_id(run, task.spec.id, task.calls_made + 1),
        corr_id=corr_id(run.run_id, task.spec.id, task.attempt, step),
        params=params,
    )
    deadline = now_ms + request.params.timeout_ms + LLM_TIMEOUT_GRACE_MS
    return LlmRequested(task.spec.id, task.attempt, step, request, deadline)
