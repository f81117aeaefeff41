"""Proves on this machine what the sandbox promises: each property is tried from inside, none is taken from a table."""

import asyncio
import json
import os
import platform
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from contracts.errors import Rejected
from services.policy_gateway.decision.plans import Place
from services.policy_gateway.sandbox.box import SYSTEM, Bind, Box
from services.policy_gateway.sandbox.limits import Limits
from services.policy_gateway.sandbox.profiles import shell_box
from services.policy_gateway.sandbox.running import DeadlinePassed, Ending
from services.policy_gateway.sandbox.sandbox import Sandbox
from services.policy_gateway.sandbox.syscalls import MACHINES, NUMBERS, number

PROBE_S: Final = 20.0
SMALL: Final = Limits(memory_bytes=192 << 20, processes=48, file_bytes=4 << 20, disk_free_bytes=0)
PROBES: Final = {
    "files": "nothing outside of /code and /tmp can be written",
    "repository": "the coder's shell cannot touch the repository",
    "network": "there is no network but the box's own loopback",
    "sight": "nothing of the machine can be seen: processes, folders, variables, descriptors",
    "calls": "the filter refuses what escapes are made of",
    "privileges": "there is no privilege and no way to one",
}
MEMORY: Final = "x = [bytearray(b'x') * (8 << 20) for _ in range(64)]; print('all of it')"
FORKS: Final = """
import os, time
made = 0
while made < 300:
    try:
        if os.fork() == 0:
            time.sleep(20)
            os._exit(0)
    except OSError:
        break
    made += 1
print(made)
"""
FILE: Final = """
import os
try:
    with open('/tmp/large', 'wb') as file:
        for _ in range(64):
            file.write(bytes(1 << 20))
            file.flush()
except OSError:
    pass
print(os.stat('/tmp/large').st_size)
"""
ORPHANS: Final = """
import os, signal, time
for n in range(1, 65):
    try:
        signal.signal(n, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
time.sleep(60)
"""


class Finding(NamedTuple):
    """One property: whether it holds, and what was seen."""

    name: str
    ok: bool
    reason: str


async def available(sandbox: Sandbox) -> Finding:
    """Whether a box can be built at all."""
    try:
        shape = await sandbox.ready()
    except Rejected:
        return Finding("sandbox", False, sandbox.why_not or "no sandbox can be built here")
    poorer = [
        said
        for fine, said in (
            (shape.own_proc, "without /proc, which this container refuses"),
            (shape.own_dev, "with five devices only"),
            (shape.no_user_namespaces, "user namespaces are refused by the filter alone"),
        )
        if not fine
    ]
    held = ", ".join(f"{what} by {who}" for what, who in sandbox.holders().items())
    return Finding("sandbox", True, "; ".join([held, *poorer]))


async def selftest(sandbox: Sandbox) -> list[Finding]:
    """Try everything; what comes after a failure to build a box is left out. Takes a second or two."""
    first = await available(sandbox)
    if not first.ok:
        return [first]
    sandbox.state.mkdir(parents=True, exist_ok=True)
    scratch = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=f"selftest-{os.getpid()}-", dir=sandbox.state))
    try:
        for name in ("code/.git/hooks", "tmp"):
            (scratch / name).mkdir(parents=True)
        ground = _Ground(sandbox, scratch)
        return [first, *await ground.probes(), *await ground.bounds()]
    except DeadlinePassed:
        return [first, Finding("probe", False, f"a probe did not end within {PROBE_S:g} s: the machine is too busy")]
    finally:
        await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)


class _Ground:
    """A throw-away workspace with an interpreter in its boxes."""

    def __init__(self, sandbox: Sandbox, scratch: Path) -> None:
        self._sandbox = sandbox
        self._scratch = scratch
        self._python = _interpreter()

    async def probes(self) -> list[Finding]:
        """What one program inside could do that it must not."""
        box = self._box()
        marker = f"htdag-selftest-{os.getpid()}-{id(self):x}"
        with socket.socket() as loopback, socket.socket(socket.AF_UNIX) as abstract:
            loopback.bind(("127.0.0.1", 0))
            loopback.listen()
            abstract.bind("\0" + marker)
            abstract.listen()
            machine = MACHINES[platform.machine()]
            given = {
                "numbers": {name: number(name, machine) for name in NUMBERS},
                "loopback": loopback.getsockname()[1],
                "abstract": marker,
                "hidden": [str(self._sandbox.state), str(Path.home() / ".ssh"), f"/proc/{os.getpid()}/environ"],
                "environment": list(box.environment),
            }
            source = (Path(__file__).parent / "probe.py").read_text()
            ending = await self._run(box, self._sandbox, source, json.dumps(given))
        try:
            found: dict[str, list[str]] = json.loads(ending.stdout.kept)
        except ValueError:
            said = ending.stderr.kept.decode("utf-8", "replace").strip().splitlines()[-1:]
            return [Finding("probe", False, f"the probe did not run: exit {ending.exit} {' '.join(said)}")]
        return [Finding(name, not found[name], "; ".join(found[name]) or promise) for name, promise in PROBES.items()]

    async def bounds(self) -> list[Finding]:
        """What ends a program that takes too much, and what is left of it."""
        small, box = self._sandbox.with_limits(SMALL), self._box()
        memory = await self._run(box, small, MEMORY)
        forks = await self._run(box, small, FORKS)
        file = await self._run(box, small, FILE)
        held_forks = forks.killed == "processes" or 0 < _int(forks) <= SMALL.processes
        return [
            Finding("memory", b"all" not in memory.stdout.kept, f"killed: {memory.killed}, exit {memory.exit}"),
            Finding("processes", held_forks, f"killed: {forks.killed}, {_int(forks)} were made"),
            Finding("file_size", 0 < _int(file) <= SMALL.file_bytes, f"{_int(file)} bytes were written"),
            await self._deadline(box),
        ]

    async def _deadline(self, box: Box) -> Finding:
        marker = f"htdag-selftest-orphan-{os.getpid()}-{id(self):x}"
        began_s = asyncio.get_running_loop().time()
        try:
            await self._sandbox.run(box, [str(self._python), "-ISc", ORPHANS, marker], began_s + 0.7)
        except DeadlinePassed:
            took_s = asyncio.get_running_loop().time() - began_s
            left = await asyncio.to_thread(_with_word, marker)
            return Finding(
                "deadline", not left and took_s < 2, f"dead after {took_s:.2f} s, {len(left)} processes left"
            )
        return Finding("deadline", False, "the program ended before its deadline")

    async def _run(self, box: Box, sandbox: Sandbox, source: str, *words: str) -> Ending:
        deadline_s = asyncio.get_running_loop().time() + PROBE_S
        return await sandbox.run(box, [str(self._python), "-ISc", source, *words], deadline_s)

    def _box(self) -> Box:
        place = Place("code", ())
        box = shell_box(
            "coder",
            self._scratch / "code",
            self._scratch / "tmp",
            self._scratch / "build",
            place,
            network=False,
            environment={"PATH": "/usr/bin:/bin"},
        )
        if any(self._python.is_relative_to(folder) for folder in SYSTEM):
            return box
        prefix = self._python.parent.parent
        return box._replace(binds=(*box.binds, Bind(prefix, str(prefix))))


def _interpreter() -> Path:
    """A Python that can be read by whoever runs the gateway: its own, else the system's."""
    own = Path(os.path.realpath(sys.executable))
    return own if os.access(own, os.X_OK) else Path("/usr/bin/python3")


def _int(ending: Ending) -> int:
    said = ending.stdout.kept.strip()
    return int(said) if said.isdigit() else 0


def _with_word(marker: str) -> list[int]:
    """The processes of this machine that carry the marker among their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if marker.encode() in words:
                found.append(int(entry.name))
    return found
