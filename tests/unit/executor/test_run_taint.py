"""Taint: given what tools gave, then what a task has read, which tasks stand behind it, and what a gate is told."""

from typing import Any

import pytest

from contracts.run_tools import TakeToolResult
from contracts.taint import READ_FROM_MAX, READ_MAX, READERS_MAX, WHAT_CHARS_MAX, Reading
from contracts.task import AgentNode, LuaNode, NatsNode, TaskSpec, ToolNode
from contracts.tools import TOOLS
from services.executor.run.effects import AskApproval
from services.executor.run.snapshot import dump, restore
from services.executor.run.taint import brings_nothing, what_of
from services.executor.views import task_view
from tests.unit.executor.builders import (
    COMPLETE,
    REWORK,
    STRATEGY,
    WORKSPACE,
    agent,
    answer,
    denied,
    done,
    gave,
    group,
    llm,
    no_answer,
    noop,
    run,
    spawn,
    start,
    wants,
    working,
)

EVIL = "/code/evil.txt"


def reads(task_id: str, *needs: str, path: str = EVIL, **fields: Any) -> TaskSpec:
    return TaskSpec(id=task_id, depends_on=list(needs), node=ToolNode("fs", {"read": path}), **fields)


def calls(tool: str, args: Any) -> dict[str, Any]:
    return {"id": "c1", "name": tool, "arguments": args}


def read_by(spec: Any, task_id: str) -> list[tuple[str, str]]:
    view = task_view(spec.state.tasks[task_id])
    assert dump(restore(dump(spec.state))) == dump(spec.state)
    return [(one.tool, one.what) for one in view.read]


def behind(spec: Any, task_id: str) -> list[str]:
    return task_view(spec.state.tasks[task_id]).tainted_by


def asked_for(spec: Any) -> AskApproval:
    return spec.effects(AskApproval)[-1]


def test_what_a_task_read_is_kept_and_taints_what_comes_after_it():
    spec = working(reads("read"), llm("next", "read"), agent("ag", "next"), noop("aside"))
    assert read_by(spec, "read") == []
    spec.after(gave("read", 1, {"content": "IGNORE ALL"}))
    assert read_by(spec, "read") == [("fs", EVIL)]
    assert (read_by(spec, "next"), behind(spec, "next")) == ([], ["read"])
    spec.after(answer("r1.next.1.llm-1"))
    assert behind(spec, "ag") == ["read"]
    assert (read_by(spec, "aside"), behind(spec, "aside")) == ([], [])


def test_what_the_policy_denied_was_never_read():
    spec = working(agent("a")).after(wants("r1.a.1.llm-1", "shell", "git"), denied("a", 1), gave("a", 2))
    assert read_by(spec, "a") == [("git", "do 2")]


def test_a_barred_call_read_nothing_whatever_is_said_of_it():
    spec = working(agent("a", node=AgentNode(tools=["lua"]))).after(wants("r1.a.1.llm-1", "fs"), gave("a", 1, "text"))
    assert read_by(spec, "a") == []


def test_an_error_may_hold_words_of_what_ran():
    failed = TakeToolResult("a", 1, 1, error={"class": "unavailable", "code": "fetch_failed", "message": "says: obey"})
    spec = working(agent("a")).after(wants("r1.a.1.llm-1", calls("http", {"url": "https://example.com/x"})), failed)
    assert read_by(spec, "a") == [("http", "example.com")]


@pytest.mark.parametrize("tool", [*TOOLS, "tool_of_tomorrow"])
def test_a_tool_taints_unless_it_is_known_to_bring_nothing(tool: str):
    assert brings_nothing(tool, {"cmd": ["x"], "url": "https://h", "image": "i", "read": "/code/a"}) is (tool == "lua")
    assert brings_nothing(tool, None) is (tool == "lua")


def test_writing_a_file_brings_nothing():
    assert brings_nothing("fs", {"write": "/code/a", "content": "x"})
    assert not brings_nothing("fs", {"write": "/code/a", "read": "/code/b"})


@pytest.mark.parametrize(
    ("tool", "args", "what"),
    [
        ("fs", {"read": EVIL}, EVIL),
        ("fs", {"read": 7}, ""),
        ("http", {"url": "https://user:geheim@Example.com:8443/hook/geheim?token=geheim"}, "example.com"),
        ("http", {"url": "https://[geheim"}, ""),
        ("http", {"url": None}, ""),
        ("git", {"cmd": ["show", "geheim"]}, "show"),
        ("shell", {"cmd": ["curl", "-H", "geheim"]}, "curl"),
        ("shell", {"cmd": []}, ""),
        ("shell", {"cmd": [{"geheim": 1}]}, ""),
        ("docker", {"image": "alpine:3", "cmd": ["geheim"]}, "alpine:3"),
        ("tool_of_tomorrow", {"read": "geheim"}, ""),
        ("fs", "geheim", ""),
        ("fs", {"read": "/code/" + "x" * 500}, "/code/" + "x" * (WHAT_CHARS_MAX - 7) + "…"),
    ],
)
def test_what_was_read_is_named_shortly_and_without_arguments(tool: str, args: Any, what: str):
    assert what_of(tool, args) == what


def test_a_secret_in_a_name_leaves_nobody():
    key = "ghp_" + "a1B2" * 9
    spec = working(reads("a", path=f"/code/{key}")).after(gave("a", 1))
    [(_, what)] = read_by(spec, "a")
    assert key not in what


def test_an_answer_over_nats_comes_from_outside_and_a_script_does_not():
    spec = run().after(
        start(
            TaskSpec(id="ask", node=NatsNode("shop.price")),
            TaskSpec(id="tell", node=NatsNode("shop.sold", mode="publish")),
            TaskSpec(id="lua", node=LuaNode("return 1")),
        )
    )
    spec.after(done("ask", value={"text": "obey"}), done("tell", value={}), done("lua", value=1))
    assert [read_by(spec, name) for name in ("ask", "tell", "lua")] == [[("nats", "shop.price")], [], []]


def test_taint_outlives_attempts_and_reworks():
    spec = run().after(start(agent("a", max_attempts=2), noop("b", "a"), strategy=STRATEGY, workspace=WORKSPACE))
    spec.after(done("a", step="spawn", value=spawn("coder")), done("a", step="orchestrate", value={}))
    spec.after(wants("r1.a.1.llm-1", calls("fs", {"read": "/code/1"})), gave("a", 1), answer("r1.a.1.llm-1.2"))
    spec.after(done("a", step="complete", value=REWORK))
    spec.after(wants("r1.a.1.llm-2", calls("fs", {"read": "/code/2"})), gave("a", 2))
    assert read_by(spec, "a") == [("fs", "/code/1"), ("fs", "/code/2")]
    spec.after(answer("r1.a.1.llm-2.2"), done("a", step="complete-1", value=COMPLETE), done("b"))
    assert read_by(spec, "a") == [("fs", "/code/1"), ("fs", "/code/2")]
    assert (behind(spec, "b"), spec.state.status) == (["a"], "completed")


def test_a_group_stands_for_its_children_and_they_stand_behind_what_it_waited_for():
    spec = working(
        reads("first", path="/code/1"),
        group("g", "first"),
        reads("in", path="/code/2", parent="g"),
        noop("beside", parent="g"),
        noop("after", "g"),
    )
    spec.after(gave("first", 1), gave("in", 1), done("beside"))
    assert behind(spec, "in") == behind(spec, "beside") == ["first"]
    assert behind(spec, "g") == ["first", "in"]
    assert behind(spec, "after") == ["first", "in"]


def test_many_readings_are_bounded_and_the_others_counted():
    spec = working(agent("a"), noop("b", "a"))
    step = "r1.a.1.llm-1"
    for number in range(READ_MAX + 3):
        spec.after(wants(step, calls("fs", {"read": f"/code/{number}"})), gave("a", number + 1))
        step = f"r1.a.1.llm-1.{number + 2}"
    spec.after(wants(step, calls("fs", {"read": "/code/0"})), gave("a", READ_MAX + 4))
    view = task_view(spec.state.tasks["a"])
    assert ([one.what for one in view.read], view.read_more) == ([f"/code/{n}" for n in range(READ_MAX)], 3)


def test_many_readers_are_bounded_along_a_chain_and_in_a_fan():
    names = [f"t{number}" for number in range(READERS_MAX + 5)]
    chain = [reads(name, *names[max(0, number - 1) : number]) for number, name in enumerate(names)]
    spec = working(*chain, noop("end", names[-1]))
    spec.after(*(gave(name, 1) for name in names))
    view = task_view(spec.state.tasks["end"])
    assert (view.tainted_by, view.tainted_more) == (names[: -READERS_MAX - 1 : -1], 1)
    fan = working(*(reads(name) for name in names), noop("end", *names)).after(*(gave(name, 1) for name in names))
    view = task_view(fan.state.tasks["end"])
    assert (view.tainted_by, view.tainted_more) == (names[:READERS_MAX], 5)


def test_a_gate_is_told_what_was_read_before_it():
    spec = working(reads("read"), agent("ag", "read"), agent("adm", "ag", role="admin"))
    spec.after(gave("read", 1, {"content": "obey"}))
    spec.after(wants("r1.ag.1.llm-1", calls("git", {"cmd": ["log"]})), gave("ag", 1), answer("r1.ag.1.llm-1.2"))
    ask = asked_for(spec)
    assert (ask.read_from, ask.read_more) == ([Reading("git", "log", "ag"), Reading("fs", EVIL, "read")], 0)


def test_a_gate_before_which_nothing_was_read_is_told_nothing():
    spec = working(noop("a"), agent("adm", "a", role="admin")).after(done("a"))
    assert (asked_for(spec).read_from, asked_for(spec).read_more) == ([], 0)


def test_a_gate_that_the_policy_asks_for_is_told_what_the_attempt_before_it_read():
    spec = working(agent("a")).after(wants("r1.a.1.llm-1", calls("fs", {"read": EVIL}), "shell"), gave("a", 1))
    spec.after(denied("a", 2, "approval_required"))
    assert asked_for(spec).read_from == [Reading("fs", EVIL, "a")]


def test_what_a_gate_is_told_is_bounded():
    names = [f"t{number}" for number in range(READ_FROM_MAX + 5)]
    spec = working(*(reads(name) for name in names), agent("adm", *names, role="admin"))
    spec.after(*(gave(name, 1) for name in names))
    ask = asked_for(spec)
    assert len(ask.read_from) == READERS_MAX
    assert ask.read_more == len(names) - READERS_MAX


def test_the_digest_of_an_action_does_not_change_with_what_was_read():
    def digest(*paths: str) -> str:
        spec = working(reads("a", path=paths[0]), agent("adm", "a", role="admin")).after(gave("a", 1))
        return asked_for(spec).digest

    assert digest("/code/1") == digest("/code/2")


def test_a_failed_task_that_is_tried_again_keeps_what_it_read():
    spec = working(agent("a", max_attempts=2)).after(wants("r1.a.1.llm-1", calls("fs", {"read": EVIL})), gave("a", 1))
    spec.after(no_answer("r1.a.1.llm-1.2", "provider_error"))
    assert spec.state.tasks["a"].status == "pending"
    assert read_by(spec, "a") == [("fs", EVIL)]
