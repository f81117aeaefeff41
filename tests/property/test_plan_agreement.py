"""What the planner accepts, the executor accepts: an accepted task is never refused where nobody hears it."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from contracts.approval import APPROVERS_MAX
from contracts.errors import Rejected
from contracts.limits import (
    ATTEMPTS_PER_TASK_MAX,
    GOAL_CHARS_MAX,
    LLM_MESSAGES_MAX,
    LLM_TIMEOUT_MAX_MS,
    LUA_TIMEOUT_MAX_MS,
    TASK_DEPTH_MAX,
    TASK_TIMEOUT_MAX_MS,
)
from contracts.release import SHOWN_BYTES_MAX
from contracts.run import RunOptions
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
from contracts.tools import TOOLS
from services.executor import graph as executor
from services.planner.graph import check_graph
from services.planner.intake import accept_tasks
from services.planner.options import accept_options

_IDS = st.sampled_from(["a", "b", "c", "d", "e_1", "F-2", "x" * 64, "x" * 65, "a.b", "", "é", "a\n"])
_NUMBERS = st.sampled_from([-1, 0, 1, 2])


def _around(bound: int) -> st.SearchStrategy[int | None]:
    return st.sampled_from([None, -1, 0, 1, bound - 1, bound, bound + 1])


_MODELS = st.sampled_from(["mock", "claude-sonnet-4.5", "a b", "", ".x", "mock:delay=2s", "x" * 201])
_PARAMS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "timeout_ms": st.sampled_from([0, 1, LLM_TIMEOUT_MAX_MS, LLM_TIMEOUT_MAX_MS + 1]),
        "max_tokens": st.sampled_from([0, 1, 200_000, 200_001]),
        "temperature": st.sampled_from([0.5, "hot", None]),
        "stream": st.sampled_from([True, 1]),
    },
)
_MESSAGES = st.sampled_from([None, [], [{"role": "user"}], [{}] * LLM_MESSAGES_MAX, [{}] * (LLM_MESSAGES_MAX + 1)])
_OPEN = ["shop.pay", "htdagx.y", "llms.x", "aim.x", "a*", "_x"]
_CLOSED = ["htdag.x", "htdag", "$JS.API", "$x", "_INBOX.a", "_INBOXES.a", "llm.req.x", "llm", "ai.x", "ai"]
_MALFORMED = ["a.*", "a.>", "a..b", ".", "*", ">", "", "a b", "a\t"]
_SUBJECTS = st.sampled_from(_OPEN) | st.sampled_from(_CLOSED) | st.sampled_from(_MALFORMED)
_NODES: st.SearchStrategy[Any] = st.one_of(
    st.builds(NoopNode),
    st.builds(GroupNode),
    st.builds(AgentNode, model=st.none() | _MODELS, params=_PARAMS),
    st.builds(AgentNode, tools=st.none() | st.lists(st.sampled_from([*TOOLS, "teleport", ""]), max_size=3)),
    st.builds(ToolNode, tool=st.sampled_from([*TOOLS, "own_tool", "a.b", "", ">"])),
    st.builds(LlmNode, model=_MODELS, prompt=st.none() | st.just("hi"), messages=_MESSAGES, params=_PARAMS),
    st.builds(LuaNode, src=st.just("return 1"), timeout_ms=_around(LUA_TIMEOUT_MAX_MS)),
    st.builds(NatsNode, subject=_SUBJECTS, timeout_ms=_around(TASK_TIMEOUT_MAX_MS)),
)
_TASKS = st.builds(
    TaskSpec,
    id=_IDS,
    title=st.sampled_from(["", "t", "t" * GOAL_CHARS_MAX, "t" * (GOAL_CHARS_MAX + 1)]),
    description=st.sampled_from(["", "d", "d" * GOAL_CHARS_MAX, "d" * (GOAL_CHARS_MAX + 1)]),
    role=st.sampled_from([*ROLES, *ROLE_ALIASES, "wizard", ""]),
    depends_on=st.lists(_IDS, max_size=3),
    parent=st.none() | _IDS,
    depth=st.sampled_from([-1, 0, TASK_DEPTH_MAX, TASK_DEPTH_MAX + 1]),
    max_attempts=st.sampled_from([0, 1, ATTEMPTS_PER_TASK_MAX, ATTEMPTS_PER_TASK_MAX + 1]),
    timeout_ms=_around(TASK_TIMEOUT_MAX_MS),
    node=_NODES,
    context=st.sampled_from([{}, {"spec": "x" * SHOWN_BYTES_MAX}]),
    approvers=st.sampled_from([[], ["aka"], [" "], ["x" * 65], ["aka"] * APPROVERS_MAX, ["aka"] * (APPROVERS_MAX + 1)]),
)
_SOUND = st.builds(
    TaskSpec,
    id=st.sampled_from(["a", "b", "c", "d", "e"]),
    depends_on=st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), max_size=2),
    parent=st.none() | st.sampled_from(["a", "b"]),
    node=st.sampled_from([GroupNode(), NoopNode()]),
)


def _code(judge: Callable[[], object]) -> str | None:
    """The code under which `judge` refuses; None when it does not."""
    try:
        judge()
    except Rejected as refused:
        return refused.code
    return None


def _planner(tasks: list[TaskSpec]) -> None:
    check_graph(accept_tasks(tasks))


def _accepted_there_too(tasks: list[TaskSpec]) -> None:
    if _code(lambda: _planner(tasks)) is None:
        executor.check_tasks(accept_tasks(tasks))


@settings(max_examples=200, deadline=None)
@given(_TASKS)
def test_a_task_that_is_accepted_here_is_accepted_there(task: TaskSpec) -> None:
    assume(task.parent is None and not task.depends_on)
    _accepted_there_too([task])


@settings(max_examples=100, deadline=None)
@given(st.lists(_TASKS, min_size=1, max_size=4))
def test_a_batch_that_is_accepted_here_is_accepted_there(tasks: list[TaskSpec]) -> None:
    _accepted_there_too(tasks)


@settings(max_examples=200, deadline=None)
@given(st.lists(_SOUND, min_size=1, max_size=5, unique_by=lambda task: task.id))
def test_both_judge_a_graph_alike(tasks: list[TaskSpec]) -> None:
    assert _code(lambda: _planner(tasks)) == _code(lambda: executor.check_tasks(tasks))


@settings(max_examples=200, deadline=None)
@given(
    st.builds(
        RunOptions,
        parallel=st.sampled_from([0, 1, 10_000, 10_001]),
        timeout_ms=st.sampled_from([0, 1, 7 * 86_400_000, 7 * 86_400_000 + 1]),
        llm_timeout_ms=_around(LLM_TIMEOUT_MAX_MS),
        max_tokens=_around(200_000),
        reworks_max=_NUMBERS | st.just(3),
        model=st.none() | _MODELS,
        workspace=st.none() | _IDS,
        temperature=st.sampled_from([None, 0.0, 2.0, 2.1, float("nan")]),
    )
)
def test_options_that_are_accepted_here_are_accepted_there(options: RunOptions) -> None:
    if _code(lambda: accept_options(options)) is None:
        executor.check_options(options)


@pytest.mark.parametrize(
    "task",
    [
        TaskSpec("a", role="admin", node=GroupNode()),
        TaskSpec("a", role="admin", context={"spec": "x" * SHOWN_BYTES_MAX}),
        TaskSpec("a", approvers=[" "]),
        TaskSpec("a", approvers=["aka"] * (APPROVERS_MAX + 1)),
    ],
)
def test_what_no_human_could_release_is_refused_by_both(task: TaskSpec) -> None:
    code = _code(lambda: executor.check_tasks([task]))
    assert code is not None
    assert _code(lambda: _planner([task])) == code
