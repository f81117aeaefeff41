"""Judging what comes back during one attempt: bodies, Lua stages, LLM answers. Pure.

What belongs to an older attempt, to another step, or came already, changes nothing.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from contracts.errors import Rejected, failure
from contracts.run import (
    AgentsSpawned,
    LlmAnswered,
    LlmSettled,
    Orchestrated,
    RunEvent,
    TakeAnswer,
    TakeResult,
    TaskCompleted,
    TaskFailed,
    TaskJudged,
    TaskReworked,
)
from contracts.task import AgentNode, LlmNode, LuaNode, NatsNode, NoopNode
from services.executor import agents
from services.executor.prompts import RESULT_CHARS_MAX, RESULTS_CHARS_MAX
from services.executor.run.failures import ended_badly
from services.executor.run.llm_steps import next_calls
from services.executor.run.state import Run, TaskRecord, Work
from services.executor.run.tool_steps import ask_tools, wants_tools
from services.executor.run.tool_verdicts import failed_tests

BODIES = frozenset({NoopNode, LuaNode, NatsNode})
"""Nodes that the executor carries out itself in one step."""


def take_result(command: TakeResult, run: Run, now_ms: int) -> Sequence[RunEvent]:
    """Judge the outcome of a body or of a Lua stage."""
    task = run.tasks.get(command.task_id)
    if task is None or task.status != "in_progress" or task.attempt != command.attempt:
        return ()
    step = command.step
    if step == "body":
        if type(task.spec.node) not in BODIES:
            return ()
        if command.error is None:
            return (TaskCompleted(command.task_id, command.attempt, command.value),)
        return (ended_badly(run, task, command.error, now_ms),)
    if type(task.spec.node) is not AgentNode or step != expected_stage(task):
        return ()
    if command.error is not None:
        return (ended_badly(run, task, command.error, now_ms),)
    try:
        if step == "spawn":
            return _spawned(run, task, command)
        if step == "orchestrate":
            return _orchestrated(run, task, command, now_ms)
        return _judged(run, task, command, now_ms)
    except Rejected as error:
        return (ended_badly(run, task, error.to_wire(), now_ms),)


def expected_stage(task: TaskRecord) -> str | None:
    """The Lua stage whose result is awaited now, as a step name; None while LLM answers are."""
    work = task.work
    if work is None:
        return "spawn"
    if work.steps is None:
        return "orchestrate"
    if work.strategy is None or not work.all_answered:
        return None
    return f"complete-{work.rework}" if work.rework else "complete"


def _spawned(run: Run, task: TaskRecord, command: TakeResult) -> Sequence[RunEvent]:
    found = agents.spawned(command.value)
    return (
        AgentsSpawned(
            command.task_id,
            command.attempt,
            found.agents,
            found.pattern,
            strategy=run.strategy,
            duration_ms=command.duration_ms,
        ),
    )


def _orchestrated(run: Run, task: TaskRecord, command: TakeResult, now_ms: int) -> Sequence[RunEvent]:
    work = task.work
    if work is None:
        return ()
    steps = agents.orchestrated(command.value, work.agents, work.pattern)
    planned = Work(work.agents, work.pattern, work.strategy, steps, [None] * len(steps))
    return (
        Orchestrated(command.task_id, command.attempt, steps, run.strategy, command.duration_ms),
        *next_calls(run, task, planned, command.attempt, now_ms),
    )


def _judged(run: Run, task: TaskRecord, command: TakeResult, now_ms: int) -> Sequence[RunEvent]:
    work = task.work
    if work is None or work.steps is None:
        return ()
    verdict = agents.judged(command.value)
    judged = TaskJudged(
        command.task_id,
        command.attempt,
        verdict.status,
        verdict.confidence,
        verdict.reasoning,
        verdict.fixes,
        run.strategy,
        command.duration_ms,
    )
    if verdict.status == "completed":
        result = result_of(work, work.answers, verdict.reasoning)
        return (judged, TaskCompleted(command.task_id, command.attempt, result))
    fixes = verdict.fixes or [verdict.reasoning or "it is not complete"]
    if work.rework >= run.options.reworks_max:
        error = failure("rework_exhausted", required_fixes=fixes, reworks=work.rework)
        return (judged, TaskFailed(command.task_id, command.attempt, error))
    rework = work.rework + 1
    again = Work(
        work.agents, work.pattern, work.strategy, work.steps, [None] * len(work.steps), rework=rework, fixes=fixes
    )
    return (
        judged,
        TaskReworked(command.task_id, command.attempt, rework, fixes),
        *next_calls(run, task, again, command.attempt, now_ms),
    )


def take_answer(command: TakeAnswer, run: Run, now_ms: int) -> Sequence[RunEvent]:
    """Judge an LLM answer. After a failed call nothing new is asked, but calls under way are still taken in."""
    call = run.calls.get(command.corr_id)
    if call is None:
        return _settled(command, run)
    task = call.task
    work = task.work
    if work is None:
        return ()
    attempt = task.attempt
    answered = LlmAnswered(
        task.spec.id,
        attempt,
        call.step,
        command.corr_id,
        command.output,
        command.model_used,
        command.usage,
        command.cost_usd_micros,
        command.finish_reason,
        command.latency_ms,
        command.error,
        command.tool_calls,
        command.output_ref,
        command.cached,
    )
    answers = list(work.answers)
    answers[call.index] = answered
    wrong = next((answer.error for answer in answers if answer is not None and answer.error is not None), None)
    if wrong is not None:
        if len(work.calls) > 1:
            return (answered,)
        return (answered, ended_badly(run, task, wrong, now_ms))
    tools = wants_tools(task, answered)
    if tools:
        return (answered, *ask_tools(run, task, call.request, answered, tools, now_ms))
    if None in answers:
        calls = next_calls(run, task, work, attempt, now_ms, answers)
        return (answered, *calls)
    if type(task.spec.node) is LlmNode:
        result: dict[str, Any] = {
            "output": command.output,
            "model_used": command.model_used,
            "finish_reason": command.finish_reason,
        }
        if command.tool_calls:
            result["tool_calls"] = command.tool_calls
        if command.output_ref is not None:
            result["output_ref"] = msgspec.to_builtins(command.output_ref)
        return (answered, TaskCompleted(task.spec.id, attempt, result))
    if work.strategy is not None:
        return (answered,)
    failed = failed_tests(task.spec, work)
    if failed:  # nobody else judges it
        error = failure("program_failed", "what the tester ran last did not end well", failed=failed)
        return (answered, ended_badly(run, task, error, now_ms))
    return (answered, TaskCompleted(task.spec.id, attempt, result_of(work, answers, "")))


def _settled(command: TakeAnswer, run: Run) -> Sequence[RunEvent]:
    """The end of a call that was let go: nobody wants its answer, but it may have been paid."""
    task = run.let_go.get(command.corr_id)
    if task is None:
        return ()
    paid = not command.cached and command.usage is not None
    usage, cost = (command.usage, command.cost_usd_micros) if paid else (None, None)
    return (LlmSettled(task.spec.id, command.corr_id, command.model_used, usage, cost),)


def result_of(work: Work, answers: Sequence[LlmAnswered | None], reasoning: str) -> dict[str, Any]:
    """The result of an agent task: the leader's last word (else the last word), and what every agent said."""
    said: list[dict[str, Any]] = []
    cut = RESULT_CHARS_MAX if sum(len(answer.output) for answer in answers if answer) > RESULTS_CHARS_MAX else None
    leading = len(answers) - 1
    for index, (step, answer) in enumerate(zip(work.steps or (), answers, strict=True)):
        if answer is None:
            continue
        agent = work.agents[step["agent"]]
        said.append({"role": agent["role"], "model": answer.model_used, "output": answer.output[:cut]})
        if answer.output_ref is not None:
            said[-1]["output_ref"] = msgspec.to_builtins(answer.output_ref)
        if work.pattern == "leader_follower" and step["agent"] == 0:
            leading = index
    last = answers[leading]
    result: dict[str, Any] = {"output": last.output if last is not None else "", "agents": said}
    if last is not None and last.output_ref is not None:
        result["output_ref"] = msgspec.to_builtins(last.output_ref)
    if reasoning:
        result["reasoning"] = reasoning
    return result
