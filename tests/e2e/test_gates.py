"""Story 3: coder, tester, critic, admin. Nothing of the admin's happens before a human has proved who they are."""

import asyncio
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyotp
import pytest

from contracts.approval import action_digest
from contracts.rights import inbox
from contracts.streams import COMMANDS, EVENTS_EXECUTOR
from contracts.subjects import command, events
from services.runtime import nats_client, nkeys
from services.runtime.bus import Bus
from tests.e2e.instance import Instance, Said
from tests.support.eventually import eventually
from tests.support.linked import linked

pytestmark = [pytest.mark.timeout(400)]
PASSWORD = "correct horse battery staple"
DEPLOY = {"type": "tool", "tool": "shell", "args": {"cmd": ["touch", "/code/deployed"]}}


def step(task_id: str, role: str, *needs: str, node: dict[str, Any] | None = None) -> dict[str, Any]:
    node = node or {"type": "noop", "result": f"{task_id} is done"}
    return {"id": task_id, "title": task_id, "role": role, "depends_on": list(needs), "node": node}


def feature(test: dict[str, Any] | None = None, *more: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        step("code-feature", "coder"),
        step("test-feature", "tester", "code-feature", node=test),
        step("review-feature", "critic", "test-feature"),
        step("deploy-feature", "admin", "review-feature", node=DEPLOY),
        *more,
    ]


class Team:
    """An instance with a human who has a phone, an agent with codes of its own, and a workspace."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, folder / "clock"
        self.project = folder / "shop"
        self.project.mkdir()
        self.set_clock(1_790_000_000)
        self.htdag = Instance(folder / "home", HTDAG_IDENTITY__OWNER="Aka")
        self.secret = ""
        self.start()

    def start(self) -> None:
        services = "executor,policy-gateway,identity"
        self.document = self.htdag.up("--only", services, "--test-clock", str(self.clock))

    def set_clock(self, at_s: int) -> None:
        self.now_s = at_s
        self.clock.write_text(f"{at_s}\n")

    def later(self, by_s: int = 90) -> None:
        self.set_clock(self.now_s + by_s)

    def code(self) -> str:
        return str(pyotp.TOTP(self.secret).at(self.now_s))

    def post(self, path: str, body: Any, bearer: str = "") -> Any:
        given = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        url = self.document["services"]["identity"]["auth_url"] + path
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(url, data, given, method="POST"), timeout=10) as answer:
            return json.loads(answer.read())

    def enrol(self) -> None:
        link = self.document["services"]["identity"]["set_up_links"]["aka"]
        body = {"user": "aka", "token": link.rpartition("#")[2], "password": PASSWORD}
        bearer = self.post("/auth/password/", body)["session"]
        self.secret = self.post("/auth/mfa/setup/", None, bearer)["secret"]
        assert self.post("/auth/mfa/verify/", {"code": self.code()}, bearer) == {"mfa_enabled": True}
        self.later()

    def begin(self, run_id: str, plan: list[dict[str, Any]]) -> None:
        file = self.folder / f"{run_id}.json"
        file.write_text(json.dumps(plan))
        words = ("run", str(file), "--run-id", run_id, "--no-follow", "--workspace", str(self.project))
        said = self.htdag(*words)
        assert said.code == 0, said.err

    def show(self, run_id: str) -> dict[str, Any]:
        said = self.htdag("runs", "show", run_id, "--json")
        return said.document if said.code == 0 else {"status": said.err, "tasks": []}

    def task(self, run_id: str, task_id: str = "deploy-feature") -> dict[str, Any]:
        return next((task for task in self.show(run_id)["tasks"] if task["id"] == task_id), {"status": ""})

    def gate(self, run_id: str, task_id: str = "deploy-feature") -> str:
        """The gate of a task that waits, once identity has it."""

        def there() -> str:
            gates = self.htdag("approvals", "list", "--run", run_id, "--json").document
            return next((gate["approval_id"] for gate in gates if gate["task_id"] == task_id), "")

        return asyncio.run(eventually(there, timeout_s=30))

    def ended(self, run_id: str) -> dict[str, Any]:
        def over() -> Any:
            view = self.show(run_id)
            return view["status"] in ("completed", "failed", "cancelled") and view

        found: dict[str, Any] = asyncio.run(eventually(over, timeout_s=40))
        return found

    def grant(self, *gates: str, name: str = "Aka", code: str | None = None) -> Said:
        return self.htdag("approvals", "grant", *gates, stdin=f"{name}\n{code or self.code()}\n")

    @property
    def deployed(self) -> bool:
        return (self.project / "deployed").exists()


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    made = Team(tmp_path_factory.mktemp("gates"))
    made.enrol()
    yield made
    assert made.htdag("down").code == 0


def error(view: dict[str, Any]) -> str:
    return str((view["error"] or {}).get("code"))


def test_a_feature_is_deployed_once_a_human_says_who_they_are(team: Team) -> None:
    team.begin("story-3", feature())
    gate = team.gate("story-3")
    waiting = team.task("story-3")
    assert (waiting["status"], waiting["approval_id"]) == ("waiting_approval", gate)
    assert [wait["kind"] for wait in team.show("story-3")["waits"]] == ["approval"]
    shown = team.htdag("approvals", "show", gate, "--json").document
    assert (shown["title"], shown["action"]["node"]) == ("deploy-feature", DEPLOY)
    assert not team.deployed
    # (b) An agent's own valid code releases nothing, and is not even looked at.
    assert team.htdag("agents", "create", "deployer").code == 0
    agents_code = team.htdag("agents", "code", "deployer").out.strip()
    refused = team.grant(gate, name="deployer", code=agents_code)
    assert (refused.code, "agent_cannot_approve" in refused.out) == (4, True)
    assert team.task("story-3")["status"] == "waiting_approval"
    granted = team.grant(gate)
    assert (granted.code, granted.out) == (0, "confirmed, this is Aka. deploy-feature released\n")
    assert team.ended("story-3")["status"] == "completed"
    assert team.deployed
    log = asyncio.run(log_of(team, "story-3"))
    assert f'"gate_id":"{gate}"' in log
    assert '"user":"aka"' in log
    assert team.htdag("runs", "replay", "story-3", "--json").document["equal"]
    assert team.code() not in log
    # (c) The same code for another gate in the same step.
    team.begin("again", [step("ok", "coder", node={"type": "approval", "title": "Really?"})])
    reused = team.grant(team.gate("again", "ok"))
    assert (reused.code, "code_reused" in reused.out) == (4, True)
    team.later()
    assert team.grant(team.gate("again", "ok")).code == 0
    assert team.ended("again")["status"] == "completed"
    result = team.htdag("runs", "result", "again", "--json").document["results"]["ok"]
    assert (result["approved_by"], sorted(result)) == ("aka", ["approved_by", "at", "step"])
    team.later()


def test_no_gate_is_opened_for_what_is_blocked(team: Team) -> None:
    """(a)"""
    team.begin("broken", feature({"type": "lua", "src": "error('the tests fail')"}))
    view = team.ended("broken")
    states = {task["id"]: task["status"] for task in view["tasks"]}
    assert (view["status"], states["review-feature"], states["deploy-feature"]) == ("failed", "blocked", "blocked")
    assert team.htdag("approvals", "list", "--all", "--run", "broken", "--json").document == []


def test_a_denied_task_fails_with_the_reason(team: Team) -> None:
    team.begin("denied", feature())
    gate = team.gate("denied")
    said = team.htdag("approvals", "deny", gate, "--reason", "not on a Friday", stdin=f"Aka\n{team.code()}\n")
    assert said.code == 0, said.out + said.err
    assert error(team.ended("denied")) == "approval_denied"
    team.later()


def test_a_changed_command_makes_the_gate_stale(team: Team) -> None:
    """(d)"""
    team.begin("changed", feature())
    gate = team.gate("changed")
    asyncio.run(asked_otherwise(team, gate))
    assert error(team.ended("changed")) == "approval_stale"


async def log_of(team: Team, run_id: str) -> str:
    async with linked(team.document["operator_url"]) as bus:
        history = bus.history(EVENTS_EXECUTOR, events("executor", "run", run_id))
        return b"\n".join([record.data async for record in history]).decode()


async def asked_otherwise(team: Team, gate: str) -> None:
    """The executor, taken over, asks for another action under the same gate."""
    url = "nats://" + team.document["operator_url"].rpartition("@")[2]
    key = nkeys.load(team.htdag.home / "keys", "executor")
    bus = Bus(await nats_client.connect(url, name="executor", key=key, inbox=inbox("executor")))
    await bus.start()
    action = {"cmd": ["rm", "-rf", "/"]}
    request = {
        "type": "approval.request.v1", "run_id": "changed", "task_id": "deploy-feature", "action": action,
        "digest": action_digest(action),
    }  # fmt: skip
    await bus.store(
        command("identity", "approval", gate, "request"), json.dumps(request).encode(), stream=COMMANDS, msg_id="evil"
    )
    await bus.close()


def test_nobody_answers_and_one_code_releases_two_gates_that_were_shown(team: Team) -> None:
    """(e)"""
    team.begin("late", feature())
    team.gate("late")
    team.later(901)
    assert error(team.ended("late")) == "approval_expired"
    team.begin("both", [step("one", "coder", node={"type": "approval"}), step("two", "admin", node=DEPLOY)])
    gates = team.gate("both", "one"), team.gate("both", "two")
    assert team.grant(*gates).code == 0
    assert team.ended("both")["status"] == "completed"
    team.later()


def test_who_waits_is_still_waiting_after_everything_was_restarted(team: Team) -> None:
    team.begin("restart", feature())
    gate = team.gate("restart")
    assert team.htdag("down").code == 0
    team.start()
    assert team.gate("restart") == gate
    assert team.task("restart")["status"] == "waiting_approval"
    assert team.grant(gate).code == 0
    assert team.ended("restart")["status"] == "completed"
    team.later()


def test_a_cancelled_run_withdraws_its_gate(team: Team) -> None:
    team.begin("cancelled", feature())
    gate = team.gate("cancelled")
    assert team.htdag("runs", "cancel", "cancelled").code == 0
    shown = ("approvals", "show", gate, "--json")
    asyncio.run(eventually(lambda: '"withdrawn"' in team.htdag(*shown).out, timeout_s=20))


def test_a_role_that_the_policy_gives_a_gate_waits_and_goes_on_once_it_is_released(team: Team) -> None:
    shipped = team.htdag("policy", "roles", "--json").document["text"]
    changed = team.folder / "roles.toml"
    changed.write_text(shipped.replace("[roles.critic]\n", "[roles.critic]\napproval = true\n"))
    assert team.htdag("policy", "put", str(changed)).code == 0
    (team.project / "notes.txt").write_text("look at me")
    look = {"type": "tool", "tool": "fs", "args": {"read": "/code/notes.txt"}}
    team.begin("by-policy", [step("look", "critic", node=look)])
    gate = team.gate("by-policy", "look")
    assert team.task("by-policy", "look")["status"] == "waiting_approval"
    assert team.grant(gate).code == 0
    assert team.ended("by-policy")["status"] == "completed"
    result = team.htdag("runs", "result", "by-policy", "--json").document["results"]["look"]
    assert result["content"] == "look at me"
    changed.write_text(shipped)
    assert team.htdag("policy", "put", str(changed)).code == 0
    team.later()


def test_a_gate_is_answered_by_those_whom_its_task_names(team: Team) -> None:
    team.begin("named", [{**step("ok", "coder", node={"type": "approval"}), "approvers": ["Eve"]}])
    refused = team.grant(team.gate("named", "ok"))
    assert (refused.code, "not_an_approver" in refused.out) == (4, True)
    assert team.task("named", "ok")["status"] == "waiting_approval"
    team.later()
    team.begin("mine", [{**step("ok", "coder", node={"type": "approval"}), "approvers": ["AKA"]}])
    assert team.grant(team.gate("mine", "ok")).code == 0
    assert team.ended("mine")["status"] == "completed"
    team.later()
    assert team.htdag("runs", "cancel", "named").code == 0
