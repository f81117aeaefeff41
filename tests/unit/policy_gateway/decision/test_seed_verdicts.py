"""The literal verdicts of the seeds: what each role can do and cannot do, with the seeds' own data."""

from typing import Any

import pytest

from services.policy_gateway.decision.decide import decide
from services.policy_gateway.decision.plans import (
    DockerPlan,
    FetchPlan,
    GitPlan,
    LuaPlan,
    Mount,
    Place,
    ReadPlan,
    ShellPlan,
    WritePlan,
)
from services.policy_gateway.decision.verdict import Allow
from tests.unit.policy_gateway.decision.verdicts import ROLES, allowed, denied

CODE = Place("code", ())
FEATURE = 'defmodule Feature do\n  def hello, do: "world"\nend\n'
CODER_LUA = """
function main(code)
  if string.find(code, "MARK") then
    return {quality: "poor", reason: "Contains MARKs"}
  end
  return {quality: "good"}
end
""".replace("MARK", "TO" + "DO")
WORK = {"host": "/code", "cont": "/work", "ro": True}


def cmd(*words: str) -> dict[str, Any]:
    return {"cmd": list(words)}


@pytest.mark.parametrize(
    ("role", "tool", "args", "opts", "plan"),
    [
        ("coder", "fs", {"write": "/code/lib/feature.ex", "content": FEATURE}, {}, WritePlan),  # G01
        ("coder", "fs", {"read": "/code/lib/feature.ex"}, {}, ReadPlan),  # G02
        ("coder", "shell", cmd("mix", "format"), {}, ShellPlan),  # G03
        ("coder", "shell", cmd("mix", "compile"), {}, ShellPlan),
        ("coder", "git", cmd("add", "."), {}, GitPlan),  # G04
        ("coder", "git", cmd("commit", "-m", "Add feature"), {}, GitPlan),
        ("coder", "git", cmd("status"), {}, GitPlan),
        ("coder", "git", cmd("diff"), {}, GitPlan),
        ("coder", "git", cmd("log"), {}, GitPlan),
        (
            "coder",
            "lua",
            {"src": CODER_LUA, "argv": ["# MARK"]},
            {},
            LuaPlan,
        ),  # G05: whether it compiles is Lua's to say
        ("tester", "shell", cmd("mix", "test"), {}, ShellPlan),  # G18
        ("tester", "shell", cmd("cargo", "test"), {}, ShellPlan),
        ("critic", "fs", {"read": "/code/lib/auth.ex"}, {}, ReadPlan),  # G21
        ("critic", "lua", {"src": CODER_LUA, "argv": ["x"]}, {"timeout": 10_000}, LuaPlan),
        ("researcher", "http", {"url": "https://hexdocs.pm/phoenix/Phoenix.html"}, {}, FetchPlan),  # G26
        ("researcher", "http", {"url": "https://docs.rs/tokio/latest/tokio/"}, {}, FetchPlan),
        ("researcher", "http", {"url": "https://github.com/elixir-lang/elixir/blob/main/README.md"}, {}, FetchPlan),
        ("researcher", "fs", {"read": "/code/lib/auth.ex"}, {}, ReadPlan),
        ("admin", "git", cmd("push", "--force", "origin", "main"), {}, GitPlan),  # G30
        ("admin", "fs", {"write": "/deploy/config.yaml", "content": "production: true"}, {}, WritePlan),
        ("admin", "shell", cmd("kubectl", "apply", "-f", "deployment.yaml"), {}, ShellPlan),
        (
            "admin",
            "http",
            {"url": "https://api.stripe.com/v1/charges", "headers": {"Authorization": "x"}},
            {},
            FetchPlan,
        ),
        ("admin", "docker", {"image": "production:latest", "cmd": ["deploy.sh"]}, {}, DockerPlan),
        ("admin", "shell", cmd("./long-running-migration.sh"), {"timeout": 7_200_000}, ShellPlan),
    ],
)
def test_allows_what_the_seed_allows(role: str, tool: str, args: Any, opts: Any, plan: type) -> None:
    assert isinstance(allowed(role, tool, args, opts), plan)


def test_a_written_file_is_planned_to_the_byte() -> None:
    plan = allowed("coder", "fs", {"write": "/code/lib/feature.ex", "content": FEATURE})
    assert plan == WritePlan(Place("code", ("lib", "feature.ex")), FEATURE.encode())
    assert plan == allowed("coder", "fs", {"write": "/code/lib/feature.ex", "data": FEATURE})  # C21


def test_a_testers_container_is_planned_with_its_limits() -> None:  # G17, C16
    args = {"image": "hexpm/elixir:1.18", "cmd": ["mix", "test"], "mounts": [WORK], "working_dir": "/work"}
    expected = DockerPlan(
        "hexpm/elixir:1.18", ("mix", "test"), "/work", (Mount(CODE, "/work", True),), 2.0, 2 * 1024**3
    )
    in_opts = {"cpu": 2, "mem": "2g", "timeout": 600_000}
    assert allowed("tester", "docker", args, in_opts) == expected
    assert allowed("tester", "docker", args | {"cpu": 2, "mem": "2g"}, {"timeout": 600_000, "net": "deny"}) == expected
    assert allowed("tester", "docker", args | {"cpu": 2, "mem": "2g"}, in_opts) == expected
    code, detail = denied("tester", "docker", args | {"cpu": 4}, in_opts)
    assert (code, detail["field"], detail["args"], detail["opts"]) == ("bad_args", "cpu", 4.0, 2.0)


def test_shell_characters_are_plain_data() -> None:  # G48
    plan = allowed("coder", "shell", cmd("mix", "format; rm"))
    assert plan == ShellPlan("mix", ("mix", "format; rm"), CODE, "coder")


def test_git_through_the_shell_goes_to_the_git_rules() -> None:  # G53, C11
    assert allowed("coder", "shell", cmd("git", "status")) == GitPlan(("status",), CODE, False, "git")
    code, detail = denied("coder", "shell", cmd("git", "push", "--force"))
    assert (code, detail["matched"]) == ("dangerous_git_operation", "push --force")
    assert denied("tester", "shell", cmd("git", "status"))[0] == "forbidden_command"


@pytest.mark.parametrize(
    ("argv", "matched"),
    [
        (["push", "-f"], "push -f"),
        (["push", "--force-with-lease"], "push --force-with-lease"),
        (["push", "origin", "+main"], "push +main"),
        (["-c", "alias.p=push --force", "p"], "-c"),
        (["reflog", "expire", "--all"], "reflog expire"),
        (["gc", "--prune=now"], "gc --prune=now"),
        (["stash", "drop"], "stash drop"),
        (["commit", "--amend"], "commit --amend"),
        (["checkout", "--", "lib/a.ex"], "checkout -- lib/a.ex"),
    ],
)
def test_a_refusal_of_git_names_the_words_in_the_way(argv: list[str], matched: str) -> None:  # G53, C8
    assert denied("coder", "git", {"cmd": argv})[1]["matched"] == matched


@pytest.mark.parametrize(
    ("alias", "role"),
    [
        ("project_manager", "architect"),
        ("architecture_analyst", "architect"),
        ("code_developer", "coder"),
        ("quality_engineer", "tester"),
        ("security_analyst", "critic"),
    ],
)
def test_an_alias_has_the_rights_of_its_role(alias: str, role: str) -> None:  # C18
    for tool in ("git", "fs", "shell", "http", "docker", "lua"):
        for args in ({"read": "/code/x"}, {"cmd": ["mix", "test"]}, {"src": "return 1"}, {}):
            assert decide(ROLES, alias, tool, args, None) == decide(ROLES, role, tool, args, None)


def test_the_architect_reads_and_computes() -> None:  # C18
    assert allowed("architect", "fs", {"read": "/code/README.md"})
    verdict = decide(ROLES, "architect", "lua", {"src": "return 1"}, None)
    assert isinstance(verdict, Allow)
    assert verdict.timeout_ms == 30_000  # its role has a minute, a script half of it (C58)
    assert denied("architect", "fs", {"write": "/code/x", "content": ""})[0] == "write_access_denied"
