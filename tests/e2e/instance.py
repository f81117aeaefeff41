"""A whole instance under `htdag up -d`, spoken to as people do: by the console script."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.service_process import LIMITS_LIFTED

HTDAG = str(Path(sys.executable).with_name("htdag"))
COMMAND_S = 90.0


class Said(NamedTuple):
    """What one command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The JSON documents on stdout, one per line."""
        return [json.loads(line) for line in self.out.splitlines()]


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without what would point to another broker or home."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("NATS_", "HTDAG_"))}
    return {**inherited, "NO_COLOR": "1", "HTDAG_LLM_WORKER__LIMITS": LIMITS_LIFTED, **extra}


class Instance:
    """One home, and the console script working on it."""

    def __init__(self, home: Path, **env: str) -> None:
        self.home, self.url = home, ""
        self.env = environment(HTDAG_HOME=str(home), **env)

    def __call__(self, *words: str, stdin: str | None = None, timeout_s: float = COMMAND_S) -> Said:
        """Run one command to its end."""
        done = subprocess.run(
            [HTDAG, *words], env=self.env, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Start one command; it leads its own group, as in a terminal."""
        return subprocess.Popen(
            [HTDAG, *words],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def up(self, *words: str) -> dict[str, Any]:
        """`htdag up -d --json` on a free port."""
        said = self("up", "-d", "--json", "--port", "0", *words)
        assert said.code == 0, said.err
        document: dict[str, Any] = said.document
        self.url = str(document["operator_url"])
        return document

    def refusals(self) -> list[str]:
        """What the broker of this home refused to somebody for want of rights."""
        log = self.home / "logs" / "nats.log"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
        return [line for line in lines if "Violation" in line]

    def pids(self) -> list[int]:
        """Every process of the instance: supervisor first, broker last."""
        said = self("ps", "--pids")
        assert said.code == 0, said.err
        return [int(line) for line in said.out.split()]


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return "State:\tZ" not in status
