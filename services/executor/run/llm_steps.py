"""LLM calls of a task: which comes next, what it asks, under which ids. Pure; ids derive from the log alone."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from contracts.limits import (
    ID_CHARS_MAX,
    LLM_TEMPERATURE_DEFAULT,
    LLM_TIMEOUT_DEFAULT_MS,
    LLM_TIMEOUT_GRACE_MS,
    LLM_TIMEOUT_MAX_MS,
    TASK_TIMEOUT_DEFAULT_MS,
)
from contracts.llm import LlmInput, LlmParams, LlmRequest
from contracts.run import AgentsSpawned, LlmAnswered, LlmRequested, RunEvent
from contracts.run_tools import ToolRequested
from contracts.task import AgentNode, LlmNode, TaskSpec, ToolNode
from contracts.tools import describe, tools_of
from services.executor import agents, prompts
from services.executor.run.state import TOOL_BODY, Run, TaskRecord, Work

CORR_ID_CHARS_MAX: Final = 120
TOOL_MARGIN_MS: Final = 250


def opening(run: Run, task: TaskRecord, attempt: int, now_ms: int, deadline_at_ms: int) -> list[RunEvent]:
    """What follows a start at once: the call of an llm or tool node, or the fallback agent and its call."""
    spec = task.spec
    if type(spec.node) is LlmNode:
        return [_llm_node_call(run, task, spec.node, attempt, now_ms)]
    if type(spec.node) is ToolNode:
        return [_tool_node_call(spec.id, spec.node, attempt, tool_deadline_ms(deadline_at_ms, now_ms))]
    if type(spec.node) is not AgentNode or run.strategy is not None:
        return []
    found = agents.fallback_agents(spec)
    work = Work(found.agents, found.pattern, None, [{"agent": 0, "after": []}], [None])
    return [
        AgentsSpawned(spec.id, attempt, found.agents, found.pattern, fallback=True),
        *next_calls(run, task, work, attempt, now_ms),
    ]


def next_calls(
    run: Run,
    task: TaskRecord,
    work: Work,
    attempt: int,
    now_ms: int,
    answers: Sequence[LlmAnswered | None] | None = None,
) -> list[LlmRequested]:
    """Calls of the steps that may start now: not asked in this round, everything in `after` answered.

    `answers` replaces those of `work` where a decision has just given one more.
    """
    given = work.answers if answers is None else answers
    calls: list[LlmRequested] = []
    for index, step in enumerate(work.steps or ()):
        if given[index] is not None or index in work.calls or index in work.talks:
            continue
        if all(given[before] is not None for before in step["after"]):
            text = _agent_prompt(run, task, work, step, given)
            agent = work.agents[step["agent"]]
            node = task.spec.node
            own = node if isinstance(node, AgentNode) else AgentNode()
            model = own.model or run.options.model or agent.get("model")
            if not isinstance(model, str):
                model = agents.fallback_model(task.spec.estimated_complexity)
            number = work.rework * len(work.steps or ()) + index + 1
            messages = [{"role": "user", "content": text}]
            tools = offered(run, task.spec)
            system = [agent["system"]] if isinstance(agent.get("system"), str) else []
            system += [prompts.TOOLS] if tools else []
            if system:
                messages.insert(0, {"role": "system", "content": "\n\n".join(system)})
            params = _params(run, task, agent, own.params)
            if tools:
                params = msgspec.structs.replace(params, tools=describe(task.spec.role, tools))
            calls.append(_requested(run, task, attempt, number, len(calls), model, messages, params, now_ms))
    return calls


def _agent_prompt(
    run: Run, task: TaskRecord, work: Work, step: dict[str, Any], given: Sequence[LlmAnswered | None]
) -> str:
    if work.strategy is None:
        return prompts.fallback_prompt(task.spec) + prompts.results_section(results_for_prompt(run, task))
    steps = work.steps or []
    earlier = []
    for before in step["after"]:
        answer = given[before]
        if answer is not None:
            earlier.append((str(work.agents[steps[before]["agent"]]["role"]), answer.output))
    agent = work.agents[step["agent"]]
    instruction = str(step.get("instruction", ""))
    return prompts.agent_prompt(task.spec, agent, instruction, earlier, results_for_prompt(run, task), work.fixes)


def offered(run: Run, spec: TaskSpec) -> Sequence[str]:
    """The tools that the agents of a task are told of. What it describes itself in `params.tools` is its own affair."""
    node = spec.node
    if not isinstance(node, AgentNode) or not has_loop(spec):
        return ()
    if node.tools is not None:
        return node.tools
    return tools_of(spec.role) if run.options.workspace is not None else ()


def has_loop(spec: TaskSpec) -> bool:
    """Whether tool calls in the answers to a task are the executor's affair."""
    node = spec.node
    return isinstance(node, AgentNode) and not node.params.get("tools")


def permitted(run: Run, spec: TaskSpec, tool: str) -> bool:
    """Whether a tool is asked for at all. Which tools a role has is not judged here: the audit shall see that."""
    if isinstance(spec.node, AgentNode) and spec.node.tools is not None:
        return tool in spec.node.tools
    return run.options.workspace is not None


def is_later_round(step: str) -> bool:
    """Whether a step of a model follows one whose answer wanted tools."""
    return "." in step


def results_for_prompt(run: Run, task: TaskRecord) -> Iterator[tuple[str, str, Any]]:
    """Results of a task's dependencies, in their order."""
    for needed in task.spec.depends_on:
        other = run.tasks[needed]
        yield needed, other.spec.title or other.spec.description[:100], other.result


def _llm_node_call(run: Run, task: TaskRecord, node: LlmNode, attempt: int, now_ms: int) -> LlmRequested:
    messages = [dict(message) for message in node.messages or ()]
    if node.prompt is not None:
        messages.append({"role": "user", "content": node.prompt})
    if not node.bare:
        section = prompts.results_section(results_for_prompt(run, task))
        if section:
            last = messages[-1]
            if isinstance(last.get("content"), str):
                last["content"] += "\n" + section
            else:
                messages.append({"role": "user", "content": section})
    return _requested(run, task, attempt, 1, 0, node.model, messages, _params(run, task, {}, node.params), now_ms)


def _tool_node_call(task_id: str, node: ToolNode, attempt: int, deadline: int) -> ToolRequested:
    return ToolRequested(task_id, attempt, TOOL_BODY, 1, node.tool, node.args, deadline, node.opts)


def tool_deadline_ms(task_deadline_at_ms: int, now_ms: int) -> int:
    """Until when a tool call is asked for: a little less than the task has, so that why it failed is heard."""
    return task_deadline_at_ms - min(TOOL_MARGIN_MS, max(0, task_deadline_at_ms - now_ms) // 10)


def _params(run: Run, task: TaskRecord, agent: dict[str, Any], own: dict[str, Any]) -> LlmParams:
    """Parameters of one call: the node's own win over the run's options, then the agent's, then the seed's."""
    options = run.options
    chosen: dict[str, Any] = {"stream": options.stream, "timeout_ms": options.llm_timeout_ms or LLM_TIMEOUT_DEFAULT_MS}
    for field in ("temperature", "max_tokens", "timeout_ms"):
        if agent.get(field):
            chosen[field] = agent[field]
    chosen["temperature"] = float(agent.get("temperature", LLM_TEMPERATURE_DEFAULT))
    for field in ("max_tokens", "timeout_ms"):
        if field in chosen:
            chosen[field] = max(1, int(chosen[field]))
    if options.temperature is not None:
        chosen["temperature"] = options.temperature
    if options.max_tokens is not None:
        chosen["max_tokens"] = options.max_tokens
    if options.llm_timeout_ms is not None:
        chosen["timeout_ms"] = options.llm_timeout_ms
    if options.allow_unpriced:
        chosen["allow_unpriced"] = True
    chosen.update(own)
    task_timeout_ms = task.spec.timeout_ms or TASK_TIMEOUT_DEFAULT_MS
    chosen["timeout_ms"] = min(chosen["timeout_ms"], LLM_TIMEOUT_MAX_MS, task_timeout_ms)
    return msgspec.convert(chosen, LlmParams)


def _requested(
    run: Run,
    task: TaskRecord,
    attempt: int,
    number: int,
    together: int,
    model: str,
    messages: list[dict[str, Any]],
    params: LlmParams,
    now_ms: int,
) -> LlmRequested:
    step = f"llm-{number}"
    task_id = task.spec.id
    request = LlmRequest(
        input=LlmInput(messages=messages),
        run_id=run.run_id,
        node_id=node_id(run, task_id, task.calls_made + together + 1),
        corr_id=corr_id(run.run_id, task_id, attempt, step),
        model_id=model,
        params=params,
        attempt=attempt,
    )
    return LlmRequested(task_id, attempt, step, request, now_ms + params.timeout_ms + LLM_TIMEOUT_GRACE_MS)


def node_id(run: Run, task_id: str, call: int) -> str:
    """The token under which the answer and the tokens of a task's n-th call stand: the task's own id for the first."""
    if call == 1:
        return task_id
    name = f"{task_id}-s{call}"
    if len(name) <= ID_CHARS_MAX and name not in run.tasks:
        return name
    mark = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{task_id[: ID_CHARS_MAX - 17]}-{mark}"


def corr_id(run_id: str, task_id: str, attempt: int, step: str) -> str:
    """The id of one paid call, the same after every crash; hashed where it would be long."""
    name = f"{run_id}.{task_id}.{attempt}.{step}"
    if len(name) <= CORR_ID_CHARS_MAX:
        return name
    return f"{run_id}.{hashlib.sha256(name.encode()).hexdigest()[:40]}"
