"""What a run is right now: the fold of its events.

Both classes are changed in place by `evolve` only, because a run may hold 50,000 tasks. The heaps are indexes over the
tasks: entries that no longer hold are dropped when they come up, which nobody can see from outside.
"""

import hashlib
from heapq import heappop, heappush
from typing import Any, Final

import msgspec

from contracts.limits import LLM_QUEUE_ALLOWANCE_MS
from contracts.llm import LlmRequest
from contracts.release import is_gated
from contracts.run import LlmAnswered, RunOptions
from contracts.run_tools import ToolAnswered, ToolRequested
from contracts.task import GroupNode, RunState, TaskSpec, TaskState

Rank = tuple[int, int, float, int, "TaskRecord"]
"""Order of choice among ready tasks: priority, depth, complexity, arrival (unique: records are never compared)."""

TOOL_BODY: Final = "body"
"""The step of the one call of a tool node."""
_ENCODE = msgspec.json.Encoder().encode


class Call(msgspec.Struct, eq=False):
    """An LLM call that is not answered yet."""

    task: "TaskRecord"
    step: str
    index: int
    request: LlmRequest
    deadline_at_ms: int
    extended: bool = False

    @property
    def last_deadline_at_ms(self) -> int:
        """The latest moment at which an answer is still wanted: a call may wait for a slot, within its task's time."""
        if self.extended:
            return self.deadline_at_ms
        return max(self.deadline_at_ms, min(self.deadline_at_ms + LLM_QUEUE_ALLOWANCE_MS, self.task.deadline_at_ms))


class Talk(msgspec.Struct, eq=False):
    """A model's answer that wants tools: what it was asked, what it said, the calls it wants, what they gave so far."""

    request: LlmRequest
    said: LlmAnswered
    asked: list[ToolRequested] = []
    results: dict[int, ToolAnswered] = {}


class Gate(msgspec.Struct, eq=False, array_like=True):
    """What stands before the attempt that comes next. `user` is the human who released it, "" while it is waited for.

    It is gone once the attempt begins: one release, one attempt.
    """

    gate_id: str
    digest: str
    expires_at_ms: int
    user: str = ""
    step: int = 0
    at_ms: int = 0


class Taint(msgspec.Struct, frozen=True, array_like=True):
    """Text from outside that a task holds: what it `read` itself (tool, and what), and `readers`, tasks before it.

    Both are the first few; `read_more` counts the others, `readers_more` says how many more there are at least.
    """

    read: tuple[tuple[str, str], ...] = ()
    read_more: int = 0
    readers: tuple[str, ...] = ()
    readers_more: int = 0


UNTAINTED: Final = Taint()


class Work(msgspec.Struct, eq=False):
    """What the agents of one attempt have been asked and have said. `steps` is None until they are orchestrated.

    A step whose model waits for tools stands in `talks` and has no answer yet; `tools` are tool calls without a result.
    `programs` says of each step which answer of its model ran programs last, and how many of those ended badly.
    """

    agents: list[dict[str, Any]]
    pattern: str
    strategy: str | None
    steps: list[dict[str, Any]] | None = None
    answers: list[LlmAnswered | None] = []
    calls: dict[int, Call] = {}
    rework: int = 0
    fixes: list[str] = []
    last_step: str = ""
    talks: dict[int, Talk] = {}
    tools: dict[int, ToolRequested] = {}
    tool_calls: int = 0
    tool_rounds: int = 0
    programs: dict[int, tuple[str, int]] = {}

    @property
    def all_answered(self) -> bool:
        """Whether every step of this round has its answer."""
        return self.steps is not None and None not in self.answers and len(self.answers) == len(self.steps)


class TaskRecord(msgspec.Struct, eq=False):
    """One task. `waiting_on` counts dependencies that are not completed; `attempts_base` attempts that do not count.

    `human` says that a human has released it once, or that the policy wants one: each further attempt waits for a gate.
    """

    spec: TaskSpec
    order: int
    is_group: bool
    status: TaskState = "pending"
    attempt: int = 0
    attempts_base: int = 0
    waiting_on: int = 0
    dependents: "list[TaskRecord] | tuple[()]" = ()
    parent: "TaskRecord | None" = None
    children: "list[TaskRecord] | tuple[()]" = ()
    children_open: int = 0
    children_bad: int = 0
    deadline_at_ms: int = 0
    due_at_ms: int = 0
    result: Any = None
    error: dict[str, Any] | None = None
    blocked_by: str | None = None
    work: Work | None = None
    reworks: int = 0
    calls_made: int = 0
    abandoned: list[LlmRequest] | tuple[()] = ()
    tokens: int = 0
    cost_usd_micros: int = 0
    cost_unknown: bool = False
    models: list[str] | tuple[()] = ()
    tool_calls: int = 0
    rank: Rank | None = None
    gate: Gate | None = None
    human: bool = False
    taint: Taint | None = None

    def __repr__(self) -> str:
        return f"<task {self.spec.id} {self.status} attempt {self.attempt}>"


class Run:
    """One run. `open_count` counts tasks that are not final; `running` those in progress that are no groups.

    `let_go` are calls, by `corr_id`, that nobody waits for any more and that are not over: what they cost will count.
    """

    __slots__ = (
        "answered_count",
        "calls",
        "cancel_reason",
        "cancelled_count",
        "chosen",
        "closing",
        "completed_count",
        "cost_unknown",
        "cost_usd_micros",
        "deadline_at_ms",
        "deadlines",
        "ended",
        "epic_id",
        "error",
        "failed_count",
        "fallen",
        "goal",
        "let_go",
        "open",
        "open_count",
        "options",
        "plan_digest",
        "ready",
        "ready_gates",
        "ready_groups",
        "recorded_digest",
        "retries",
        "run_id",
        "running",
        "status",
        "strategy",
        "tasks",
        "ticket",
        "tokens",
        "unresolved",
    )

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.status: RunState | None = None
        self.goal = ""
        self.epic_id: str | None = None
        self.options = RunOptions()
        self.strategy: str | None = None
        self.open = False
        self.plan_digest = ""
        self.deadline_at_ms = 0
        self.cancel_reason: str | None = None
        self.ended = 0
        self.recorded_digest: str | None = None
        self.error: dict[str, Any] | None = None
        self.tasks: dict[str, TaskRecord] = {}
        self.calls: dict[str, Call] = {}
        self.let_go: dict[str, TaskRecord] = {}
        self.open_count = self.running = self.completed_count = self.failed_count = self.cancelled_count = 0
        self.answered_count = self.tokens = self.cost_usd_micros = 0
        self.cost_unknown = False
        self.ready: list[Rank] = []
        self.chosen: list[Rank] = []
        self.ready_gates: list[tuple[int, int, TaskRecord]] = []
        self.ready_groups: list[TaskRecord] = []
        self.closing: list[TaskRecord] = []
        self.fallen: list[TaskRecord] = []
        self.retries: list[tuple[int, int, TaskRecord]] = []
        self.deadlines: list[tuple[int, int, TaskRecord, int, str | None]] = []
        self.unresolved: dict[str, list[TaskRecord]] = {}
        self.ticket = 0

    def __repr__(self) -> str:
        return f"<run {self.run_id} {self.status} {self.completed_count}/{len(self.tasks)}>"


def initial(run_id: str) -> Run:
    """The run before its first event."""
    return Run(run_id)


def is_terminal(run: Run) -> bool:
    """Whether the run is over. Only resume, and adding tasks to an open run, begin it again."""
    return run.status is not None and run.status != "running"


def step_index(step: str, work: Work) -> int:
    """Which step of the plan `llm-<n>` or `llm-<n>.<round>` is; n goes on counting over reworks."""
    return (int(step[4:].partition(".")[0]) - 1) % max(1, len(work.steps or ()))


def make_ready(run: Run, task: TaskRecord) -> None:
    """Put a pending task whose dependencies are completed where `advance` chooses from."""
    if task.is_group:
        run.ready_groups.append(task)
        return
    if task.gate is None and needs_gate(task):
        run.ready_gates.append((task.order, task.attempt, task))
        return
    choose_from(run, task)


def choose_from(run: Run, task: TaskRecord) -> None:
    """Put a task in line for room."""
    spec = task.spec
    task.rank = rank = (spec.priority, spec.depth, spec.estimated_complexity, task.order, task)
    heappush(run.ready, rank)


def may_start(task: TaskRecord) -> bool:
    """Whether nothing but room is missing: pending, dependencies completed, parent begun."""
    if task.status != "pending" or task.waiting_on:
        return False
    return task.parent is None or task.parent.status == "in_progress"


def deadline_holds(run: Run, entry: tuple[int, int, TaskRecord, int, str | None]) -> bool:
    """Whether an entry of `run.deadlines` still means something: its attempt, or its LLM call, is open."""
    at_ms, _, task, attempt, corr_id = entry
    if corr_id is not None:
        call = run.calls.get(corr_id)
        return call is not None and call.deadline_at_ms == at_ms
    if task.attempt != attempt or task.deadline_at_ms != at_ms:
        return False
    return task.status == "in_progress" or task.gate is not None


def deadline_at_ms(run: Run) -> int | None:
    """When time must be judged next: the run's own deadline, that of an attempt or call, or a retry."""
    if run.status != "running":
        return None
    earliest = run.deadline_at_ms
    deadlines = run.deadlines
    while deadlines and not deadline_holds(run, deadlines[0]):
        heappop(deadlines)
    if deadlines and deadlines[0][0] < earliest:
        earliest = deadlines[0][0]
    retries = run.retries
    while retries and (retries[0][2].status != "pending" or retries[0][2].due_at_ms != retries[0][0]):
        heappop(retries)
    if retries and retries[0][0] < earliest:
        earliest = retries[0][0]
    return earliest


def counts(run: Run) -> dict[str, int]:
    """How many tasks are in each state, and in total; states without a task are left out."""
    found: dict[str, int] = {"total": len(run.tasks)}
    for task in run.tasks.values():
        found[task.status] = found.get(task.status, 0) + 1
    return found


def digest(run: Run) -> str:
    """Identifies everything a run has reached: the end of each task, and what it cost. Equal logs, equal digests."""
    facts = [
        (
            task.spec.id,
            task.status,
            task.attempt,
            task.result,
            task.error,
            task.blocked_by,
            task.reworks,
            task.tokens,
            task.cost_usd_micros,
            task.cost_unknown,
            task.models,
        )
        for task in run.tasks.values()
    ]
    return hashlib.sha256(_ENCODE((run.run_id, run.plan_digest, facts))).hexdigest()


def is_group(spec: TaskSpec) -> bool:
    """Whether a task stands for its children."""
    return type(spec.node) is GroupNode


def needs_gate(task: TaskRecord) -> bool:
    """Whether the next attempt of a task may need a human."""
    return task.human or is_gated(task.spec)
