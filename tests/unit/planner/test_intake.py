"""Each field of an enqueued task has its bounds, and each breach its code."""

import math

import msgspec
import pytest

from contracts.errors import Rejected
from contracts.limits import GOAL_CHARS_MAX, LUA_SOURCE_MAX_BYTES, TASKS_PER_RUN_MAX, TITLE_CHARS_MAX
from contracts.run import RunOptions
from contracts.task import AgentNode, LlmNode, LuaNode, NatsNode, TaskSpec
from services.planner.intake import TASK_BYTES_MAX, accept_task, accept_tasks, body_digest
from services.planner.options import accept_options

GOOD = TaskSpec(id="task-1", title="Run tests", role="tester", context={"module": "lib/auth.ex"})


def code_of(**wrong) -> tuple[str, str | None]:
    with pytest.raises(Rejected) as refused:
        accept_task(msgspec.structs.replace(GOOD, **wrong))
    return refused.value.code, refused.value.detail.get("field")


def test_takes_a_good_task_as_it_is():
    assert accept_task(GOOD) is GOOD


@pytest.mark.parametrize(
    ("wrong", "code", "field"),
    [
        ({"id": "a b"}, "bad_id", "task id"),
        ({"id": ""}, "bad_id", "task id"),
        ({"id": "x" * 65}, "bad_id", "task id"),
        ({"role": "wizard"}, "unknown_role", None),
        ({"title": "x" * (TITLE_CHARS_MAX + 1)}, "too_large", "title"),
        ({"description": "x" * (GOAL_CHARS_MAX + 1)}, "too_large", "description"),
        ({"context": {"blob": "x" * TASK_BYTES_MAX}}, "too_large", None),
        ({"max_attempts": 0}, "bad_request", "max_attempts"),
        ({"max_attempts": 11}, "bad_request", "max_attempts"),
        ({"timeout_ms": 0}, "bad_request", "timeout_ms"),
        ({"depth": 6}, "bad_request", "depth"),
        ({"depth": -1}, "bad_request", "depth"),
        ({"budget_tokens": -1}, "bad_request", "budget_tokens"),
        ({"estimated_complexity": math.nan}, "bad_request", "estimated_complexity"),
        ({"node": LlmNode(model="mock")}, "bad_request", "node"),
        ({"node": LlmNode(model="no model", prompt="x")}, "bad_id", "model_id"),
        (
            {"node": LlmNode(model="mock", prompt="x", params={"max_tokens": 0})},
            "bad_request",
            "node.params.max_tokens",
        ),
        ({"node": AgentNode(params={"temperature": "hot"})}, "bad_request", "node.params"),
        ({"node": LuaNode(src="x" * (LUA_SOURCE_MAX_BYTES + 1))}, "too_large", "node.src"),
        ({"node": LuaNode(src="", timeout_ms=999_999)}, "bad_request", "node.timeout_ms"),
        ({"node": NatsNode(subject="htdag.v1.cmd.executor.run.x.start")}, "forbidden_subject", "node.subject"),
        ({"node": NatsNode(subject="$JS.API.STREAM.PURGE.X")}, "forbidden_subject", "node.subject"),
        ({"node": NatsNode(subject="shop.*")}, "forbidden_subject", "node.subject"),
        ({"node": NatsNode(subject="shop..x")}, "bad_request", "node.subject"),
    ],
)
def test_refuses_what_is_out_of_bounds(wrong, code, field):
    assert code_of(**wrong) == (code, field)


def test_puts_role_names_of_strategies_and_complexities_right():
    accepted = accept_task(msgspec.structs.replace(GOOD, role="quality_engineer", estimated_complexity=1e9))
    assert (accepted.role, accepted.estimated_complexity) == ("tester", 100.0)


@pytest.mark.parametrize("complexity", [-1.0, 100.5, 1e9, math.nan])
def test_what_a_person_says_of_complexity_is_taken_or_refused(complexity):
    with pytest.raises(Rejected) as refused:
        accept_tasks([msgspec.structs.replace(GOOD, estimated_complexity=complexity)])
    assert (refused.value.code, refused.value.detail["field"]) == ("bad_request", "estimated_complexity")


def test_refuses_no_tasks_and_too_many():
    for tasks, code in (([], "bad_request"), ([GOOD] * (TASKS_PER_RUN_MAX + 1), "too_large")):
        with pytest.raises(Rejected) as refused:
            accept_tasks(tasks)
        assert refused.value.code == code


def test_tells_bodies_apart_whatever_the_order_of_their_keys():
    one = msgspec.structs.replace(GOOD, context={"a": 1, "b": 2})
    same = msgspec.structs.replace(GOOD, context={"b": 2, "a": 1})
    assert body_digest(one) == body_digest(same) != body_digest(GOOD)


def test_a_default_that_is_written_out_is_the_same_body():
    short = msgspec.json.decode(b'{"id":"a"}', type=TaskSpec)
    long = msgspec.json.decode(
        b'{"id":"a","role":"coder","priority":5,"node":{"type":"agent","params":{}}}', type=TaskSpec
    )
    assert short == long
    assert body_digest(short) == body_digest(long)
    assert body_digest(short) != body_digest(msgspec.structs.replace(short, node=AgentNode(model="mock")))


@pytest.mark.parametrize(
    "wrong", [{"parallel": 0}, {"timeout_ms": 0}, {"reworks_max": 3}, {"max_tokens": 0}, {"temperature": 3.0}]
)
def test_refuses_options_that_the_executor_would_refuse(wrong):
    with pytest.raises(Rejected) as refused:
        accept_options(RunOptions(**wrong))
    assert refused.value.code == "bad_request"
    assert refused.value.detail["field"].startswith("options.")
