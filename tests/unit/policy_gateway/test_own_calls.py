"""A call in a task's name is the task's only if its run's log asks for it; a release is believed when it is proven."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from contracts.approval import TakeApproval, action_digest
from contracts.policy import CallOf, ToolCall, ToolDecided
from contracts.release import action_of
from contracts.run import RunCreated, TaskCompleted, TasksAdded, TaskStarted
from contracts.run_gates import TaskApproved
from contracts.run_tools import ToolAnswered, ToolRequested
from contracts.task import AgentNode, Node, TaskSpec, ToolNode
from services.policy_gateway import service
from tests.support.grants import KEY, PUBLIC, signed
from tests.support.nats_server import NatsServer
from tests.unit.policy_gateway.gateway_desk import CALL, FAR_MS, READ, Caller, Gateway, caller, gateway

WRITE = {"write": "/code/a", "content": "evil"}
SLEEP = {"cmd": ["python", "sleep.py"]}
SECOND = CallOf("r1", "a", 1, 2)
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(32))


@pytest.fixture
async def one(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway that knows identity's key."""
    async with gateway(nats_server, tmp_path / "home", approval_keys=[PUBLIC], admin_calls=False) as made:
        yield made


def spec(node: Node, role: str = "admin", **more: Any) -> TaskSpec:
    return TaskSpec(id="a", role=role, node=node, **more)


def approved(task: TaskSpec, key: Ed25519PrivateKey = KEY, **said: Any) -> TaskApproved:
    """What an executor writes when identity has released the first attempt of a task."""
    digest = said.pop("digest", None) or action_digest(action_of(task, None))
    answer = TakeApproval("apr-1", "r1", "a", 1, "granted", digest, 5, user="aka", kind="human", step=7)
    answer = signed(msgspec.structs.replace(answer, **said), key)
    return TaskApproved(
        "a", 1, answer.approval_id, answer.digest, answer.user or "", answer.step or 0, answer.at_ms,
        answer.signature, answer.key,
    )  # fmt: skip


async def begins(me: Caller, task: TaskSpec, *then: Any, release: TaskApproved | None = None) -> None:
    created = RunCreated(run_id="r1", deadline_at_ms=FAR_MS)
    released = [release] if release is not None else []
    await me.run_is("r1", created, TasksAdded([task]), *released, TaskStarted("a", 1, FAR_MS), *then)


def asks(call: int, tool: str, args: Any) -> ToolRequested:
    return ToolRequested("a", 1, "body", call, tool, args, FAR_MS)


async def code(me: Caller, tool: str, args: Any, call: CallOf = CALL, role: str = "admin", **more: Any) -> str:
    said = await me.call(role, tool, args, task=call, logged=False, **more)
    return said["error"]["code"] if "error" in said else ""


@pytest.mark.law("I6")
async def test_the_release_of_one_exact_call_lets_no_other_through(one: Gateway, me: Caller) -> None:
    """Given a released tool node, when others name its task, then its own call runs, once, and nothing else."""
    task = spec(ToolNode("shell", SLEEP))
    await begins(me, task, asks(1, "shell", SLEEP), release=approved(task))
    assert await code(me, "shell", {"cmd": ["touch", "evil"]}) == "conflict"
    assert await code(me, "fs", WRITE) == "conflict"
    for number in (2, 3, 7):
        other = CallOf("r1", "a", 1, number)
        assert await code(me, "shell", {"cmd": ["touch", "evil"]}, other) == "call_not_requested"
        assert await code(me, "shell", SLEEP, other) == "call_not_requested"
    assert await code(me, "shell", SLEEP, opts={"timeout": 1}) == "conflict"
    assert one.tool.calls == []
    assert await code(me, "shell", SLEEP) == ""
    assert len(one.tool.calls) == 1
    refused = [entry.code for entry in await me.audit() if isinstance(entry, ToolDecided) and entry.verdict == "deny"]
    assert refused.count("call_not_requested") == 6


@pytest.mark.law("I6")
async def test_not_even_the_runs_log_gives_a_tool_node_another_call(one: Gateway, me: Caller) -> None:
    """Given a log that asks for more in a released node's name, then only what reads the same again is believed."""
    task = spec(ToolNode("shell", SLEEP))
    touch = {"cmd": ["touch", "evil"]}
    await begins(me, task, asks(1, "shell", touch), asks(2, "shell", SLEEP), release=approved(task))
    assert await code(me, "shell", touch) == "call_not_requested"
    assert await code(me, "shell", SLEEP, SECOND) == "call_not_requested"
    assert one.tool.calls == []


async def test_a_read_that_was_interrupted_is_made_again(one: Gateway, me: Caller) -> None:
    await begins(me, spec(ToolNode("fs", READ), "coder"), asks(1, "fs", READ), asks(2, "fs", READ))
    assert await code(me, "fs", READ, SECOND, role="coder") == ""


async def test_an_agents_call_is_one_that_its_run_has_asked_for(one: Gateway, me: Caller) -> None:
    await begins(me, spec(AgentNode(), "coder"), asks(1, "fs", READ))
    assert await code(me, "fs", WRITE, role="coder") == "conflict"
    assert await code(me, "fs", READ, SECOND, role="coder") == "call_not_requested"
    assert await code(me, "fs", READ, role="coder") == ""
    await me.run_is("r1", ToolAnswered("a", 1, 1))
    assert await code(me, "fs", READ, role="coder") == "call_not_requested"
    await me.run_is("r1", asks(2, "lua", {"src": "return 1"}), TaskCompleted("a", 1, None))
    assert await code(me, "lua", {"src": "return 1"}, SECOND, role="coder") == "stale_attempt"


async def test_a_call_that_the_executor_bars_is_barred_whoever_sends_it(one: Gateway, me: Caller) -> None:
    barred = msgspec.structs.replace(asks(1, "fs", READ), barred=True)
    await begins(me, spec(AgentNode(), "coder"), barred)
    assert await code(me, "fs", READ, role="coder") == "conflict"
    said = await me.raw("coder", "fs", msgspec.json.encode(ToolCall(READ, {}, CALL, barred=True)))
    assert said["error"]["code"] == "forbidden_tool"


NODE = ToolNode("fs", READ)
OTHER = spec(ToolNode("fs", WRITE))


@pytest.mark.law("I6")
@pytest.mark.parametrize(
    ("release", "expected"),
    [
        (approved(spec(NODE)), ""),
        (None, "approval_required"),
        (msgspec.structs.replace(approved(spec(NODE)), signature="", key=""), "approval_not_genuine"),
        (approved(spec(NODE), STRANGER), "approval_not_genuine"),
        (msgspec.structs.replace(approved(spec(NODE), STRANGER), key=PUBLIC), "approval_not_genuine"),
        (approved(spec(NODE), run_id="r2"), "approval_not_genuine"),
        (approved(spec(NODE), task_id="b"), "approval_not_genuine"),
        (approved(spec(NODE), attempt=2), "approval_not_genuine"),
        (msgspec.structs.replace(approved(spec(NODE)), user="eve"), "approval_not_genuine"),
        (approved(OTHER), "approval_stale"),
        (msgspec.structs.replace(approved(spec(NODE)), attempt=2), "approval_required"),
    ],
)  # fmt: skip
async def test_a_release_is_believed_by_identitys_signature_alone(
    one: Gateway, me: Caller, release: TaskApproved | None, expected: str
) -> None:
    """Given a run's log that says released, then an admin call runs only if identity signed just this node for it."""
    await begins(me, spec(NODE), asks(1, "fs", READ), release=release)
    assert await code(me, "fs", READ) == expected
    assert len(one.tool.calls) == (not expected)


@pytest.mark.law("I6")
@pytest.mark.parametrize(("approvers", "expected"), [(["Aka "], ""), (["bea"], "approval_not_genuine")])
async def test_who_may_not_release_a_task_has_not(
    one: Gateway, me: Caller, approvers: list[str], expected: str
) -> None:
    task = spec(NODE, approvers=approvers)
    await begins(me, task, asks(1, "fs", READ), release=approved(task))
    assert await code(me, "fs", READ) == expected


@pytest.mark.law("I6")
async def test_a_node_that_is_exchanged_behind_its_release_is_not_released(one: Gateway, me: Caller) -> None:
    await begins(me, spec(NODE), asks(1, "fs", READ), release=approved(spec(NODE)))
    assert await code(me, "fs", READ) == ""
    touch = spec(ToolNode("fs", WRITE))
    forged = (TasksAdded([touch]), approved(spec(NODE)), TaskStarted("a", 1, FAR_MS), asks(1, "fs", WRITE))
    await me.run_is("r1", *forged)
    assert await code(me, "fs", WRITE) == "approval_stale"
    assert len(one.tool.calls) == 1


@pytest.mark.law("I6")
async def test_a_release_that_nobody_can_verify_lets_nothing_happen(
    nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given no known key and no identity to ask, then a signed release is not believed yet."""
    monkeypatch.setattr(service, "KEY_PATIENCE_S", 1.0)
    async with caller(nats_server) as me, gateway(nats_server, tmp_path / "home") as keyless:
        await begins(me, spec(NODE), asks(1, "fs", READ), release=approved(spec(NODE)))
        assert await code(me, "fs", READ) == "service_unavailable"
        assert keyless.tool.calls == []
