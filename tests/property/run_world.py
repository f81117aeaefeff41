"""A small world around one run: it drives the run aggregate as the actor host does, but with a mind for trouble.

Messages come in any order, some twice; the process dies at any moment and the state is folded from the stored bytes;
bodies fail, models are overloaded or silent, tools are denied. Everything is decided by `choose`, so a story can be
told again.
"""

from collections.abc import Callable
from typing import Any

from contracts.approval import Outcome, TakeApproval, action_digest
from contracts.codec import CommitCodec
from contracts.commit import Commit
from contracts.llm import Usage
from contracts.release import is_gated
from contracts.run import (
    LlmAnswered,
    RunCommand,
    RunEvent,
    TakeAnswer,
    TakeResult,
    TakeTime,
    TaskCompleted,
    TaskStarted,
)
from contracts.run import TasksAdded as Added
from contracts.run_gates import TaskApproved
from contracts.run_tools import TakeToolResult, ToolAnswered, ToolRequested
from services.executor.run.decider import RUN
from services.executor.run.effects import (
    AskApproval,
    CallNats,
    CallTool,
    CancelLlm,
    RunNoop,
    RunScript,
    RunStage,
    SendLlm,
    WithdrawApproval,
    WithdrawTools,
)
from services.executor.run.state import Run, digest
from services.runtime.decider import fold
from tests.support.spec import NOW_MS

STEPS_MAX = 5_000
CODEC: CommitCodec[RunEvent] = CommitCodec(RunEvent)
Choose = Callable[[int], int]
"""choose(n) gives a number from 0 to n-1."""


class World:
    """One run, its log, its mailbox, and everybody it talks to."""

    def __init__(self, choose: Choose, *, trouble: bool = True) -> None:
        self.choose, self.trouble = choose, trouble
        self.now_ms = NOW_MS
        self.run: Run = RUN.initial("r1")
        self.log: list[bytes] = []
        self.mailbox: list[RunCommand] = []
        self.under_way: set[Any] = set()
        self.journal: dict[str, TakeAnswer] = {}
        self.gateway: dict[tuple[str, int, int], TakeToolResult] = {}
        self.identity: dict[str, TakeApproval] = {}
        self.tools_asked: list[tuple[str, int, int]] = []
        self.crashes = 0

    # -- the host ----------------------------------------------------------------------------------------------------

    def turn(self, commands: list[RunCommand]) -> None:
        """One drained mailbox: judge, let follow, commit, then carry out."""
        events: list[RunEvent] = []
        for command in commands:
            for event in RUN.decide(command, self.run, self.now_ms):
                self.run = RUN.evolve(self.run, event)
                events.append(event)
        while follows := RUN.advance(self.run, self.now_ms):
            for event in follows:
                self.run = RUN.evolve(self.run, event)
            events.extend(follows)
        if not events:
            return
        if self.trouble and not self.choose(12):  # the process dies before the commit: nothing of this turn happened
            self.crash()
            self.mailbox.extend(commands)
            return
        self.log.append(CODEC.encode(Commit("2026-11-20T00:00:00Z", "executor", "c", "r", events)))
        if self.trouble and not self.choose(12):  # … or right after it: no effect was begun
            self.crash()
            return
        for effect in RUN.react(self.run, events):
            self.begin(effect)

    def crash(self) -> None:
        """Forget everything but the log, and what others keep: their journal, and durable messages."""
        self.crashes += 1
        lost = TakeResult | TakeToolResult | TakeTime
        self.mailbox = [command for command in self.mailbox if not isinstance(command, lost)]
        self.under_way.clear()
        self.run = self.folded()
        for effect in RUN.recover(self.run):
            self.begin(effect)

    def folded(self) -> Run:
        """The state that the stored bytes say."""
        return fold(RUN, RUN.initial("r1"), self.events())

    def events(self) -> list[RunEvent]:
        """Everything in the log."""
        return [event for data in self.log for event in CODEC.decode(data).events]

    # -- the others --------------------------------------------------------------------------------------------------

    def begin(self, effect: Any) -> None:
        """Somebody carries an effect out; its outcome comes to the mailbox."""
        key = getattr(effect, "key", None)
        if key is not None and key in self.under_way:
            return
        self.under_way.add(key)
        match effect:
            case RunNoop():
                self.mailbox.append(TakeResult(effect.task_id, effect.attempt, "body", effect.result))
            case RunScript() | CallNats():
                self.mailbox.append(self._body(effect.task_id, effect.attempt))
            case RunStage():
                self.mailbox.append(self._stage(effect))
            case SendLlm():
                self._llm(effect)
            case CallTool():
                self._tool(effect)
            case AskApproval():
                self._gate(effect)
            case WithdrawTools():
                over = self.run.tasks[effect.task_id]
                assert over.status != "in_progress" or over.attempt != effect.attempt, "it still waits for its tools"
            case CancelLlm() | WithdrawApproval():
                pass

    def _body(self, task_id: str, attempt: int) -> TakeResult:
        fate = self.choose(8) if self.trouble else 7
        if fate == 0:
            return TakeResult(task_id, attempt, "body", error={"class": "x", "code": "lua_error", "message": "m"})
        if fate in (1, 2):
            return TakeResult(task_id, attempt, "body", error={"class": "x", "code": "no_responders", "message": "m"})
        return TakeResult(task_id, attempt, "body", {"output": f"{task_id} is done", "n": [1, 2.5, None, {"ü": True}]})

    def _stage(self, effect: RunStage) -> TakeResult:
        value: Any
        if effect.stage == "agent_spawning":
            roles = ("coder", "tester", "critic")[: 1 + self.choose(3)]
            value = {"agents": [{"role": role, "model": "mock"} for role in roles]}
        elif effect.stage == "orchestration":
            value = {"pattern": ("solo", "parallel", "sequential")[self.choose(3)]}
        elif self.trouble and not self.choose(3):
            value = {"status": "needs_rework", "required_fixes": ["do better"]}
        else:
            value = {"status": "completed", "confidence": 0.9, "reasoning": "good"}
        if self.trouble and not self.choose(15):
            value = "nonsense"
        return TakeResult(effect.task_id, effect.attempt, effect.step, value, duration_ms=0.5)

    def _tool(self, effect: CallTool) -> None:
        """A tool runs once per name; asking again finds what is recorded."""
        name = (effect.task_id, effect.attempt, effect.call)
        self.tools_asked.append(name)
        if name not in self.gateway:
            fate = self.choose(8) if self.trouble else 7
            error: dict[str, Any] | None = None
            if fate == 0:
                error = {"class": "policy_violation", "code": "forbidden_command", "message": "m"}
            elif fate == 1:
                error = {"class": "unavailable", "code": "service_unavailable", "message": "m"}
            elif fate == 2:
                error = {"class": "policy_violation", "code": "approval_required", "message": "m"}
            elif fate == 3:
                error = {"class": "execution", "code": "call_interrupted", "message": "m"}
            self.gateway[name] = TakeToolResult(*name, None if error else {"exit": 0, "ü": [1, None]}, error)
        self.mailbox.append(self.gateway[name])

    def _wish(self) -> dict[str, Any]:
        """A tool call that a model thinks of: some only read, and some it does not even have."""
        wishes: tuple[dict[str, Any], ...] = (
            {"name": "fs", "arguments": {"read": "/code/a"}},
            {"name": "fs", "arguments": {"write": "/code/a", "content": "x"}},
            {"name": "git", "arguments": {"cmd": ["commit"]}},
            {"name": "teleport", "arguments": {}},
        )
        return wishes[self.choose(len(wishes))]

    def _gate(self, effect: AskApproval) -> None:
        """A gate is answered once, or never; asking again finds the answer. Agents and other actions are tried, too."""
        if effect.gate_id not in self.identity:
            fate = self.choose(8) if self.trouble else 7
            outcomes: dict[int, Outcome] = {1: "denied", 2: "stale", 3: "expired"}
            self.identity[effect.gate_id] = TakeApproval(
                effect.gate_id, "r1", effect.task_id, effect.attempt, outcomes.get(fate, "granted"),
                "another" if fate == 4 else action_digest(effect.action), self.now_ms,
                user="aka", kind="agent" if fate == 5 else "human", step=7,
            )  # fmt: skip
            if fate == 0:
                return  # it lies in the mailbox of nobody, until it is asked for again
        self.mailbox.append(self.identity[effect.gate_id])

    def _llm(self, effect: SendLlm) -> None:
        """A paid call happens once per id; asking again finds the journal."""
        corr_id = effect.request.corr_id
        if corr_id not in self.journal:
            fate = self.choose(10) if self.trouble else 9
            if fate == 0:
                return  # the model never answers
            if fate == 1:
                error = {"class": "llm", "code": "provider_overloaded", "message": "m"}
                self.journal[corr_id] = TakeAnswer(corr_id, error=error)
            else:
                tools = [self._wish() for _ in range(1 + self.choose(3))]
                has_tools, insists = effect.request.params.tools, self.trouble and not self.choose(8)
                wants = insists or (has_tools and self.choose(2))
                self.journal[corr_id] = TakeAnswer(
                    corr_id,
                    f"said {corr_id}",
                    tools if wants else [],
                    model_used="mock",
                    usage=Usage(1, 2, 3),
                    cost_usd_micros=5,
                )
        self.mailbox.append(self.journal[corr_id])

    # -- the story ---------------------------------------------------------------------------------------------------

    def live(self, first: RunCommand) -> None:
        """Tell the story to its end."""
        self.turn([first])
        for _ in range(STEPS_MAX):
            if RUN.is_terminal(self.run) and not self.mailbox:
                return
            self.step(first)
        raise AssertionError(f"the run does not end: {self.run} {self.run.tasks}")

    def step(self, first: RunCommand) -> None:
        """One thing happens."""
        if self.run.status is None:
            self.turn([first])
            return
        if self.trouble and not self.choose(20):
            self.crash()
        if not self.mailbox or (self.trouble and not self.choose(10)):
            deadline = RUN.deadline_at_ms(self.run)
            if deadline is not None and (not self.mailbox or self.choose(2)):
                self.now_ms = max(self.now_ms, deadline)
            self.turn([TakeTime(llm_alive=bool(self.choose(4)))])
            return
        taken: list[RunCommand] = []
        for _ in range(1 + self.choose(min(4, len(self.mailbox)))):
            if not self.mailbox:
                break
            command = self.mailbox.pop(self.choose(len(self.mailbox)))
            taken.append(command)
            if self.trouble and not self.choose(6):
                taken.append(command)
            if isinstance(command, TakeResult):
                self.under_way.discard((command.task_id, command.attempt, command.step))
            elif isinstance(command, TakeToolResult):
                self.under_way.discard((command.task_id, command.attempt, f"tool-{command.call}"))
        self.turn(taken)


def check_history(events: list[RunEvent]) -> None:
    """What holds in every history: nothing starts before what it needs completed, and nothing completes twice."""
    needs: dict[str, list[str]] = {}
    parents: dict[str, str | None] = {}
    completed: list[str] = []
    began: set[str] = set()
    open_tasks: set[str] = set()
    gated: set[str] = set()
    released: set[tuple[str, int]] = set()
    for event in events:
        match event:
            case Added():
                needs.update((spec.id, spec.depends_on) for spec in event.tasks)
                gated.update(spec.id for spec in event.tasks if is_gated(spec))
                parents.update((spec.id, spec.parent) for spec in event.tasks)
            case TaskApproved():
                assert (event.user, len(event.digest)) == ("aka", 64)
                released.add((event.task_id, event.attempt))
            case TaskStarted():
                if event.task_id in gated:  # and each release begins one attempt
                    assert (event.task_id, event.attempt) in released, f"{event.task_id} began without a human"
                    released.remove((event.task_id, event.attempt))
                assert set(needs[event.task_id]) <= set(completed), f"{event.task_id} began too early"
                parent = parents[event.task_id]
                assert parent is None or parent in began, f"{event.task_id} began before {parent}"
                assert event.task_id not in completed
                began.add(event.task_id)
                open_tasks.add(event.task_id)
            case TaskCompleted():
                assert event.task_id not in completed, f"{event.task_id} completed twice"
                assert event.task_id in open_tasks
                completed.append(event.task_id)
    paid = [event.corr_id for event in events if isinstance(event, LlmAnswered)]
    assert len(paid) == len(set(paid)), "an answer was counted twice"
    asked = [(event.task_id, event.attempt, event.call) for event in events if isinstance(event, ToolRequested)]
    given = [(event.task_id, event.attempt, event.call) for event in events if isinstance(event, ToolAnswered)]
    assert len(asked) == len(set(asked)), "a tool call was asked for twice"
    assert len(given) == len(set(given)), "a tool call was answered twice"
    assert set(given) <= set(asked)


def same(one: Run, other: Run) -> bool:
    """Whether two states are the same as far as anybody can see."""
    return (digest(one), one.status, one.recorded_digest, one.running, one.open_count) == (
        digest(other), other.status, other.recorded_digest, other.running, other.open_count,
    )  # fmt: skip
