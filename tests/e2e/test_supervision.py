"""What supervisord keeps alive comes back for ever, and `up -d` starts again whatever stands still."""

import asyncio
import os
import signal
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path
from urllib.request import urlopen

import pytest

from services.console.home import Home
from services.console.serve import SERVICES
from services.console.supervision.background import Supervisor, configuration
from services.console.supervision.scale import SCALABLE
from tests.e2e.instance import Instance
from tests.support.eventually import eventually
from tests.support.nats_server import free_port

pytestmark = pytest.mark.timeout(180)

CHAOS = Path(__file__).parents[2] / "scripts" / "chaos"
GIVING_UP_BEFORE = 6
"""supervisord gave up after five quick deaths in a row."""


@pytest.fixture
def instance(tmp_path):
    made = Instance(tmp_path / "home")
    yield made
    if (made.home / "instance.json").exists():
        made("down")


def test_supervisord_never_gives_a_program_up():
    conf = RawConfigParser(inline_comment_prefixes=None)
    conf.read(configuration())
    programs = [conf[section] for section in conf.sections() if section.startswith("program:")]
    # and the broker, more copies of three services, and who keeps their number
    assert len(programs) == len(SERVICES) + 2 + len(SCALABLE)
    # Its back-off grows by a second with each try: so many tries take longer than any machine lives.
    assert all(program.getint("startretries") >= 1_000_000 for program in programs)
    # A program that ends by itself at once must meet the back-off, or it would eat a processor.
    assert all(program.getint("startsecs") >= 1 for program in programs)


@pytest.fixture
def hiding_nothing():
    """A shell in which every file that is made is everybody's to write."""
    before = os.umask(0)
    yield
    os.umask(before)


def for_others(home: Path) -> list[str]:
    """What anybody but the user could read or write in a home, were it not for its own folder."""
    return [str(path) for path in home.rglob("*") if path.stat().st_mode & 0o077]


def test_under_supervisord_all_files_are_the_users_alone(instance, hiding_nothing):
    instance.up("--only", "planner")
    assert (instance.home / "logs" / "supervisord.log").exists()
    assert for_others(instance.home) == []


async def test_in_the_foreground_all_files_are_the_users_alone(instance, hiding_nothing):
    with instance.start("up", "--port", "0", "--only", "planner") as process:
        await eventually(lambda: instance("ps").code == 0, timeout_s=40, interval_s=0.5)
        found = for_others(instance.home)
        process.terminate()
        process.communicate(timeout=60)
    assert found == []


async def test_a_service_that_is_killed_at_each_start_comes_back(instance):
    instance.up("--only", "executor")
    supervisor = Supervisor(Home(instance.home))
    last = 0

    async def appears() -> int:
        pid = (await supervisor.processes())["executor"]["pid"]
        return int(pid) if pid != last else 0

    for _ in range(GIVING_UP_BEFORE):
        last = await eventually(appears, timeout_s=20)
        os.kill(last, signal.SIGKILL)
    await eventually(lambda: instance("ps").code == 0, timeout_s=40, interval_s=0.5)


async def test_up_starts_again_what_stands_still(instance):
    document = instance.up("--only", "planner,executor")
    supervisor = Supervisor(Home(instance.home))
    await supervisor.call("supervisor.stopProcess", "planner")
    assert instance("ps").code == 3
    again = instance.up("--only", "planner,executor")
    assert again["services"]["planner"]["state"] == "ready"
    assert again["services"]["executor"]["pid"] == document["services"]["executor"]["pid"]
    # What was left out the first time joins when it is asked for.
    assert set(instance.up("--only", "llm-worker")["services"]) == {"planner", "executor", "llm-worker"}
    said = instance("up", "-d", "--only", "planner")
    assert (said.code, "already_running" in said.err) == (5, True)


async def test_doctor_says_why_a_service_stands_still_and_its_advice_helps(instance):
    instance.up("--only", "planner,executor")
    await Supervisor(Home(instance.home)).call("supervisor.stopProcess", "planner")
    said = await asyncio.to_thread(instance, "doctor", "--json")
    finding = next(check for check in said.document["checks"] if check["name"] == "planner")
    assert (said.code, finding["status"]) == (1, "fail")
    assert "stopped" in finding["message"]
    assert "`htdag up -d`" in finding["mend"]


async def test_what_was_left_out_is_absent_and_no_failure(instance):
    instance.up("--only", "planner,executor")
    shown = instance("ps")
    assert (shown.code, "llm-worker absent: no model answers" in shown.out) == (0, True)
    entry = instance("ps", "--json").document["services"]["llm-worker"]
    assert (entry["state"], entry["pid"], "llm_unavailable" in entry["without"]) == ("absent", None, True)
    said = await asyncio.to_thread(instance, "doctor", "--json")
    finding = next(check for check in said.document["checks"] if check["name"] == "llm-worker")
    assert (said.code, finding["status"], "no model answers" in finding["message"]) == (0, "warn", True)


async def test_small_words_of_a_running_and_of_a_stopped_instance(instance):
    instance.up("--only", "planner,executor")
    one = instance.home.parent / "one.json"
    one.write_text('{"id":"task-1","node":{"type":"lua","src":"error(1)"},"max_attempts":1}')
    assert instance("tasks", "enqueue", str(one), "--json").document == "task-1"
    await eventually(lambda: instance("tasks", "status", "task-1").out.strip() == "failed", timeout_s=20)
    assert "htdag runs resume epic-default" in instance("tasks", "result", "task-1").err
    assert "there is no file nofile.lua" in instance("strategies", "put", "nofile.lua", "--name", "x").err
    assert instance("down").code == 0
    # Whoever listens on 4222, or on the port of before, is not meant.
    for words in (("runs", "list"), ("runs", "list", "--home", str(instance.home))):
        said = instance(*words)
        assert (said.code, "not_running" in said.err) == (3, True)


def test_chaos_says_in_its_line_what_could_not_be_carried_out(tmp_path):
    words = [sys.executable, str(CHAOS), "--seed", "3", "--runs", "1", "--kills", "0", "--deadline", "0"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode == 1
    assert '"broken": ["chaos-3-0: ' in done.stdout


async def test_several_of_a_kind_share_a_machine(tmp_path, nats_server):
    instance, port = Instance(tmp_path / "home", NATS_URL=nats_server.url), free_port()

    def ready(at: int) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{at}/readyz", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    first = instance.start("serve", "executor", "--http-port", str(port))
    try:
        await eventually(lambda: ready(port), timeout_s=30, interval_s=0.1)
        same = await asyncio.to_thread(instance, "serve", "executor", "--http-port", str(port))
        assert same.code == 78
        assert "--http-port 0" in same.err
        second = instance.start("serve", "executor", "--http-port", "0")
        try:
            files = (instance.home / "run").glob
            await eventually(lambda: len(list(files("executor-*.json"))) == 2, timeout_s=30, interval_s=0.1)
        finally:
            second.kill()
            second.communicate(timeout=10)
    finally:
        first.kill()
        first.communicate(timeout=10)
