"""One supervised child: restarted, given up, stopped; nothing of it is left."""

import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.errors import Rejected
from services.console.processes import alive
from services.console.supervision import child as supervised
from services.console.supervision.child import Child, ChildSpec, _die_with_parent
from tests.support.eventually import eventually

FOREVER = "import signal; signal.pause()"


@pytest.fixture
def spawn(tmp_path, monkeypatch):
    import asyncio

    tasks = []
    monkeypatch.setattr(supervised, "BACKOFF_FIRST_S", 0.01)

    def start(code: str, grace_s: float = 5.0) -> Child:
        spec = ChildSpec("child", (sys.executable, "-c", code), dict(os.environ), tmp_path / "child.log", grace_s)
        child = Child(spec, lambda: None)
        tasks.append(asyncio.create_task(child.run()))
        child.task = tasks[-1]  # type: ignore[attr-defined]
        return child

    yield start
    for task in tasks:
        task.cancel()


async def test_a_killed_child_comes_back(spawn):
    child = spawn(FOREVER)
    await eventually(lambda: child.process)
    first = child.process
    os.kill(first.pid, signal.SIGKILL)
    await eventually(lambda: child.process != first and child.state == "starting")
    assert child.restarts == 1
    await child.stop()
    await child.task
    assert child.state == "stopped"
    assert not alive(child.process)


async def test_a_child_that_is_killed_again_and_again_comes_back_each_time(spawn, monkeypatch):
    monkeypatch.setattr(supervised, "BACKOFF_MAX_S", 0.01)
    child = spawn(FOREVER)
    for _ in range(supervised.RESTARTS_MAX + 1):
        first = await eventually(lambda: child.process if child.state == "starting" else None)
        os.kill(first.pid, signal.SIGKILL)
        await eventually(lambda killed=first: child.process != killed and child.state == "starting")
    await child.stop()
    await child.task
    assert child.state == "stopped"


async def test_a_child_that_keeps_dying_is_given_up_with_its_last_words(spawn):
    child = spawn("print('no luck'); raise SystemExit(1)")
    await child.task
    assert child.state == "failed"
    assert child.restarts == supervised.RESTARTS_MAX - 1
    assert "no luck" in child.last_words()


async def test_wrong_configuration_is_not_tried_again(spawn):
    child = spawn("raise SystemExit(78)")
    await child.task
    assert (child.state, child.restarts) == ("failed", 0)


async def test_a_child_that_ignores_term_is_killed_with_what_it_started(spawn, tmp_path):
    pids = tmp_path / "pids"
    child = spawn(
        "import os, signal, subprocess, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"inner = subprocess.Popen([sys.executable, '-c', {FOREVER!r}])\n"
        f"open({str(pids)!r}, 'w').write(str(inner.pid))\n"
        "signal.pause(); signal.pause()",
        grace_s=0.2,
    )
    await eventually(lambda: pids.exists() and pids.read_text())
    inner = int(pids.read_text())
    await child.stop()
    assert not alive(child.process)
    await eventually(lambda: not _runs(inner))


async def test_a_program_that_is_not_there_is_said(tmp_path):
    child = Child(ChildSpec("x", (str(tmp_path / "none"),), {}, tmp_path / "x.log"), lambda: None)
    with pytest.raises(Rejected) as refused:
        await child.run()
    assert refused.value.code == "missing_dependency"


def test_a_big_log_is_moved_aside(tmp_path, monkeypatch):
    monkeypatch.setattr(supervised, "_LOG_BYTES_MAX", 3)
    log = tmp_path / "a.log"
    log.write_text("long")
    supervised.open_log(log).close()
    assert (tmp_path / "a.log.1").read_text() == "long"
    assert log.read_text() == ""


def _runs(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_a_child_whose_parent_died_before_it_could_say_so_does_not_begin(tmp_path):
    began = tmp_path / "began"
    stranger = functools.partial(_die_with_parent, os.getpid() + 1)
    for parent, code in ((stranger, 128 + signal.SIGTERM), (functools.partial(_die_with_parent, os.getpid()), 0)):
        assert not began.exists()
        assert subprocess.run(["touch", str(began)], preexec_fn=parent, check=False).returncode == code
    assert began.exists()
