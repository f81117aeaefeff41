"""What may join a run: every refusal has its code, and a graph that can be carried out has an order."""

import msgspec
import pytest

from contracts.errors import Rejected
from contracts.limits import TASKS_PER_RUN_MAX
from contracts.run import RunOptions
from contracts.task import AgentNode, LlmNode, LuaNode, NatsNode, TaskSpec
from services.executor.graph import check_options, check_tasks, order
from tests.unit.executor.builders import group, noop


def refusal(*tasks: TaskSpec) -> Rejected:
    with pytest.raises(Rejected) as refused:
        check_tasks(tasks)
    return refused.value


def test_a_sound_plan_passes():
    check_tasks([noop("a"), noop("b", "a"), group("g", "b"), noop("x", parent="g"), noop("y", "x", parent="g")])


@pytest.mark.parametrize(
    ("tasks", "code"),
    [
        ([noop("a.b")], "bad_id"),
        ([noop("")], "bad_id"),
        ([noop("x" * 65)], "bad_id"),
        ([noop("a\n")], "bad_id"),
        ([noop("a"), noop("a")], "duplicate_id"),
        ([TaskSpec("a", estimated_complexity=-1.0)], "bad_request"),
        ([TaskSpec("a", estimated_complexity=1e9)], "bad_request"),
        ([TaskSpec("a", estimated_complexity=float("nan"))], "bad_request"),
        ([noop("a", role="king")], "unknown_role"),
        ([noop("a", "b")], "unknown_dependency"),
        ([noop("a", parent="b")], "unknown_dependency"),
        ([noop("a"), noop("b", parent="a")], "bad_request"),
        ([noop("a", max_attempts=0)], "bad_request"),
        ([noop("a", max_attempts=11)], "bad_request"),
        ([noop("a", timeout_ms=0)], "bad_request"),
        ([noop("a", timeout_ms=10**10)], "bad_request"),
        ([noop("a", depth=6)], "bad_request"),
        ([noop("a", description="x" * 20_001)], "too_large"),
        ([TaskSpec(id="a", node=LlmNode(model="m"))], "bad_request"),
        ([TaskSpec(id="a", node=LlmNode(model="m m", prompt="p"))], "bad_id"),
        ([TaskSpec(id="a", node=LlmNode(model="m", prompt="p", params={"max_tokens": "many"}))], "bad_request"),
        ([TaskSpec(id="a", node=AgentNode(params={"timeout_ms": 10**9}))], "bad_request"),
        ([TaskSpec(id="a", node=LlmNode(model="m", prompt="x" * (600 << 10)))], "too_large"),
        ([TaskSpec(id="a", acceptance_criteria=["x" * (600 << 10)])], "too_large"),
        ([TaskSpec(id="a", node=LuaNode(src="x" * ((1 << 20) + 1)))], "too_large"),
        ([TaskSpec(id="a", node=LuaNode(src="return 1", timeout_ms=31_000))], "bad_request"),
    ],
)
def test_refusals(tasks: list[TaskSpec], code: str):
    assert refusal(*tasks).code == code


@pytest.mark.parametrize("field", ["budget_usd_micros", "budget_tokens"])
@pytest.mark.parametrize("amount", [-1, (1 << 53) + 1])
def test_a_budget_that_is_none_is_refused_with_its_field(field: str, amount: int):
    assert refusal(noop("a", **{field: amount})).detail["field"] == field
    with pytest.raises(Rejected) as refused:
        check_options(msgspec.convert({field: amount}, RunOptions))
    assert refused.value.detail["field"] == f"options.{field}"


@pytest.mark.parametrize(
    "subject",
    [
        "htdag.v1.x",
        "htdag",
        "$JS.API.INFO",
        "$SRV.PING",
        "_INBOX.x",
        "_INBOX",
        "llm.req.x",
        "ai.llm.request",
        "a.*",
        "a.>",
    ],
)
def test_a_nats_node_may_not_reach_into_htdag_or_the_broker(subject: str):
    assert refusal(TaskSpec(id="a", node=NatsNode(subject=subject))).code == "forbidden_subject"


@pytest.mark.parametrize("subject", ["", "a..b", ".a", "a.", "a b", "a\tb", "a\r\nPUB x 0"])
def test_a_malformed_subject_is_refused(subject: str):
    assert refusal(TaskSpec(id="a", node=NatsNode(subject=subject))).code == "bad_request"


@pytest.mark.parametrize("subject", ["work.resize", "llmx.y", "airport.x", "a*b", "x"])
def test_other_subjects_are_free(subject: str):
    check_tasks([TaskSpec(id="a", node=NatsNode(subject=subject))])


def test_a_cycle_is_shown():
    refused = refusal(noop("a", "c"), noop("b", "a"), noop("c", "b"), noop("free"))
    assert refused.code == "cycle"
    shown = refused.detail["cycle"]
    assert shown[0] == shown[-1]
    assert set(shown) == {"a", "b", "c"}


def test_a_task_that_waits_for_itself_is_a_cycle():
    assert refusal(noop("a", "a")).detail["cycle"] == ["a", "a"]


def test_a_child_may_not_wait_for_its_own_group():
    assert refusal(group("g"), noop("x", "g", parent="g")).code == "cycle"


def test_a_group_may_not_be_part_of_itself():
    assert refusal(group("g", parent="h"), group("h", parent="g")).code == "cycle"


def test_a_child_may_not_wait_for_what_waits_for_its_group():
    assert refusal(group("g"), noop("behind", "g"), noop("x", "behind", parent="g")).code == "cycle"


def test_too_many_tasks_are_refused():
    assert refusal(*(noop(f"t{n}") for n in range(TASKS_PER_RUN_MAX + 1))).code == "too_large"


def test_what_is_there_already_counts():
    check_tasks([noop("b", "a"), noop("c", parent="g")], {"a": False, "g": True})
    with pytest.raises(Rejected, match="duplicate_id"):
        check_tasks([noop("a")], {"a": False})
    with pytest.raises(Rejected, match="bad_request"):
        check_tasks([noop("c", parent="a")], {"a": False})


def test_everything_stands_behind_what_it_needs():
    tasks = [noop("d", "g"), noop("y", "x", parent="g"), noop("x", parent="g"), group("g", "a"), noop("a")]
    assert order(tasks) == ["a", "x", "y", "g", "d"]


def test_a_deep_chain_needs_no_recursion():
    size = 20_000
    tasks = [noop(f"t{n}", f"t{n + 1}") for n in range(size)] + [noop(f"t{size}")]
    assert order(tasks)[0] == f"t{size}"
    assert refusal(*tasks[:-1], noop(f"t{size}", "t0")).code == "cycle"


@pytest.mark.parametrize(
    "options",
    [
        RunOptions(parallel=0),
        RunOptions(parallel=10_001),
        RunOptions(timeout_ms=0),
        RunOptions(llm_timeout_ms=10**7),
        RunOptions(max_tokens=0),
        RunOptions(reworks_max=3),
        RunOptions(model="a b"),
        RunOptions(temperature=-1.0),
    ],
)
def test_options_are_bounded(options: RunOptions):
    with pytest.raises(Rejected):
        check_options(options)
