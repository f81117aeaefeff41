"""A box ends with its gateway whatever the moment: also when that dies while bubblewrap builds it."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from services.policy_gateway.sandbox.box import Box
from services.policy_gateway.sandbox.sandbox import Sandbox
from services.runtime.lua.sandbox import bubblewrap
from tests.support.eventually import eventually

GATEWAY = """
import asyncio, sys
from pathlib import Path
from services.policy_gateway.sandbox.sandbox import Sandbox
asyncio.run(Sandbox(Path(sys.argv[1]), bwrap=Path(sys.argv[2])).ready())
"""
KILLS_ITS_PARENT = '#!/bin/sh\necho $$ > {pid}\nkill -9 $PPID\nexec {bwrap} "$@"\n'
"""Nobody reads bubblewrap's status any more: it dies of that after it has begun the first process inside."""


def processes(word: str) -> list[int]:
    """Who has this word among its arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if word.encode() in arguments:
                found.append(int(entry.name))
    return found


def has_ended(pid: int) -> bool:
    """Also when whoever inherited it has not buried it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def test_a_box_whose_gateway_dies_while_it_is_built_is_ended(tmp_path):
    program = tmp_path / "bwrap"
    program.write_text(KILLS_ITS_PARENT.format(bwrap=bubblewrap(), pid=tmp_path / "pid"))
    program.chmod(0o755)
    state = tmp_path / "state"
    gateway = await asyncio.create_subprocess_exec(sys.executable, "-c", GATEWAY, str(state), str(program))
    assert await gateway.wait() == -signal.SIGKILL
    outer = int((tmp_path / "pid").read_text())
    await eventually(lambda: has_ended(outer), timeout_s=20)
    # The first process inside is there by now, and nobody else would end it.
    await eventually(lambda: not processes(f"{state}/etc/passwd"), timeout_s=20)
    await eventually(lambda: not processes(str(state)), timeout_s=20)  # whoever stood by is gone, too


async def test_who_stands_by_is_one_for_all_boxes_begun_anew_and_gone_with_the_sandbox(tmp_path):
    state = tmp_path / "state"
    sandbox = Sandbox(state)
    box, deadline_s = Box(binds=(), environment={}, cwd="/"), asyncio.get_running_loop().time() + 60
    for _ in range(2):
        assert (await sandbox.run(box, ["/bin/true"], deadline_s)).exit == 0
    (first,) = processes(str(state))
    os.kill(first, signal.SIGKILL)
    process = sandbox._warden._process
    await eventually(lambda: process.poll() is not None)
    assert (await sandbox.run(box, ["/bin/true"], deadline_s)).exit == 0
    (second,) = processes(str(state))
    assert second != first
    del sandbox
    await eventually(lambda: not processes(str(state)))


def test_nothing_but_the_standard_library_is_needed_to_stand_by(tmp_path):
    from services.policy_gateway.sandbox import orphans

    command = [sys.executable, "-I", "-S", str(orphans.__file__), str(tmp_path)]
    assert subprocess.run(command, input=b"+-", timeout=10, check=False, env={}, cwd="/").returncode == 0
