"""Short words for the executor's tests."""

from typing import Any

from contracts.approval import TakeApproval
from contracts.codec import CommitCodec
from contracts.llm import Usage
from contracts.run import LlmRequested, RunEvent, RunOptions, StartRun, TakeAnswer, TakeResult
from contracts.run_tools import TakeToolResult, ToolRequested
from contracts.task import AgentNode, GroupNode, LlmNode, NoopNode, TaskSpec, ToolNode
from services.executor.run.decider import RUN
from services.executor.run.state import digest
from tests.support.spec import Spec

CODEC: CommitCodec[RunEvent] = CommitCodec(RunEvent)
STRATEGY = "standard@1"


def run(run_id: str = "r1") -> Spec:
    """A run without a history."""
    return Spec(RUN, run_id, codec=CODEC, same=lambda state: (digest(state), state.status, state.deadline_at_ms))


def noop(task_id: str, *needs: str, **fields: Any) -> TaskSpec:
    """A task that does nothing."""
    return TaskSpec(id=task_id, depends_on=list(needs), node=NoopNode(result=f"did {task_id}"), **fields)


def group(task_id: str, *needs: str, **fields: Any) -> TaskSpec:
    """A task that stands for its children."""
    return TaskSpec(id=task_id, depends_on=list(needs), node=GroupNode(), **fields)


def agent(task_id: str, *needs: str, node: AgentNode | None = None, **fields: Any) -> TaskSpec:
    """A task for agents."""
    fields.setdefault("description", f"Do {task_id}")
    return TaskSpec(id=task_id, depends_on=list(needs), node=node or AgentNode(), **fields)


def llm(task_id: str, *needs: str, prompt: str = "Say it", **fields: Any) -> TaskSpec:
    """A task that is one LLM call."""
    return TaskSpec(id=task_id, depends_on=list(needs), node=LlmNode(model="mock", prompt=prompt), **fields)


def tool(task_id: str, *needs: str, name: str = "shell", **fields: Any) -> TaskSpec:
    """A task that is one tool call."""
    return TaskSpec(id=task_id, depends_on=list(needs), node=ToolNode(name, {"cmd": ["mix", "test"]}), **fields)


def start(*tasks: TaskSpec, strategy: str | None = None, run_id: str = "r1", **options: Any) -> StartRun:
    """Begin a run of these tasks."""
    return StartRun(run_id, goal="a goal", tasks=list(tasks), options=RunOptions(**options), strategy=strategy)


def done(task_id: str, attempt: int = 1, value: Any = "done", step: str = "body") -> TakeResult:
    """A body or stage that ended well."""
    return TakeResult(task_id, attempt, step, value)


def broke(task_id: str, code: str, attempt: int = 1, step: str = "body") -> TakeResult:
    """A body or stage that ended badly."""
    return TakeResult(task_id, attempt, step, error={"class": "x", "code": code, "message": "m"})


def answer(corr_id: str, output: str = "an answer", **fields: Any) -> TakeAnswer:
    """What a model said."""
    fields.setdefault("cost_usd_micros", 7)
    return TakeAnswer(corr_id, output, model_used="mock", usage=Usage(3, 4, 7), finish_reason="stop", **fields)


def no_answer(corr_id: str, code: str) -> TakeAnswer:
    """A call that failed."""
    return TakeAnswer(corr_id, error={"class": "llm", "code": code, "message": "m"})


def wants(corr_id: str, *calls: Any, output: str = "") -> TakeAnswer:
    """An answer that asks for tools: names, or whole calls."""
    asked = [
        {"id": f"c{place}", "name": call, "arguments": {"cmd": [f"do {place}"]}} if isinstance(call, str) else call
        for place, call in enumerate(calls, 1)
    ]
    return answer(corr_id, output, tool_calls=asked)


def gave(task_id: str, call: int, value: Any = "fine", attempt: int = 1) -> TakeToolResult:
    """What a tool gave."""
    return TakeToolResult(task_id, attempt, call, value, duration_ms=1.5)


def denied(task_id: str, call: int, code: str = "forbidden_command", attempt: int = 1) -> TakeToolResult:
    """A tool call that the policy refused."""
    return TakeToolResult(task_id, attempt, call, error={"class": "policy_violation", "code": code, "message": "no"})


def spawn(*roles: str, pattern: str | None = None) -> dict[str, Any]:
    """What the agent_spawning stage returns."""
    agents = [{"role": role, "model": f"mock-{role}"} for role in roles]
    return {
        "agents": agents,
        "orchestration": {"pattern": pattern or ("solo" if len(roles) == 1 else "leader_follower")},
    }


COMPLETE = {"status": "completed", "confidence": 0.95, "reasoning": "all is well"}
REWORK = {"status": "needs_rework", "confidence": 0.6, "reasoning": "bad", "required_fixes": ["Coverage below 80%"]}


WORKSPACE = "shop-1a2b3c4d"


def working(*tasks: Any, **options: Any) -> Spec:
    """A run with a workspace, begun."""
    return run().after(start(*(tasks or (agent("a"),)), workspace=WORKSPACE, **options))


def asked(spec: Spec) -> list[LlmRequested]:
    """What models were asked, in order."""
    return [event for event in spec.history if isinstance(event, LlmRequested)]


def called(spec: Spec) -> list[ToolRequested]:
    """Which tools were asked for, in order."""
    return [event for event in spec.history if isinstance(event, ToolRequested)]


def messages(spec: Spec) -> list[dict[str, Any]]:
    """The conversation that was sent last."""
    return asked(spec)[-1].request.input.messages


def unfenced(text: str) -> str:
    """What stands between the marks of a text that is data."""
    opened, _, rest = text.partition("\n")
    inner, _, closed = rest.rpartition("\n")
    assert (opened[:6], closed) == ("<data-", f"</{opened[1:]}")
    assert opened[1:-1] not in inner
    return inner


def released(spec: Spec, task_id: str) -> Spec:
    """The same, once a human has released a task that waits."""
    task = spec.state.tasks[task_id]
    gate = task.gate
    answer = TakeApproval(
        gate.gate_id, spec.state.run_id, task_id, task.attempt, "granted", gate.digest, 1, "aka", "human", 7
    )
    return spec.after(answer)
