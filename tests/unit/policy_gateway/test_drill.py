"""The drill finds harm where nobody stops it: here against a system that does whatever it is told."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import Rejected, failure
from services.policy_gateway.decision.plans import DockerPlan
from services.policy_gateway.drill.attempts import ATTACKS
from services.policy_gateway.drill.drill import AttemptCall, Drill
from services.policy_gateway.drill.stage import Stage
from services.policy_gateway.tools.docker import Docker
from services.policy_gateway.tools.tool import Ticket, Workspace
from services.runtime.lua.sandbox import bubblewrap
from tests.unit.policy_gateway.decision.verdicts import allowed


@pytest.fixture
async def broker():
    """Something that greets like a broker."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_name":"x"}\r\n')
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


class Naive:
    """Runs every program with everything that it has; other tools do not exist."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def __call__(self, call: AttemptCall) -> dict[str, Any]:
        if call.tool not in ("shell", "git"):
            return {"ok": False, "error": failure("program_not_found")}
        words = list(call.args["cmd"])
        if call.tool == "git":
            words.insert(0, "git")
        if words[0] == "python":
            words[0] = sys.executable
        if words[0] not in ("git", sys.executable):
            return {"ok": False, "error": failure("program_not_found")}
        done = await asyncio.to_thread(
            subprocess.run, words, cwd=self._root / call.workspace / "code", capture_output=True, text=True, timeout=30
        )
        return {"ok": True, "value": {"stdout": done.stdout, "stderr": done.stderr, "exit": done.returncode}}


async def refuse(call: AttemptCall) -> dict[str, Any]:
    return {"ok": False, "error": failure("forbidden_tool", tool=call.tool)}


async def test_a_system_without_policy_is_seen_to_lose_what_the_drill_says(tmp_path, broker):
    report = await Drill(Naive(tmp_path), tmp_path, broker, time.monotonic).run([1, 2, 5])
    harm = {
        f"{attempt.title}": attempt.harm for attack in report.attacks for attempt in attack.attempts if attempt.harm
    }
    assert "a secret of the environment was read" in harm["env in shell"]
    assert "a connection came out of the sandbox" in harm["interpreter socket"]
    assert "a datagram of" in harm["DNS"][0]
    assert "a connection came out of the sandbox" in harm["LAN"]
    assert "the broker was reached" in harm["broker"]
    assert "the history changed" in harm["reset --hard"]
    assert "the history changed" in harm["via a program"]
    assert any("a backdoor answered" in sign for sign in harm["interpreter listen"])
    assert not report.ok


async def test_a_system_that_refuses_everything_is_unharmed_and_nothing_is_left(tmp_path, broker):
    before = dict(os.environ)
    report = await Drill(refuse, tmp_path, broker, time.monotonic).run()
    assert report.ok
    assert [(attack.blocked, attack.total) for attack in report.attacks] == [(6, 6), (9, 9), (5, 5), (6, 6), (5, 5)]
    assert {attempt.outcome for attack in report.attacks for attempt in attack.attempts} == {"refused"}
    assert list(tmp_path.iterdir()) == []
    assert dict(os.environ) == before


async def test_only_the_attacks_that_are_named_are_run(tmp_path, broker):
    report = await Drill(refuse, tmp_path, broker, time.monotonic).run([3])
    assert [attack.name for attack in report.attacks] == ["tester tampering"]


async def test_a_filled_disk_and_a_changed_source_are_harm(tmp_path, monkeypatch):
    monkeypatch.setattr("services.policy_gateway.drill.stage.GROWTH_BYTES_MAX", 1 << 20)
    stage = Stage(tmp_path)
    await stage.build()
    assert await stage.harm("") == []
    (stage.code / "fill-1").write_bytes(bytes(2 << 20))
    (stage.code / "lib" / "auth.py").write_text("def authenticate(user, password):\n    return True\n")
    assert await stage.harm("root:x:0:0:root") == [
        "a file outside the workspace was read",
        "the source was changed",
        "the disk was filled with 2 MiB",
    ]
    assert await stage.remove() == []


@pytest.mark.parametrize("leave", ["nothing", "a folder", "a link", "bytes"])
async def test_a_source_that_is_gone_is_harm_and_no_mistake_of_the_drill(tmp_path, leave):
    stage = Stage(tmp_path)
    await stage.build()
    source = stage.code / "lib" / "auth.py"
    source.unlink()
    match leave:
        case "a folder":
            source.mkdir()
        case "a link":
            source.symlink_to("/etc/hostname")
        case "bytes":
            source.write_bytes(b"\xff\x00")
    (stage.code / "fill-1").mkdir()
    (sign,) = await stage.harm("")
    assert sign == ("the source was changed" if leave == "bytes" else "the source was deleted")
    shutil.rmtree(stage.folder)
    assert "the source was deleted" in await stage.harm("")
    assert await stage.remove() == []


@pytest.mark.box
@pytest.mark.parametrize("whose", ["its own", "another's"])
async def test_what_another_drill_left_is_its_harm_alone(tmp_path, whose):
    stage, other = Stage(tmp_path), Stage(tmp_path)
    await stage.build()
    await other.build()
    code = str(stage.code if whose == "its own" else other.code)
    links = [word for name in ("lib", "lib64", "bin") for word in ("--symlink", f"usr/{name}", f"/{name}")]
    box = [str(bubblewrap()), "--unshare-all", "--ro-bind", "/usr", "/usr", *links, "--bind", code, "/code"]
    attack = [*box, "sh", "-c", "echo begun; read _", "fork_bomb.py"]
    with subprocess.Popen(attack, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        harm = await stage.harm("")
    assert (harm == []) == (whose == "another's"), harm
    assert await stage.harm("") == []


@pytest.mark.box
async def test_a_link_that_is_mounted_is_refused_by_the_policy_without_image_or_engine(tmp_path):
    """Attempt 3.5: what closes it must not be that an engine or an image is missing."""
    stage = Stage(tmp_path)
    await stage.build()
    attempt = next(attempt for attack in ATTACKS for attempt in attack.attempts if attempt.title == "symlink")
    plan = allowed("tester", "docker", attempt.args)
    assert isinstance(plan, DockerPlan)
    workspace = Workspace(stage.name, stage.code, stage.folder / "tmp", "python")
    ticket = Ticket("c", "tester", workspace, asyncio.get_running_loop().time() + 5)
    with pytest.raises(Rejected) as refused:
        await Docker(f"unix://{tmp_path}/no-engine.sock").run(plan, ticket)
    assert refused.value.to_wire()["class"] == "policy_violation"
    assert refused.value.code == "forbidden_mount"
    await stage.remove()


async def test_a_tree_of_an_attacker_is_removed_however_deep_it_is(tmp_path):
    stage = Stage(tmp_path)
    await stage.build()
    folder = os.open(stage.code, os.O_RDONLY)
    for _ in range(1_500):
        os.mkdir("d", dir_fd=folder)
        inner = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    assert await stage.remove() == []
    assert os.listdir(tmp_path) == []
