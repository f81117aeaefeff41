"""Events to effects, and a folded state to the effects that are still open. Pure.

Reacting looks at the state after the commit: what a later event of the same commit ended is not asked for any more.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from contracts.limits import LUA_TIMEOUT_DEFAULT_MS, NATS_TIMEOUT_DEFAULT_MS, TITLE_CHARS_MAX
from contracts.run import (
    AgentsSpawned,
    LlmAnswered,
    LlmRequested,
    RunEvent,
    TaskCancelled,
    TaskFailed,
    TaskRetryScheduled,
    TaskStarted,
)
from contracts.run_gates import TaskApprovalRequested
from contracts.run_tools import ToolAnswered, ToolRequested
from contracts.task import AgentNode, ApprovalNode, LuaNode, NatsNode, NoopNode, TaskSpec
from contracts.tools import role_of
from services.executor import prompts
from services.executor.run.attempts import expected_stage
from services.executor.run.charges import charge_of
from services.executor.run.effects import (
    AskApproval,
    CallNats,
    CallTool,
    CancelLlm,
    Effect,
    RunNoop,
    RunScript,
    RunStage,
    SendLlm,
    WithdrawApproval,
    WithdrawTools,
)
from services.executor.run.gates import action_of, gate_id
from services.executor.run.state import TOOL_BODY, Run, TaskRecord, needs_gate
from services.executor.run.taint import read_before
from services.executor.run.tool_order import due
from services.executor.run.tool_verdicts import tests_of

STAGE_OF_STEP: Final = {"spawn": "agent_spawning", "orchestrate": "orchestration", "complete": "completion"}


def react(run: Run, events: Sequence[RunEvent]) -> Sequence[Effect]:
    """Effects of freshly committed events."""
    effects: list[Effect] = []
    reactions = REACTIONS
    for event in events:
        reaction = reactions.get(type(event))
        if reaction is not None:
            reaction(run, event, effects)
    return _once_each(effects) if any(type(event) is ToolAnswered for event in events) else effects


def _once_each(effects: Sequence[Effect]) -> Sequence[Effect]:
    """A tool call that follows from several events of a commit is asked for once."""
    calls: set[tuple[str, int, str]] = set()
    found: list[Effect] = []
    for effect in effects:
        if isinstance(effect, CallTool):
            if effect.key in calls:
                continue
            calls.add(effect.key)
        found.append(effect)
    return found


def recover(run: Run) -> Sequence[Effect]:
    """Effects that a state folded from the log still waits for. Their ids are those they had before.

    Whoever was killed may not have said that nobody waits for a gate any more, also when that ended the run: it is said
    again, which changes nothing where it was heard.
    """
    effects: list[Effect] = []
    for task in run.tasks.values():
        if task.status == "cancelled":
            _withdraw(run, task, "", effects)
    if run.status != "running":
        return effects
    for task in run.tasks.values():
        if task.status == "in_progress" and not task.is_group:
            if task.work is not None:
                charge = charge_of(run, task)
                effects.extend(
                    SendLlm(call.request, call.last_deadline_at_ms, charge) for call in task.work.calls.values()
                )
                effects.extend(_tool_call(task, asked) for asked in due(task.work.tools.values()))
            _begin(run, task, effects)
        elif task.status == "waiting_approval":
            _ask(run, task, effects)
    return effects


def _approval_requested(run: Run, event: TaskApprovalRequested, effects: list[Effect]) -> None:
    task = run.tasks[event.task_id]
    if task.status == "waiting_approval" and task.attempt == event.attempt:
        _ask(run, task, effects)


def _ask(run: Run, task: TaskRecord, effects: list[Effect]) -> None:
    gate, spec = task.gate, task.spec
    if gate is None:
        return
    named = spec.node.title if isinstance(spec.node, ApprovalNode) else ""
    title = " ".join((named or spec.title or spec.description or spec.id).split())[:TITLE_CHARS_MAX]
    action = action_of(run, task)
    effects.append(
        AskApproval(
            gate.gate_id,
            spec.id,
            task.attempt,
            title,
            gate.digest,
            action,
            gate.expires_at_ms,
            spec.approvers,
            *read_before(run, task),
        )
    )


def _cancelled(run: Run, event: TaskCancelled, effects: list[Effect]) -> None:
    task = run.tasks[event.task_id]
    _withdraw(run, task, event.reason, effects)
    _abandoned(run, event, effects)


def _withdraw(run: Run, task: TaskRecord, reason: str, effects: list[Effect]) -> None:
    # Withdrawing a gate that was answered already changes nothing.
    if task.attempt and needs_gate(task):
        effects.append(WithdrawApproval(gate_id(run.run_id, task.spec.id, task.attempt), reason))


def _started(run: Run, event: TaskStarted, effects: list[Effect]) -> None:
    task = run.tasks[event.task_id]
    if task.status == "in_progress" and task.attempt == event.attempt and task.work is None:
        _begin(run, task, effects)


def _spawned(run: Run, event: AgentsSpawned, effects: list[Effect]) -> None:
    task = run.tasks[event.task_id]
    if not event.fallback and task.status == "in_progress" and task.attempt == event.attempt:
        _stage(run, task, effects)


def _requested(run: Run, event: LlmRequested, effects: list[Effect]) -> None:
    call = run.calls.get(event.request.corr_id)
    if call is not None:
        charge = charge_of(run, run.tasks[event.task_id])
        effects.append(SendLlm(event.request, call.last_deadline_at_ms, charge))


def _answered(run: Run, event: LlmAnswered, effects: list[Effect]) -> None:
    task = run.tasks[event.task_id]
    work = task.work
    if work is None or task.status != "in_progress" or task.attempt != event.attempt:
        return
    if work.last_step == event.step:  # the last answer of several in one commit asks for the gate, once
        _stage(run, task, effects)


def _tool_requested(run: Run, event: ToolRequested, effects: list[Effect]) -> None:
    task = run.tasks[event.task_id]
    if task.work is None or task.attempt != event.attempt or event.call not in task.work.tools:
        return
    if event in due(asked for asked in task.work.tools.values() if asked.step == event.step):
        effects.append(_tool_call(task, event))


def _tool_answered(run: Run, event: ToolAnswered, effects: list[Effect]) -> None:
    """Whatever waited for this call alone is due now."""
    task = run.tasks[event.task_id]
    work = task.work
    if work is None or task.attempt != event.attempt:
        return
    step = next((talk.said.step for talk in work.talks.values() if event.call in talk.results), None)
    waiting = due(asked for asked in work.tools.values() if asked.step == step)
    effects.extend(_tool_call(task, asked) for asked in waiting if asked.call > event.call and not asked.barred)


def _tool_call(task: TaskRecord, asked: ToolRequested) -> CallTool:
    return CallTool(
        asked.task_id,
        asked.attempt,
        asked.call,
        role_of(task.spec.role),
        asked.tool,
        asked.args,
        asked.opts,
        asked.deadline_at_ms,
        for_model=asked.step != TOOL_BODY,
        barred=asked.barred,
    )


def _abandoned(run: Run, event: TaskFailed | TaskCancelled | TaskRetryScheduled, effects: list[Effect]) -> None:
    task = run.tasks[event.task_id]
    for request in task.abandoned:
        effects.append(CancelLlm(request.corr_id, request.node_id))
    if task.tool_calls:
        attempt = task.attempt if isinstance(event, TaskCancelled) else event.attempt
        effects.append(WithdrawTools(event.task_id, attempt))


REACTIONS: Final[Mapping[type, Callable[[Run, Any, list[Effect]], None]]] = {
    TaskApprovalRequested: _approval_requested,
    TaskStarted: _started,
    AgentsSpawned: _spawned,
    LlmRequested: _requested,
    LlmAnswered: _answered,
    ToolRequested: _tool_requested,
    ToolAnswered: _tool_answered,
    TaskFailed: _abandoned,
    TaskCancelled: _cancelled,
    TaskRetryScheduled: _abandoned,
}


def _begin(run: Run, task: TaskRecord, effects: list[Effect]) -> None:
    spec = task.spec
    node = spec.node
    if type(node) is NoopNode:
        effects.append(RunNoop(spec.id, task.attempt, node.result))
    elif type(node) is LuaNode:
        context = {
            "task": task_table(spec),
            "results": {needed: run.tasks[needed].result for needed in spec.depends_on},
            "input": spec.context,
            "run_id": run.run_id,
        }
        timeout_ms = node.timeout_ms or LUA_TIMEOUT_DEFAULT_MS
        effects.append(RunScript(spec.id, task.attempt, node.src, node.argv, context, timeout_ms))
    elif type(node) is NatsNode:
        effects.append(
            CallNats(
                spec.id,
                task.attempt,
                node.subject,
                node.payload,
                node.mode == "publish",
                node.timeout_ms or spec.timeout_ms or NATS_TIMEOUT_DEFAULT_MS,
                f"{run.run_id}/{spec.id}/{task.attempt}",
            )
        )
    elif type(node) is AgentNode:
        _stage(run, task, effects)


def _stage(run: Run, task: TaskRecord, effects: list[Effect]) -> None:
    """Ask for the Lua stage that is due, if one is."""
    step = expected_stage(task)
    if step is None or run.strategy is None:
        return
    stage = STAGE_OF_STEP[step.partition("-")[0]]
    context = {"phase": stage, **stage_context(run, task)}
    effects.append(RunStage(task.spec.id, task.attempt, step, run.strategy, stage, context))


def stage_context(run: Run, task: TaskRecord) -> dict[str, Any]:
    """What a script sees as `context`: task, SPARC phase if any, history, metrics; then agents and answers."""
    spec = task.spec
    history = []
    room = prompts.RESULTS_CHARS_MAX
    for needed in spec.depends_on:
        other = run.tasks[needed]
        output = prompts.text_of(other.result)[: min(prompts.RESULT_CHARS_MAX, room)] if room else ""
        room -= len(output)
        history.append({"id": needed, "status": other.status, "output": output})
    context: dict[str, Any] = {
        "task": task_table(spec),
        "history": history,
        "metrics": {
            "attempt": task.attempt,
            "reworks": task.reworks,
            "tokens": task.tokens,
            "completed": run.completed_count,
            "failed": run.failed_count,
            "total": len(run.tasks),
        },
        "run": {"id": run.run_id, "goal": run.goal},
    }
    if spec.sparc_phase is not None:
        context["phase"] = spec.sparc_phase
    work = task.work
    if work is not None:
        context["agents"] = work.agents
        context["pattern"] = work.pattern
        context["execution_results"] = [
            {
                "id": f"{spec.id}-{index + 1}",
                "status": "completed" if answer.error is None else "failed",
                "output": answer.output,
                "role": work.agents[step["agent"]]["role"],
            }
            for index, (step, answer) in enumerate(zip(work.steps or (), work.answers, strict=False))
            if answer is not None
        ]
        context["tests"] = tests_of(spec, work)
        context["code_quality"] = spec.context.get("code_quality", {})
    return context


def task_table(spec: TaskSpec) -> dict[str, Any]:
    """A task as Lua sees it: every field, defaults too."""
    table: dict[str, Any] = {field: getattr(spec, field) for field in TaskSpec.__struct_fields__}
    table["node"] = msgspec.to_builtins(spec.node)
    table["description"] = spec.description or spec.title
    return table
