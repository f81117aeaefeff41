"""Story 3 with real work in every role: the coders write, the tester tests, the critic reads, the admin waits."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from contracts.run import AddTasks
from contracts.streams import COMMANDS
from contracts.subjects import command, rpc
from contracts.task import TaskSpec, ToolNode
from tests.e2e.test_gates import DEPLOY, Team, log_of, step
from tests.support.eventually import eventually
from tests.support.linked import linked

pytestmark = [pytest.mark.timeout(400)]
CHANNEL = "def push(text: str) -> dict:\n    return {'pushed': text}\n"
TESTS = "from channel import push\n\n\ndef test_push():\n    assert push('hi') == {'pushed': 'hi'}\n"


def tool(name: str, **args: Any) -> dict[str, Any]:
    return {"type": "tool", "tool": name, "args": args}


def notifications() -> list[dict[str, Any]]:
    """The seed's seven tasks."""
    pytest_words = ["pytest", "-q", "-p", "no:cacheprovider", "test_channel.py"]
    return [
        step("architect-notifications", "architect", node=tool("fs", read="/code/pyproject.toml")),
        step("implement-channel", "coder", "architect-notifications",
             node=tool("fs", write="/code/channel.py", content=CHANNEL)),
        step("implement-client", "coder", "architect-notifications",
             node=tool("fs", write="/code/client.js", content="// listens")),
        step("implement-push", "coder", "implement-channel",
             node=tool("fs", write="/code/test_channel.py", content=TESTS)),
        step("test-channel", "tester", "implement-channel", "implement-client", "implement-push",
             node=tool("shell", cmd=pytest_words)),
        step("review-notifications", "critic", "test-channel", node=tool("fs", read="/code/channel.py")),
        step("deploy-feature", "admin", "review-notifications", node=DEPLOY),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    made = Team(tmp_path_factory.mktemp("story"))
    (made.project / "pyproject.toml").write_text('[project]\nname = "shop"\nversion = "1"\n')
    made.enrol()
    yield made
    assert made.htdag("down").code == 0


def order_of(log: str) -> list[tuple[str, str]]:
    """What happened to which task, in order."""
    told = [event for line in log.splitlines() for event in json.loads(line)["events"]]
    return [(event["type"], event["task_id"]) for event in told if "task_id" in event]


def test_seven_tasks_work_in_their_roles_and_two_coders_at_the_same_time(team: Team) -> None:
    """(f)"""
    team.begin("seven", notifications())
    gate = team.gate("seven")
    listed = team.htdag("approvals", "list", "--run", "seven").out
    assert 'admin shell ["touch","/code/deployed"]' in listed
    assert not team.deployed
    granted = team.grant(gate)
    assert granted.code == 0, granted.out + granted.err
    assert '"/code/deployed"' in granted.err.partition("Who are you?")[0]
    view = team.ended("seven")
    assert (view["status"], {task["status"] for task in view["tasks"]}) == ("completed", {"completed"}), view
    assert team.deployed
    happened = order_of(asyncio.run(log_of(team, "seven")))
    starts = [happened.index(("task.started.v1", task)) for task in ("implement-channel", "implement-client")]
    ends = [happened.index(("task.completed.v1", task)) for task in ("implement-channel", "implement-client")]
    assert max(starts) < min(ends), "both coders were at work at the same time"
    results = team.htdag("runs", "result", "seven", "--json").document["results"]
    assert "1 passed" in results["test-channel"]["stdout"]
    assert results["review-notifications"]["content"] == CHANNEL
    team.later()


def test_red_tests_block_review_and_deployment_and_nobody_is_asked(team: Team) -> None:
    """(a), with the real program of the tester."""
    red = "def test_push():\n    assert 6 * 7 == 43\n"
    words = ["pytest", "-q", "-p", "no:cacheprovider", "test_red.py"]
    team.begin("red", [
        step("implement", "coder", node=tool("fs", write="/code/test_red.py", content=red)),
        step("test-feature", "tester", "implement", node=tool("shell", cmd=words)),
        step("review-feature", "critic", "test-feature", node=tool("fs", read="/code/test_red.py")),
        step("deploy-feature", "admin", "review-feature", node=DEPLOY),
    ])  # fmt: skip
    view = team.ended("red")
    states = {task["id"]: task["status"] for task in view["tasks"]}
    assert states == {
        "implement": "completed",
        "test-feature": "failed",
        "review-feature": "blocked",
        "deploy-feature": "blocked",
    }
    error = team.task("red", "test-feature")["error"]
    assert (error["code"], error["exit"], "1 failed" in error["stdout"]) == ("program_failed", 1, True)
    assert team.htdag("approvals", "list", "--all", "--run", "red", "--json").document == []


def test_the_command_of_a_task_that_waits_cannot_be_changed(team: Team) -> None:
    """(d): what was shown is what will be done, or nothing is."""
    team.begin("same", [step("deploy-feature", "admin", node=DEPLOY)])
    before = team.htdag("approvals", "show", team.gate("same"), "--json").document
    other = TaskSpec(id="deploy-feature", role="admin", node=ToolNode("shell", {"cmd": ["rm", "-rf", "/code"]}))
    asyncio.run(added(team, "same", other))
    refused = asyncio.run(eventually(lambda: dead_letter(team, "run.same.add"), timeout_s=30))
    assert refused["reason"] == "duplicate_id"
    after = team.htdag("approvals", "show", team.gate("same"), "--json").document
    assert (after["digest"], after["action"], after["status"]) == (before["digest"], before["action"], "open")
    # Whoever answers for an action that is not the gate's releases nothing, with a right code.
    body = {"approval_id": before["approval_id"], "digest": "0" * 64}
    said = asyncio.run(answered(team, body))
    assert (said["state"], said["code"]) == ("refused", "approval_stale")
    assert team.task("same")["status"] == "waiting_approval"
    assert team.htdag("runs", "cancel", "same").code == 0
    assert team.ended("same")["status"] == "cancelled"


def dead_letter(team: Team, about: str) -> Any:
    letters = team.htdag("bus", "dlq", "ls", "--json").document
    return next((letter for letter in letters if about in letter["subject"]), None)


async def added(team: Team, run_id: str, task: TaskSpec) -> None:
    """Whoever may speak to a run says a task once more, with another command."""
    data = msgspec.json.encode(AddTasks(run_id, [task]))
    async with linked(team.document["operator_url"]) as bus:
        await bus.store(command("executor", "run", run_id, "add"), data, stream=COMMANDS, msg_id="changed")


async def answered(team: Team, gate: dict[str, str]) -> dict[str, Any]:
    """Both turns of a conversation about a gate."""
    verb = rpc("identity", "approval", "converse")
    async with linked(team.document["operator_url"]) as bus:
        await bus.call(verb, {"session": "d", "text": "Aka", **gate}, timeout_s=10)
        said: dict[str, Any] = await bus.call(verb, {"session": "d", "text": team.code()}, timeout_s=10)
    return said
