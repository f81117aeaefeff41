"""Ctrl-C and TERM while a command is still being imported: silent, and the exit code of a signal."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.instance import environment

HTDAG = str(Path(sys.executable).with_name("htdag"))
MOMENTS = ["contracts.errors", "cyclopts.core", "services.console.connection", "nats.errors"]
"""Modules that a command imports, from the first to the last."""


def interrupted(after: str, number: signal.Signals, home: Path) -> tuple[int, list[str]]:
    """Send a signal when a module was imported; exit code, and what was said beside the list of imports."""
    # Nothing listens at this broker's port: a command that goes on says so, and ends with another code.
    env = environment(HTDAG_HOME=str(home), NATS_URL="nats://127.0.0.1:1")
    command = [sys.executable, "-X", "importtime", HTDAG, "bus", "tail", "x"]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.rpartition("|")[2].strip() == after:
                break
        process.send_signal(number)
        said = [line for line in process.stderr if not line.startswith("import time:")]
    return process.returncode, said


@pytest.mark.parametrize("after", MOMENTS)
def test_ctrl_c_is_silent_and_130(after: str, tmp_path: Path):
    assert interrupted(after, signal.SIGINT, tmp_path) == (130, [])


@pytest.mark.parametrize("after", MOMENTS)
def test_term_is_silent_and_143_in_a_shell(after: str, tmp_path: Path):
    assert interrupted(after, signal.SIGTERM, tmp_path) == (-signal.SIGTERM, [])
