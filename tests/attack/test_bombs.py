"""Programs that take too much: processes, memory, disk, output, time."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.attack.conftest import USERS
from tests.attack.ground import Hands
from tests.support.eventually import eventually

SMALL = {"memory_bytes": 192 << 20, "processes": 40, "file_bytes": 4 << 20}
HOLDERS = pytest.mark.parametrize("cgroups", [True, False], ids=["cgroups", "watchdog"])

FORK_BOMB = """
import os, time
end = time.monotonic() + 1
while time.monotonic() < end:
    try:
        os.fork()
    except OSError:
        pass
"""
SLOW_FORKS = """
import os, select, signal
made = 0
for _ in range(80):
    try:
        if os.fork() == 0:
            signal.pause()
            os._exit(0)
    except OSError:
        break
    made += 1
select.select([], [], [], 0.5)
print(made)
"""
MEMORY_BOMB = """
import mmap, signal
held = [mmap.mmap(-1, 16 << 20) for _ in range(64)]
for one in held:
    for at in range(0, 16 << 20, 4096):
        one[at] = 1
signal.pause()
print('all')
"""
CHILDREN_BOMB = """
import os, signal
for _ in range(16):
    if os.fork() == 0:
        kept = bytearray(b'x') * (40 << 20)
        signal.pause()
        os._exit(0)
signal.pause()
print('all')
"""

NAMELESS = """
import ctypes
assert ctypes.CDLL(None).prctl(15, b'\\xff', 0, 0, 0) == 0  # PR_SET_NAME
"""


def processes_with(marker: str) -> list[int]:
    """Living processes of the machine that carry the marker among their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if marker.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@HOLDERS
def test_a_fork_bomb_stays_small_and_dies(hands: Hands, cgroups: bool) -> None:
    done = hands.python(FORK_BOMB, f"forks-{hands.pid}", cgroups=cgroups, limits=SMALL, timeout_s=1.5)
    assert done.get("code") == "timeout" or done.get("killed") == "processes" or done["exit"] == 0
    assert processes_with(f"forks-{hands.pid}") == []


@HOLDERS
@pytest.mark.parametrize("bomb", [MEMORY_BOMB, CHILDREN_BOMB], ids=["shared", "children"])
def test_a_memory_bomb_is_killed_and_said_so(hands: Hands, cgroups: bool, bomb: str) -> None:
    done = hands.python(bomb, cgroups=cgroups, limits=SMALL)
    assert done["killed"] == "memory"


def test_a_fork_bomb_whose_name_is_no_text_is_counted(hands: Hands) -> None:
    source = NAMELESS + SLOW_FORKS
    done = hands.python(source, cgroups=False, limits=SMALL)
    assert done.get("killed") == "processes" or 0 < int(done["stdout"]) <= SMALL["processes"]


def test_the_memory_of_processes_whose_name_is_no_text_is_counted(hands: Hands) -> None:
    done = hands.python(NAMELESS + CHILDREN_BOMB, cgroups=False, limits=SMALL)
    assert done["killed"] == "memory"


@HOLDERS
def test_memory_in_the_shared_folder_has_an_end(hands: Hands, cgroups: bool) -> None:
    source = """
import os
n = 0
try:
    while n < 1 << 30:
        with open(f'/dev/shm/{n}', 'wb') as file:
            file.write(bytes(1 << 20))
        n += 1 << 20
except OSError as why:
    print(why.errno, n)
"""
    limits = {**SMALL, "shared_memory_bytes": 8 << 20}
    done = hands.python(source, cgroups=cgroups, limits=limits)
    assert done["stdout"].strip() in {f"28 {n << 20}" for n in range(5, 9)}


def test_one_file_has_an_end(hands: Hands) -> None:
    done = hands.python("open('/tmp/f', 'wb').write(bytes(16 << 20))", limits=SMALL)
    assert done["exit"] != 0
    assert (hands.tmp / "f").stat().st_size == 4 << 20


def test_a_full_disk_stops_the_writer(hands: Hands) -> None:
    done = hands.python("import signal; signal.pause()", limits={"disk_free_bytes": 1 << 60})
    assert (done["killed"], done["exit"]) == ("disk", 137)


def test_a_box_writes_no_more_than_it_may(hands: Hands) -> None:
    source = """
block = bytes(1 << 20)
for number in range(64):
    with open(f"/code/fill-{number}", "wb") as file:
        for _ in range(4):
            file.write(block)
            file.flush()
import signal
signal.pause()
"""
    done = hands.python(source, limits={"disk_written_bytes": 32 << 20})
    assert (done["killed"], done["exit"]) == ("disk", 137)


def test_what_lay_there_before_is_not_counted(hands: Hands) -> None:
    hands.python("pass")  # makes the workspace
    old = hands.code / "old"
    old.write_bytes(bytes(64 << 20))
    os.utime(old, (0, 0))
    done = hands.python("open('/code/new', 'wb').write(bytes(8 << 20))", limits={"disk_written_bytes": 32 << 20})
    assert done["exit"] == 0


def test_endless_output_is_cut_and_bounded(hands: Hands) -> None:
    """It is read slowly beyond the bound: the gateway has other things to do."""
    done = hands.python("import os\nfor _ in range(160): os.write(1, b'x' * 65536)", limits={"output_bytes": 4096})
    mark = f"\n[... {160 * 65536 - 4096} bytes left out here ...]\n"
    assert (done["exit"], done["truncated"], done["stdout"]) == (0, True, "x" * 2048 + mark + "x" * 2048)


SURVIVOR = """
import os, signal, sys
for n in range(1, 65):
    try:
        signal.signal(n, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
signal.pause()
"""


@HOLDERS
def test_nothing_survives_the_deadline(hands: Hands, cgroups: bool) -> None:
    began_s = time.monotonic()
    done: Any = hands.python(SURVIVOR, f"survivor-{hands.pid}", cgroups=cgroups, timeout_s=0.8)
    assert done["code"] == "timeout"
    assert time.monotonic() - began_s < 3
    assert processes_with(f"survivor-{hands.pid}") == []


@pytest.mark.law("I14")
def test_what_a_program_leaves_behind_ends_with_it(hands: Hands) -> None:
    source = "import os, signal\nif os.fork() == 0:\n    os.setsid()\n    signal.pause()\nprint('done')"
    done = hands.python(source, f"left-{hands.pid}")
    assert (done["stdout"], done["duration_ms"] < 5000) == ("done\n", True)
    assert processes_with(f"left-{hands.pid}") == []


@pytest.fixture(params=USERS)
def mortal(request: pytest.FixtureRequest) -> Iterator[Hands]:
    """A gateway that the test may kill."""
    hands = Hands(request.param)
    yield hands
    hands.close()


@pytest.mark.law("I14")
async def test_nothing_survives_a_killed_gateway(mortal: Hands) -> None:
    marker = f"orphan-{mortal.pid}"
    mortal.start(SURVIVOR, marker)
    await eventually(lambda: len(processes_with(marker)) > 6)  # bubblewrap twice, then the program's own
    mortal.kill()
    await eventually(lambda: not processes_with(marker))


async def test_a_gateway_killed_while_a_box_is_built_leaves_nothing_that_runs(mortal: Hands) -> None:
    """Whoever stands by for the gateway ends such a box, or the next gateway where that cannot read its program."""
    markers = []
    for _ in range(6):
        markers.append(f"unborn-{mortal.pid}")
        mortal.start("open('/code/ran', 'w')\nimport signal\nsignal.pause()", markers[-1])
        await eventually(lambda: processes_with(markers[-1]), interval_s=0)
        mortal.kill()
        mortal.start_again()
    mortal.ask(do="sweep")
    await eventually(lambda: not any(map(processes_with, markers)))
