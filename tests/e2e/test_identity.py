"""The life of an identity as people live it: `htdag up` with a clock of the test, the console script, and HTTP."""

import asyncio
import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyotp
import pytest

from contracts.rights import inbox
from contracts.streams import COMMANDS
from contracts.subjects import command
from services.runtime import nats_client, nkeys
from services.runtime.bus import Bus
from tests.e2e.instance import HTDAG, Instance, Said
from tests.support.eventually import eventually

PASSWORD = "correct horse battery staple"


class Life:
    """One instance with an identity only, and the time as its test says."""

    def __init__(self, folder: Path) -> None:
        self.clock = folder / "clock"
        self.set_clock(1_790_000_000)
        self.instance = Instance(folder / "home", HTDAG_IDENTITY__OWNER="Aka")
        self.document = self.instance.up("--only", "identity", "--test-clock", str(self.clock))
        self.url = self.document["services"]["identity"]["auth_url"]
        self.secret = ""

    def set_clock(self, at_s: int) -> None:
        self.now_s = at_s
        self.clock.write_text(f"{at_s}\n")

    def later(self, by_s: int) -> None:
        self.set_clock(self.now_s + by_s)

    def code(self, steps: int = 0) -> str:
        return pyotp.TOTP(self.secret).at(self.now_s + 30 * steps)

    def post(self, path: str, body: Any = None, bearer: str = "", **headers: str) -> tuple[int, dict[str, Any]]:
        data = None if body is None else json.dumps(body).encode()
        given = {"Authorization": f"Bearer {bearer}", **headers} if bearer else headers
        request = urllib.request.Request(self.url + path, data=data, headers=given, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def enrol(self) -> None:
        link = self.document["services"]["identity"]["set_up_links"]["aka"]
        body = {"user": "aka", "token": link.rpartition("#")[2], "password": PASSWORD}
        bearer = self.post("/auth/password/", body)[1]["session"]
        self.secret = self.post("/auth/mfa/setup/", bearer=bearer)[1]["secret"]
        assert self.post("/auth/mfa/verify/", {"code": self.code()}, bearer) == (200, {"mfa_enabled": True})
        self.later(90)

    async def ask_for(self, gate: str, request: dict[str, Any]) -> None:
        """What an executor does."""
        # Nobody but the executor may ask for a gate, the operator neither.
        url = "nats://" + self.document["operator_url"].rpartition("@")[2]
        key = nkeys.load(self.instance.home / "keys", "executor")
        bus = Bus(await nats_client.connect(url, name="executor", key=key, inbox=inbox("executor")))
        await bus.start()
        subject = command("identity", "approval", gate, "request")
        await bus.store(subject, json.dumps(request).encode(), stream=COMMANDS, msg_id=gate)
        await bus.close()

    def converse(self, *lines: str) -> Said:
        return self.instance("users", "converse", "--json", stdin="\n".join(lines) + "\n")


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    made = Life(tmp_path)
    yield made
    made.instance("down")


@pytest.mark.timeout(180)
def test_the_life_of_an_identity(life: Life):
    life.enrol()
    assert "SET-UP LINK" in life.instance("users", "list").out
    said = life.converse("Aka", life.code(-1))
    assert (said.code, said.document["say"]) == (0, "confirmed, this is Aka")
    assert said.err == "Who are you?  > Enter your code.  > "
    assert life.converse("Aka", life.code(-1)).document["code"] == "code_reused"
    assert life.converse("Aka", life.code(1)).document["code"] == "invalid_code"
    life.later(60)
    tries = [life.instance("users", "try", "aka", "000000", "--json") for _ in range(6)]
    assert [one.document["code"] for one in tries] == ["invalid_code"] * 5 + ["rate_limited"]
    assert [one.code for one in tries] == [4] * 5 + [75]
    life.later(60)
    for _ in range(3):
        life.instance("users", "try", "aka", "000000")
    locked = life.instance("users", "try", "aka", life.code(), "--json")
    assert (locked.code, locked.document["code"], locked.document["retry_after"]) == (4, "locked", 900)
    assert "locked until" in life.instance("users", "status", "aka").out
    assert life.instance("users", "unlock", "aka", stdin="wrong\n").code == 4
    assert life.instance("users", "unlock", "aka", stdin=f"{PASSWORD}\n").code == 0
    life.later(60)
    assert life.instance("users", "try", "aka", life.code()).code == 0
    assert life.instance("users", "rotate").code == 0
    assert life.instance("users", "rotate", "--drop-old").out == "1 old keys are dropped\n"
    life.later(60)
    assert life.instance("users", "try", "aka", life.code()).code == 0
    life.later(60)
    changed = life.instance("users", "passwd", "aka", stdin=f"{PASSWORD}\nanother horse\n{life.code()}\n")
    assert (changed.code, changed.out) == (0, "the password of aka is changed\n"), changed.err
    assert life.post("/auth/session/", {"user": "aka", "password": PASSWORD})[0] == 403
    life.later(60)
    back = life.instance("users", "passwd", "aka", stdin=f"another horse\n{PASSWORD}\n{life.code()}\n")
    assert back.code == 0, back.err
    assert life.post("/auth/mfa/reset/", {"password": PASSWORD}, **{"X-Forwarded-For": "127.0.0.1"})[0] == 403
    assert life.post("/auth/mfa/reset/", {})[0] == 403
    assert life.post("/auth/mfa/reset/", {"password": PASSWORD})[0] == 200
    assert json.loads(life.instance("users", "status", "aka", "--json").out)["mfa_enabled"] is False


@pytest.mark.timeout(180)
def test_a_killed_broker_takes_no_conversation_with_it(life: Life):
    life.enrol()
    os.kill(life.instance("ps", "--json").document["broker"]["pid"], signal.SIGKILL)

    def confirmed() -> bool:
        return life.converse("Aka", life.code(-1)).document.get("say") == "confirmed, this is Aka"

    asyncio.run(eventually(confirmed, timeout_s=20))
    assert life.instance("bus", "apply", "--diff").code == 0


@pytest.mark.timeout(180)
def test_agents_and_gates_from_the_shell(life: Life):
    life.enrol()
    for name in ("planner-1", "worker-2"):
        assert life.instance("agents", "create", name).code == 0
    code = life.instance("agents", "code", "planner-1").out.strip()
    assert life.instance("agents", "code", "planner-1", "--user", "aka").code == 4
    verify = ("agents", "verify", "planner-1", code, "--by", "worker-2")
    assert life.instance(*verify).out == "verified planner-1 kind=agent\n"
    assert "code_reused" in life.instance(*verify).err
    request = {
        "type": "approval.request.v1", "run_id": "r1", "task_id": "deploy-feature", "title": "deploy-feature",
        "action": {"cmd": ["deploy.sh"]},
        "digest": "b9828f36474acdfa8cedd5afce06cbbe15d8f2ac1197c438a9e7fa5c11d7ccc8",
    }  # fmt: skip
    for gate in ("apr-7", "apr-8"):
        asyncio.run(life.ask_for(gate, request))
    listed = asyncio.run(eventually(lambda: "apr-8" in (out := life.instance("approvals", "list").out) and out))
    assert "apr-7  open    r1   deploy-feature  b9828f36474a" in listed
    assert '{"cmd":["deploy.sh"]}' in listed
    refused = life.instance("approvals", "grant", "apr-7", stdin=f"planner-1\n{code}\n")
    assert (refused.code, "agent_cannot_approve" in refused.out) == (4, True)
    granted = life.instance("approvals", "grant", "apr-7", stdin=f"Aka\n{life.code()}\n")
    assert (granted.code, granted.out) == (0, "confirmed, this is Aka. deploy-feature released\n")
    before, _, _ = granted.err.partition("Who are you?")
    assert '"cmd": [\n        "deploy.sh"\n      ]' in before, "shown in full before anything is asked"
    assert request["digest"] in before
    again = life.instance("approvals", "grant", "apr-8", stdin=f"Aka\n{life.code()}\n")
    assert (again.code, "code_reused" in again.out) == (4, True)
    shown = json.loads(life.instance("approvals", "show", "apr-7", "--json").out)
    assert (shown["status"], shown["user"], shown["signature_ok"]) == ("granted", "aka", True)
    life.later(901)
    asyncio.run(eventually(lambda: '"expired"' in life.instance("approvals", "show", "apr-8", "--json").out))


def test_a_test_clock_is_refused_beyond_loopback(tmp_path: Path):
    clock = tmp_path / "clock"
    clock.write_text("1790000000")
    instance = Instance(tmp_path / "home", HTDAG_CORE__HTTP_HOST="0.0.0.0")
    said = instance("up", "-d", "--json", "--port", "0", "--only", "identity", "--test-clock", str(clock))
    assert said.code == 78
    assert "beyond loopback" in said.err
    clock.write_text("noon")
    said = Instance(tmp_path / "home")("up", "-d", "--port", "0", "--test-clock", str(clock))
    assert (said.code, "no epoch seconds" in said.err) == (78, True)


def test_an_account_is_set_up_from_the_shell(life: Life):
    process = subprocess.Popen(
        [HTDAG, "users", "setup", "aka", "--json"], env=life.instance.env, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    process.stdin.write(f"{PASSWORD}\n")
    process.stdin.flush()
    line = next(line for line in process.stderr if line.startswith("secret: "))
    life.secret = line.removeprefix("secret: ").strip()
    out, err = process.communicate(f"{life.code()}\n", timeout=30)
    assert (process.returncode, json.loads(out)) == (0, {"mfa_enabled": True}), err
    assert "set-up" not in json.dumps(life.instance("ps", "--json").document["services"]["identity"]["set_up_links"])
    assert life.instance("users", "setup", "aka", stdin=f"{PASSWORD}\n").code == 5, "it is on already"
    life.later(60)
    said = life.instance("users", "disable", "aka", stdin=f"{life.code()}\n")
    assert (said.code, said.out) == (0, "proof is off for aka\n")


def refusals_say(instance: Instance, *words: str) -> None:
    """`up` fails and says so; one that looks just when the service is started once more sees its first line only."""
    for _ in range(3):
        said = instance("up", "-d", "--port", "0", "--only", "identity")
        assert said.code != 0, said
        if all(word in said.err for word in words):
            return
    pytest.fail(said.err)


@pytest.mark.timeout(180)
def test_the_terminal_says_why_an_identity_does_not_start(tmp_path: Path):
    instance = Instance(tmp_path / "home", HTDAG_IDENTITY__OWNER="Aka")
    instance.up("--only", "identity")
    assert instance("down").code == 0
    keys = instance.home / "keys" / "identity"
    keys.chmod(0o644)
    refusals_say(instance, "open to others", "chmod 600")
    keys.unlink()
    refusals_say(instance, "key file of identity is lost")
    doctor = {one["name"]: one for one in instance("doctor", "--json").document["checks"]}
    assert doctor["identity keys"]["status"] == "fail"


def test_admins_without_a_human_are_said_loudly(tmp_path: Path):
    loose = Instance(tmp_path / "home", HTDAG_EXECUTOR__AUTO_ADMIN="true", HTDAG_POLICY__AUTO_ADMIN="true")
    said = loose("up", "-d", "--port", "0", "--only", "executor,policy-gateway")
    assert said.code == 0, said.err
    assert [line for line in said.err.splitlines() if "AUTO ADMIN" in line] == [
        "AUTO ADMIN: tools of admin tasks work without a human (policy.auto_admin).",
        "AUTO ADMIN: admin tasks start without a human (executor.auto_admin).",
    ]
    assert loose("down").code == 0
