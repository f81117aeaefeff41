"""The checks around the tools: deadlines, roles bound to tasks, their order, approval, profiles."""

from typing import Any

import pytest

from services.policy_gateway.decision.decide import decide
from services.policy_gateway.decision.facts import Facts
from services.policy_gateway.decision.plans import GitPlan, Place, ShellPlan
from services.policy_gateway.decision.verdict import Allow, Deny
from tests.unit.policy_gateway.decision.verdicts import ROLES, allowed, denied

CODE = Place("code", ())


def cmd(*words: str) -> dict[str, Any]:
    return {"cmd": list(words)}


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
    assert denied("coder", "fs", {}, {"timeout": 10**30})[1] == {"max": 300_000, "requested": "1" + "0" * 30}
    assert denied("coder", "fs", {}, {"timeout": 10**5000})[1] == {
        "max": 300_000,
        "requested": "an integer beyond 10^40",
    }
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


def test_git_of_an_admin_is_git_whatever_the_tool() -> None:
    forced = GitPlan(("push", "-f"), CODE, True, "admin")
    assert allowed("admin", "git", cmd("push", "-f")) == forced
    assert allowed("admin", "shell", cmd("git", "push", "-f")) == forced
    assert allowed("admin", "shell", cmd("git")) == ShellPlan("git", ("git",), CODE, "admin")
    assert allowed("admin", "shell", {"cmd": ["git", "push", "-f"], "cwd": "/srv/app"}) == forced._replace(
        cwd=Place("host", ("srv", "app"))
    )


def test_wrong_words_of_a_checkout_never_reach_files() -> None:
    assert allowed("coder", "git", cmd("checkout", "README.md")) == GitPlan(
        ("checkout", "README.md", "--"), CODE, True, "git"
    )
    assert allowed("coder", "git", cmd("reset", "HEAD", "main")) == GitPlan(
        ("reset", "HEAD", "--", "main"), CODE, False, "git"
    )
    assert not isinstance(decide(ROLES, "coder", "git", cmd("add", "."), None), Deny)
