"""What the Lua stages say, understood and checked; and what is done when no strategy says anything. Pure.

Lua has one kind of table, so an empty list may come as an empty object; its indexes count from 1, ours from 0.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from contracts.errors import Rejected
from contracts.limits import LLM_OUTPUT_TOKENS_DEFAULT, LLM_TEMPERATURE_DEFAULT
from contracts.subjects import check_model_id
from contracts.task import ROLE_ALIASES, ROLES, TaskSpec

AGENTS_PER_TASK_MAX: Final = 16
AGENTS_BYTES_MAX: Final = 128 << 10
STEPS_PER_TASK_MAX: Final = 32
FIXES_MAX: Final = 50
TEXT_CHARS_MAX: Final = 20_000
ROLE_CHARS_MAX: Final = 64

Agents = list[dict[str, Any]]
Steps = list[dict[str, Any]]


class Spawned(NamedTuple):
    """Who works on a task, and how they relate: solo, leader_follower, parallel, sequential."""

    agents: Agents
    pattern: str


class Verdict(NamedTuple):
    """What the completion gate said."""

    status: str
    confidence: float
    reasoning: str
    fixes: list[str]


def fallback_model(complexity: float) -> str:
    """The seed's choice of a model by complexity alone."""
    if complexity >= 8.0:
        return "claude-sonnet-4.5"
    return "gemini-2.5-pro" if complexity >= 5.0 else "gemini-1.5-flash"


def fallback_agents(spec: TaskSpec) -> Spawned:
    """One agent of the task's own role, with the seed's model and parameters."""
    agent = {
        "role": spec.role,
        "model": fallback_model(spec.estimated_complexity),
        "temperature": LLM_TEMPERATURE_DEFAULT,
        "max_tokens": LLM_OUTPUT_TOKENS_DEFAULT,
    }
    return Spawned([agent], "solo")


def spawned(value: Any) -> Spawned:
    """Read the result of the agent_spawning stage; raises no_agents, unknown_role, lua_bad_result."""
    table = _table(value, "agent_spawning")
    agents = [_agent(entry) for entry in _list(table.get("agents"), "agents")]
    if not agents:
        raise Rejected("no_agents")
    if len(agents) > AGENTS_PER_TASK_MAX:
        raise Rejected("lua_bad_result", "too many agents", max=AGENTS_PER_TASK_MAX, requested=len(agents))
    if len(msgspec.json.encode(agents)) > AGENTS_BYTES_MAX:
        raise Rejected("lua_bad_result", "the agents say too much", field="agents", max=AGENTS_BYTES_MAX)
    orchestration = table.get("orchestration")
    pattern = orchestration.get("pattern") if isinstance(orchestration, Mapping) else table.get("pattern")
    if not isinstance(pattern, str) or not pattern:
        pattern = "solo" if len(agents) == 1 else "leader_follower"
    return Spawned(agents, pattern[:ROLE_CHARS_MAX])


def _agent(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        raise Rejected("lua_bad_result", "an agent is a table with role and model", field="agents")
    agent = dict(entry)
    role = agent.get("role")
    if not isinstance(role, str) or (role not in ROLES and role not in ROLE_ALIASES):
        raise Rejected("unknown_role", f"no such role: {str(role)[:ROLE_CHARS_MAX]}", role=str(role)[:ROLE_CHARS_MAX])
    model = agent.get("model")
    if model is not None:
        try:
            check_model_id(model)
        except Rejected as error:
            raise Rejected("lua_bad_result", "an agent's model is malformed", field="agents.model") from error
    for field in ("temperature", "max_tokens", "timeout_ms"):
        number = agent.get(field)
        if number is not None and (isinstance(number, bool) or not isinstance(number, int | float) or number < 0):
            raise Rejected("lua_bad_result", f"an agent's {field} is not a number", field=f"agents.{field}")
    return agent


def orchestrated(value: Any, agents: Agents, pattern: str) -> Steps:
    """Read the result of the orchestration stage: its `steps`, or the order that its pattern means.

    A step may start when those in `after` have answered. Raises lua_bad_result.
    """
    table = _table(value, "orchestration")
    if isinstance(table.get("pattern"), str):
        pattern = table["pattern"]
    listed = _list(table.get("steps"), "steps")
    if not listed:
        return steps_of_pattern(pattern, len(agents))
    if len(listed) > STEPS_PER_TASK_MAX:
        raise Rejected("lua_bad_result", "too many steps", max=STEPS_PER_TASK_MAX, requested=len(listed))
    steps = [_step(entry, index, agents) for index, entry in enumerate(listed)]
    done: set[int] = set()
    while len(done) < len(steps):
        ready = {i for i, step in enumerate(steps) if i not in done and done.issuperset(step["after"])}
        if not ready:
            raise Rejected("lua_bad_result", "the steps wait for each other", field="steps")
        done |= ready
    return steps


def _step(entry: Any, index: int, agents: Agents) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        raise Rejected("lua_bad_result", "a step is a table with agent and after", field="steps")
    named = entry.get("agent", index + 1)
    if isinstance(named, str):
        found = [i for i, agent in enumerate(agents) if agent["role"] == named]
        agent_index = found[0] if found else -1
    else:
        agent_index = _index(named)
    if not 0 <= agent_index < len(agents):
        raise Rejected("lua_bad_result", "a step names no agent", field="steps.agent", step=index + 1)
    step: dict[str, Any] = {
        "agent": agent_index,
        "after": sorted({_index(number) for number in _list(entry.get("after"), "steps.after")}),
    }
    instruction = entry.get("instruction")
    if isinstance(instruction, str) and instruction:
        step["instruction"] = instruction[:TEXT_CHARS_MAX]
    return step


def _index(number: Any) -> int:
    """A Lua index as ours; what is no whole number becomes one that fits nothing."""
    if isinstance(number, bool) or not isinstance(number, int | float) or number != int(number):
        return -1
    return int(number) - 1


def steps_of_pattern(pattern: str, agents: int) -> Steps:
    """The order of `agents` agents that a pattern means; unknown patterns mean leader_follower."""
    if pattern == "parallel":
        return [{"agent": index, "after": []} for index in range(agents)]
    if pattern in {"sequential", "pipeline"}:
        return [{"agent": index, "after": [index - 1] if index else []} for index in range(agents)]
    return [{"agent": index, "after": [0] if index else []} for index in range(agents)]


def judged(value: Any) -> Verdict:
    """Read the result of the completion stage; raises lua_bad_result."""
    table = _table(value, "completion")
    status = table.get("status")
    if status not in {"completed", "needs_rework", "in_progress"}:
        raise Rejected("lua_bad_result", "status is completed, needs_rework or in_progress", field="status")
    confidence = table.get("confidence", 0.0)
    if isinstance(confidence, bool) or not isinstance(confidence, int | float):
        raise Rejected("lua_bad_result", "confidence is a number", field="confidence")
    fixes = [str(fix)[:TEXT_CHARS_MAX] for fix in _list(table.get("required_fixes"), "required_fixes")[:FIXES_MAX]]
    reasoning = table.get("reasoning")
    text = reasoning[:TEXT_CHARS_MAX] if isinstance(reasoning, str) else ""
    return Verdict(str(status), float(confidence), text, fixes)


def _table(value: Any, stage: str) -> Mapping[str, Any]:
    if value == []:
        return {}
    if not isinstance(value, Mapping):
        raise Rejected("lua_bad_result", f"the {stage} script returns a table with names", stage=stage)
    return value


def _list(value: Any, field: str) -> list[Any]:
    if value is None or value == {}:
        return []
    if not isinstance(value, list | tuple):
        raise Rejected("lua_bad_result", f"{field} is a list", field=field)
    return list(value)


def fallback_stage(stage: str, context: Mapping[str, Any]) -> dict[str, Any]:
    """What a stage says when its strategy has no script for it, in the shape that Lua returns."""
    if stage == "agent_spawning":
        task = context["task"]
        spec = TaskSpec(id=task["id"], role=task["role"], estimated_complexity=task["estimated_complexity"])
        agents, pattern = fallback_agents(spec)
        return {"agents": agents, "orchestration": {"pattern": pattern}}
    if stage == "orchestration":
        return {"pattern": context.get("pattern", "solo")}
    incomplete = [result["id"] for result in context.get("execution_results", ()) if result["status"] != "completed"]
    fixes = [f"{len(incomplete)} subtasks incomplete"] if incomplete else []
    failures = _test_failures(context.get("tests"))
    fixes += [f"{failures} test failures"] if failures else []
    if fixes:
        return {"status": "needs_rework", "required_fixes": fixes}
    return {"status": "completed", "confidence": 0.5, "reasoning": "every agent answered"}


def _test_failures(tests: Any) -> int:
    unit = tests.get("unit_tests") if isinstance(tests, Mapping) else None
    failed = unit.get("failed") if isinstance(unit, Mapping) else None
    return failed if type(failed) is int else 0
