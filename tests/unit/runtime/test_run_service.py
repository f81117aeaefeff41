"""A whole service process: what holds only where the process is ours alone."""

import os
import subprocess
import sys
from pathlib import Path

from services.runtime.app import GARBAGE_THRESHOLDS
from tests.support.nats_server import NatsServer

PROGRAM = """
import asyncio, gc
from pathlib import Path
from services.runtime.app import App, run_service
from services.runtime.config import Config
from services.runtime.lifecycle import Phase

async def build(app: App) -> None:
    async def look() -> None:
        while app.life.phase is not Phase.READY:
            await asyncio.sleep(0)
        print(gc.get_threshold(), gc.get_freeze_count() > 0, type(asyncio.get_running_loop()).__module__)
        app.life.stop("seen")
        await asyncio.Event().wait()
    app.spawn(look(), "look")

raise SystemExit(run_service("executor", build, config=Config.load(cwd=Path("."))))
"""


def test_a_ready_service_collects_garbage_rarely_and_runs_on_uvloop(nats_server: NatsServer, tmp_path: Path):
    world = {
        **os.environ,
        "PYTHONPATH": os.getcwd(),
        "HTDAG_HOME": str(tmp_path / "home"),
        "HTDAG_CORE__HTTP_PORT": "0",
        "NATS_URL": nats_server.url,
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=world,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{GARBAGE_THRESHOLDS} True uvloop\n"
