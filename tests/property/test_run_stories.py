"""Any graph, any order of messages, doubles, failures, crashes: the laws of a run hold in every story."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.run import (
    AddTasks,
    CancelRun,
    LlmSettled,
    ResumeRun,
    RunCommand,
    RunEnded,
    RunOptions,
    StartRun,
    TakeTime,
    TaskStarted,
)
from contracts.run_tools import ToolRequested
from contracts.task import (
    AgentNode,
    ApprovalNode,
    GroupNode,
    LlmNode,
    LuaNode,
    NatsNode,
    Node,
    NoopNode,
    TaskSpec,
    ToolNode,
)
from services.executor.graph import order
from services.executor.replay import Replay
from services.executor.run.decider import RUN
from services.executor.run.effects import WithdrawApproval
from services.executor.run.state import digest
from services.runtime.decider import fold
from tests.property.run_world import CODEC, World, check_history, same

NODES: list[Node] = [
    NoopNode(result={"n": 1}),
    LuaNode(src="return 1"),
    NatsNode(subject="work.do"),
    LlmNode(model="mock", prompt="say"),
    AgentNode(),
    AgentNode(tools=[]),
    ToolNode("shell", {"cmd": ["mix", "test"]}),
    ApprovalNode(title="really?", action={"n": 1}),
]


@st.composite
def plans(draw: st.DrawFn) -> list[TaskSpec]:
    """A graph without cycles, with groups, in any order of arrival."""
    size = draw(st.integers(1, 12))
    tasks: list[TaskSpec] = []
    parent_of: dict[str, str | None] = {}
    for number in range(size):
        groups = [task.id for task in tasks if isinstance(task.node, GroupNode) and task.depth < 3]
        parent = draw(st.sampled_from([None, *groups]))
        # Siblings only: what crosses the border of a group can wait for itself, which the graph check refuses.
        siblings = [task.id for task in tasks if parent_of[task.id] == parent]
        needs = draw(st.lists(st.sampled_from(siblings), unique=True, max_size=4)) if siblings else []
        is_group = draw(st.integers(0, 5)) == 0
        node: Node = GroupNode() if is_group else draw(st.sampled_from(NODES))
        depth = next((task.depth + 1 for task in tasks if task.id == parent), 0)
        task = TaskSpec(
            id=f"t{number}",
            depends_on=needs,
            parent=parent,
            depth=depth,
            node=node,
            role="coder" if is_group else draw(st.sampled_from(["coder", "coder", "admin"])),
            priority=draw(st.integers(1, 3)),
            max_attempts=draw(st.integers(1, 3)),
            timeout_ms=draw(st.sampled_from([None, None, 40_000])),
        )
        tasks.append(task)
        parent_of[task.id] = parent
    return draw(st.permutations(tasks))


@st.composite
def starts(draw: st.DrawFn) -> StartRun:
    """A wish to begin a run."""
    workspace = draw(st.sampled_from([None, "shop"]))
    options = RunOptions(parallel=draw(st.integers(1, 5)), fail_fast=draw(st.booleans()), workspace=workspace)
    return StartRun("r1", tasks=draw(plans()), options=options, strategy=draw(st.sampled_from([None, "standard@1"])))


STORY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.law("I1")
@pytest.mark.law("I2")
@pytest.mark.law("I3")
@pytest.mark.law("I6")
@pytest.mark.law("I8")
@pytest.mark.law("I12")
@STORY
@given(starts(), st.integers(0, 2**32))
def test_every_story_ends_and_its_log_says_what_happened(start: StartRun, seed: int):
    world = World(random.Random(seed).randrange)
    world.live(start)
    events = world.events()
    check_history(events)
    committed = {(event.task_id, event.attempt, event.call) for event in events if isinstance(event, ToolRequested)}
    assert set(world.tools_asked) <= committed, "a tool was asked before its request was stored"
    assert same(world.folded(), world.run)
    while isinstance(events[-1], LlmSettled):  # a call that nobody waited for
        events.pop()
    ended = events[-1]
    assert isinstance(ended, RunEnded)
    assert ended.digest == digest(fold(RUN, RUN.initial("r1"), events))
    assert sum(ended.counts.values()) == 2 * len(start.tasks)
    # Only that nobody waits for a gate any more is said again.
    assert all(isinstance(effect, WithdrawApproval) for effect in RUN.recover(world.run))
    assert RUN.deadline_at_ms(world.run) is None


@STORY
@given(starts(), st.integers(0, 2**32))
def test_without_trouble_everything_completes(start: StartRun, seed: int):
    world = World(random.Random(seed).randrange, trouble=False)
    world.live(start)
    assert world.run.status == "completed"
    assert {task.status for task in world.run.tasks.values()} == {"completed"}


@pytest.mark.law("I1")
@STORY
@given(starts(), st.integers(0, 2**32))
def test_after_the_end_nothing_happens_any_more(start: StartRun, seed: int):
    world = World(random.Random(seed).randrange)
    world.live(start)
    before = digest(world.run)
    unpaid = set(world.run.let_go)
    late: list[RunCommand] = [start, TakeTime(), *world.journal.values(), *world.gateway.values()]
    for command in late:
        events = RUN.decide(command, world.run, world.now_ms + 10**9)
        assert all(isinstance(event, LlmSettled) and event.corr_id in unpaid for event in events), "but what it cost"
    assert not RUN.advance(world.run, world.now_ms + 10**9)
    assert digest(world.run) == before


@pytest.mark.law("I10")
@STORY
@given(starts(), st.integers(0, 2**32))
def test_a_replay_reaches_the_recorded_digest(start: StartRun, seed: int):
    world = World(random.Random(seed).randrange)
    world.live(start)
    replay = Replay("r1")
    for data in world.log:
        replay.take(CODEC.decode(data).events)
    report = replay.report(None, 1.0)
    assert (report.equal, report.order_ok, report.llm_calls) == (True, True, 0)
    audit = replay.audit()
    assert (audit.duplicates, audit.tasks_completed_twice, audit.tools_run_twice, audit.open_waits) == (0, 0, 0, 0)


@STORY
@given(starts(), st.integers(0, 2**32), st.integers(1, 30), st.booleans())
def test_cancel_and_resume_in_the_middle_of_anything(start: StartRun, seed: int, steps: int, resumes: bool):
    world = World(random.Random(seed).randrange)
    world.turn([start])
    for _ in range(steps):
        if not RUN.is_terminal(world.run):
            world.step(start)
    world.trouble = False
    if world.run.status is None:
        world.turn([start])
    if not RUN.is_terminal(world.run):
        world.turn([CancelRun("enough")])
        assert RUN.is_terminal(world.run)
    badly = [task for task in world.run.tasks.values() if task.status != "completed"]
    if resumes and badly:
        world.turn([ResumeRun()])
        world.live(start)
        assert world.run.status == "completed"
    check_history(world.events())
    assert same(world.folded(), world.run)


@STORY
@given(plans(), st.integers(0, 2**32), st.integers(1, 4))
def test_tasks_that_are_added_bit_by_bit_end_like_those_that_came_together(plan: list[TaskSpec], seed: int, part: int):
    by_id = {task.id: task for task in plan}

    def family(task: TaskSpec) -> str:
        while task.parent is not None:
            task = by_id[task.parent]
        return task.id

    # A group comes with all that is in it: an empty one would be over before its children are there.
    heads = [task_id for task_id in order(plan) if by_id[task_id].parent is None]
    world = World(random.Random(seed).randrange, trouble=False)
    for number in range(0, len(heads), part):
        here = heads[number : number + part]
        world.turn([AddTasks("r1", [task for task in plan if family(task) in here])])
        world.turn([AddTasks("r1", [task for task in plan if family(task) in here])])
        if number % 2:
            world.turn(world.mailbox[:1])
            del world.mailbox[:1]
    world.live(TakeTime())
    assert world.run.status == "completed"
    check_history(world.events())
    began = [event.task_id for event in world.events() if isinstance(event, TaskStarted)]
    assert sorted(began) == sorted(by_id)
