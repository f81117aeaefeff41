"""Graph rules, pure and iterative: what may join a run, and in which order it can be carried out at all.

A batch is accepted whole or refused whole. Codes: bad_id, duplicate_id, unknown_role, unknown_dependency, cycle,
too_large, bad_request, forbidden_subject.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from contracts.ledger import BUDGET_MAX
from contracts.limits import (
    ATTEMPTS_PER_TASK_MAX,
    COMPLEXITY_MAX,
    DEPENDENCIES_PER_TASK_MAX,
    GOAL_CHARS_MAX,
    LLM_MESSAGES_MAX,
    LLM_OUTPUT_TOKENS_MAX,
    LLM_TIMEOUT_MAX_MS,
    LUA_SOURCE_MAX_BYTES,
    LUA_TIMEOUT_MAX_MS,
    PARALLEL_MAX,
    REWORKS_PER_TASK_MAX,
    RUN_TIMEOUT_MAX_MS,
    TASK_DEPTH_MAX,
    TASK_TIMEOUT_MAX_MS,
    TASKS_PER_RUN_MAX,
    TITLE_CHARS_MAX,
)
from contracts.llm import LlmParams
from contracts.release import check_release
from contracts.run import RunOptions
from contracts.subjects import ID, check_id, check_model_id, check_open
from contracts.task import (
    ROLE_ALIASES,
    ROLES,
    AgentNode,
    GroupNode,
    LlmNode,
    LuaNode,
    NatsNode,
    NoopNode,
    TaskSpec,
    ToolNode,
)
from contracts.tools import check_tool, check_tools

KNOWN_ROLES: Final = frozenset(ROLES) | frozenset(ROLE_ALIASES)
CYCLE_SHOWN_MAX: Final = 20
TEMPERATURE_MAX: Final = 2.0
PROMPTED: Final = frozenset({AgentNode, LlmNode})
PROMPTED_BYTES_MAX: Final = 512 << 10
"""A task whose text goes into a prompt: prompt and results of dependencies must fit into one event."""
_ENCODE: Final = msgspec.json.Encoder().encode


def check_tasks(tasks: Sequence[TaskSpec], known: Mapping[str, bool] | None = None) -> None:
    """Refuse a batch that may not join a run. `known` maps the ids that are there already to "is an open group"."""
    there = known or {}
    if len(tasks) + len(there) > TASKS_PER_RUN_MAX:
        raise Rejected("too_large", "too many tasks", max=TASKS_PER_RUN_MAX, requested=len(tasks) + len(there))
    ids: dict[str, TaskSpec] = {}
    in_order = True
    for spec in tasks:
        task_id = spec.id
        if not ID.match(task_id):
            check_id(task_id, "task id")
        if task_id in ids or task_id in there:
            raise Rejected("duplicate_id", f"two tasks are called {task_id}", id=task_id)
        for needed in spec.depends_on:
            if needed not in ids and needed not in there:
                in_order = False
                break
        ids[task_id] = spec
        check_task(spec)
        if spec.parent is not None:
            in_order = False
    if in_order:
        return  # everything names only what stands before it: nothing is unknown, and there can be no cycle
    _check_names(tasks, ids, there)
    order(tasks)


def _check_names(tasks: Sequence[TaskSpec], ids: Mapping[str, TaskSpec], there: Mapping[str, bool]) -> None:
    for spec in tasks:
        for needed in spec.depends_on:
            if needed not in ids and needed not in there:
                raise Rejected(
                    "unknown_dependency",
                    f"task {spec.id} depends on {needed[:64]}, which is no task of this graph",
                    task_id=spec.id,
                    dependency=needed[:64],
                )
        if spec.parent is not None:
            _check_parent(spec, ids, there)


def _check_parent(spec: TaskSpec, ids: Mapping[str, TaskSpec], there: Mapping[str, bool]) -> None:
    parent = spec.parent or ""
    if parent in ids:
        fits = type(ids[parent].node) is GroupNode
    elif parent in there:
        fits = there[parent]
    else:
        raise Rejected(
            "unknown_dependency",
            f"task {spec.id} is part of {parent[:64]}, which is no task of this graph",
            task_id=spec.id,
            dependency=parent[:64],
        )
    if not fits:
        raise Rejected("bad_request", f"{parent} takes no children", field="parent", task_id=spec.id)


def check_task(spec: TaskSpec) -> None:
    """Refuse a task that is wrong by itself."""
    if spec.role not in KNOWN_ROLES:
        raise Rejected("unknown_role", f"no such role: {spec.role[:64]}", task_id=spec.id, role=spec.role[:64])
    if len(spec.title) > TITLE_CHARS_MAX or len(spec.description) > GOAL_CHARS_MAX:
        raise Rejected("too_large", "title or description is too long", task_id=spec.id, max=GOAL_CHARS_MAX)
    if len(spec.depends_on) > DEPENDENCIES_PER_TASK_MAX:
        raise Rejected("too_large", "too many dependencies", task_id=spec.id, max=DEPENDENCIES_PER_TASK_MAX)
    if not 1 <= spec.max_attempts <= ATTEMPTS_PER_TASK_MAX:
        _out_of_bounds("max_attempts", spec.max_attempts, ATTEMPTS_PER_TASK_MAX, spec.id)
    if spec.timeout_ms is not None and not 1 <= spec.timeout_ms <= TASK_TIMEOUT_MAX_MS:
        _out_of_bounds("timeout_ms", spec.timeout_ms, TASK_TIMEOUT_MAX_MS, spec.id)
    if not 0 <= spec.estimated_complexity <= COMPLEXITY_MAX:
        _out_of_bounds("estimated_complexity", spec.estimated_complexity, COMPLEXITY_MAX, spec.id)
    if not 0 <= spec.depth <= TASK_DEPTH_MAX:
        _out_of_bounds("depth", spec.depth, TASK_DEPTH_MAX, spec.id)
    _check_budgets("", spec.budget_usd_micros, spec.budget_tokens, spec.id)
    node = spec.node
    check_release(spec)
    if type(node) is NoopNode:
        return
    check_node(spec.id, node)
    if type(node) in PROMPTED:
        size = len(_ENCODE(spec))
        if size > PROMPTED_BYTES_MAX:
            raise Rejected("too_large", "the task is too long for a prompt", task_id=spec.id, max=PROMPTED_BYTES_MAX)


def _check_budgets(prefix: str, usd_micros: int | None, tokens: int | None, task_id: str | None = None) -> None:
    for field, amount in (("budget_usd_micros", usd_micros), ("budget_tokens", tokens)):
        if amount is not None and not 0 <= amount <= BUDGET_MAX:
            _out_of_bounds(prefix + field, amount, BUDGET_MAX, task_id)


def _out_of_bounds(field: str, requested: float, most: float, task_id: str | None = None) -> None:
    where = {"task_id": task_id} if task_id is not None else {}
    raise Rejected("bad_request", f"{field} is out of bounds", field=field, max=most, requested=requested, **where)


def check_node(task_id: str, node: Any) -> None:
    """Refuse what a node of its type may not say."""
    match node:
        case AgentNode():
            if node.model is not None:
                check_model_id(node.model)
            llm_params(node.params)
            check_tools(node.tools, task_id)
        case ToolNode():
            check_tool(node.tool, task_id)
        case LlmNode():
            check_model_id(node.model)
            llm_params(node.params)
            if not node.messages and node.prompt is None:
                raise Rejected("bad_request", "an llm node needs prompt or messages", field="node", task_id=task_id)
            if node.messages and len(node.messages) > LLM_MESSAGES_MAX:
                _out_of_bounds("messages", len(node.messages), LLM_MESSAGES_MAX, task_id)
        case LuaNode():
            if len(node.src) > LUA_SOURCE_MAX_BYTES:
                raise Rejected("too_large", "the Lua source is too long", task_id=task_id, max=LUA_SOURCE_MAX_BYTES)
            if node.timeout_ms is not None and not 1 <= node.timeout_ms <= LUA_TIMEOUT_MAX_MS:
                _out_of_bounds("node.timeout_ms", node.timeout_ms, LUA_TIMEOUT_MAX_MS, task_id)
        case NatsNode():
            check_open(node.subject, task_id)
            if node.timeout_ms is not None and not 1 <= node.timeout_ms <= TASK_TIMEOUT_MAX_MS:
                _out_of_bounds("node.timeout_ms", node.timeout_ms, TASK_TIMEOUT_MAX_MS, task_id)


def llm_params(params: Mapping[str, Any]) -> LlmParams:
    """Parameters of a node as llm-worker will read them; raises bad_request naming what is wrong."""
    try:
        found = msgspec.convert(params, LlmParams)
    except msgspec.ValidationError as error:
        raise Rejected("bad_request", f"params: {error}", field="params") from error
    if not 1 <= found.timeout_ms <= LLM_TIMEOUT_MAX_MS:
        _out_of_bounds("params.timeout_ms", found.timeout_ms, LLM_TIMEOUT_MAX_MS)
    if not 1 <= found.max_tokens <= LLM_OUTPUT_TOKENS_MAX:
        _out_of_bounds("params.max_tokens", found.max_tokens, LLM_OUTPUT_TOKENS_MAX)
    if not 0 <= found.temperature <= TEMPERATURE_MAX:
        _out_of_bounds("params.temperature", found.temperature, TEMPERATURE_MAX)
    return found


def check_options(options: RunOptions) -> None:
    """Refuse options that are out of bounds."""
    bounds = (
        ("options.parallel", options.parallel, 1, PARALLEL_MAX),
        ("options.timeout_ms", options.timeout_ms, 1, RUN_TIMEOUT_MAX_MS),
        ("options.llm_timeout_ms", options.llm_timeout_ms, 1, LLM_TIMEOUT_MAX_MS),
        ("options.max_tokens", options.max_tokens, 1, LLM_OUTPUT_TOKENS_MAX),
        ("options.reworks_max", options.reworks_max, 0, REWORKS_PER_TASK_MAX),
        ("options.temperature", options.temperature, 0, TEMPERATURE_MAX),
    )
    for field, value, least, most in bounds:
        if value is not None and not least <= value <= most:
            _out_of_bounds(field, value, most)
    _check_budgets("options.", options.budget_usd_micros, options.budget_tokens)
    if options.model is not None:
        check_model_id(options.model)
    if options.workspace is not None:
        check_id(options.workspace, "options.workspace")


def order(tasks: Sequence[TaskSpec]) -> list[str]:
    """Ids in an order in which everything comes behind what it needs; raises cycle with one cycle shown.

    A group begins before its children and ends behind them, so it stands in the graph twice: `id` is its end,
    `>id` its beginning ('>' is in no id).
    """
    begins = {spec.id: ">" + spec.id for spec in tasks if type(spec.node) is GroupNode}
    present = {spec.id for spec in tasks}
    needs: dict[str, int] = {}
    leads_to: dict[str, list[str]] = {}

    def edge(before: str, after: str) -> None:
        if before not in leads_to:
            leads_to[before] = [after]
        else:
            leads_to[before].append(after)
        needs[after] = needs.get(after, 0) + 1

    for spec in tasks:
        begin = begins.get(spec.id, spec.id)
        if begin is not spec.id:
            edge(begin, spec.id)
        for needed in spec.depends_on:
            if needed in present:
                edge(needed, begin)
        if spec.parent in begins:
            edge(begins[spec.parent], begin)
            edge(spec.id, spec.parent)
    queue = [node for spec in tasks if not needs.get(node := begins.get(spec.id, spec.id))]
    for node in queue:
        for after in leads_to.get(node, ()):
            needs[after] -= 1
            if not needs[after]:
                queue.append(after)
    if len(queue) < len(tasks) + len(begins):
        cycle = _cycle_among(leads_to, {node for node, count in needs.items() if count})
        raise Rejected("cycle", "the dependencies form a cycle: " + " -> ".join(cycle), cycle=cycle)
    return [node for node in queue if not node.startswith(">")]


def _cycle_among(leads_to: Mapping[str, Iterable[str]], left: Collection[str]) -> list[str]:
    """One cycle among the nodes that an order could not take, as task ids, shortened for people."""
    back: dict[str, str] = {}
    for before, afters in leads_to.items():
        if before in left:
            back.update((after, before) for after in afters if after in left)
    seen: dict[str, int] = {}
    path: list[str] = []
    node = next(iter(sorted(left)))
    while node not in seen:  # every node that is left has one before it that is left: going back must close a circle
        seen[node] = len(path)
        path.append(node)
        node = back[node]
    names = [name.lstrip(">") for name in reversed(path[seen[node] :])]
    short = [name for index, name in enumerate(names) if not index or names[index - 1] != name]
    if len(short) > 1 and short[0] == short[-1]:
        short.pop()
    shown = short[:CYCLE_SHOWN_MAX]
    return [*shown, shown[0]]
