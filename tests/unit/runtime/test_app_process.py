"""A service in a process of its own: signals, what it says, what it weighs."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.support.eventually import eventually

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys
from services.runtime.app import run_service
from services.runtime.config import Config
async def build(app):
    async def get(request, caller): return {"run_id": request.run_id}
    app.handle("run", "get", get)
sys.exit(run_service("executor", build, config=Config.load()))
"""


@pytest.fixture
def process(nats_server, tmp_path):
    """A real service process, ready; and its run file."""
    home = tmp_path / "home"
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "HTDAG_HOME": str(home), "HTDAG_CORE__HTTP_PORT": "0",
           "NATS_URL": nats_server.url, "PYTHONPATH": str(ROOT)}  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as child:
        yield child, home / "run"
        with contextlib.suppress(ProcessLookupError):
            child.kill()


async def told(run: Path) -> dict[str, Any]:
    def ready() -> dict[str, Any] | None:
        for path in run.glob("*.json") if run.exists() else ():
            file: dict[str, Any] = json.loads(path.read_text())
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{file['http']}/readyz", timeout=2),
            ):
                return file
        return None

    return await eventually(ready, timeout_s=20)


async def test_a_process_ends_with_0_at_sigterm_and_says_nothing_but_json(process):
    child, run = process
    file = await told(run)
    assert file["pid"] == child.pid
    child.send_signal(signal.SIGTERM)
    _, err = await asyncio.to_thread(child.communicate, timeout=10)
    assert child.returncode == 0
    events = [json.loads(line)["msg"] for line in err.splitlines()]
    assert events == ["health", "streams_applied", "ready", "stop_asked", "stopped"]
    assert list(run.iterdir()) == []


async def test_an_idle_process_is_small(process):
    child, run = process
    await told(run)
    status = Path(f"/proc/{child.pid}/status").read_text()
    resident_kb = int(status.split("VmRSS:")[1].split()[0])
    assert resident_kb < 80_000, f"{resident_kb} kB; the whole service may take 120 MB"
