"""Programs that fill the disk where nobody looks: without names, in reserve, as empty folders, over many calls."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.attack.ground import Hands
from tests.support.eventually import eventually

LITTLE = {"disk_written_bytes": 32 << 20, "file_bytes": 64 << 20}
WAIT = "import signal; signal.pause()\n"
WITHOUT_NAMES = """
import os
block, kept = bytes(1 << 20), []
for number in range(64):
    kept.append(os.open(f'/tmp/gone-{number}', os.O_CREAT | os.O_RDWR))
    os.unlink(f'/tmp/gone-{number}')
    for _ in range(2):
        os.write(kept[-1], block)
"""
MAPPED = """
import mmap, os
block, kept = bytes(1 << 20), []
for number in range(8):
    file = os.open(f'/tmp/gone-{number}', os.O_CREAT | os.O_RDWR)
    for _ in range(16):
        os.write(file, block)
    kept.append(mmap.mmap(file, 4096))
    os.unlink(f'/tmp/gone-{number}')
    os.close(file)
os.sync()
"""
UNDER_WAY = """
import os, socket
block = bytes(1 << 20)
one, other = socket.socketpair()
for number in range(8):
    file = os.open(f'/tmp/gone-{number}', os.O_CREAT | os.O_RDWR)
    for _ in range(16):
        os.write(file, block)
    socket.send_fds(one, [b'x'], [file])
    os.unlink(f'/tmp/gone-{number}')
    os.close(file)
os.sync()
"""
OLD_TIMES = """
import os
block = bytes(1 << 20)
for number in range(64):
    with open(f'/code/fill-{number}', 'wb') as file:
        file.write(block + block)
    os.utime(f'/code/fill-{number}', (0, 0))
"""
SHARED = """
import os
for number in range(4000):
    os.close(os.open(f'/dev/shm/{number}', os.O_CREAT | os.O_RDWR))
"""
RESERVE = """
import ctypes, fcntl, os, struct
libc = ctypes.CDLL(None, use_errno=True)
file = os.open('/tmp/reserved', os.O_CREAT | os.O_RDWR)
said = []
for keep in (0, 1):
    said.append((libc.fallocate(file, keep, ctypes.c_long(0), ctypes.c_long(32 << 20)), ctypes.get_errno()))
for number in (0x40305828, 0x4030582A, 0x40305839):
    try:
        fcntl.ioctl(file, number, struct.pack('hhqqiI4i', 0, 0, 0, 32 << 20, 0, 0, 0, 0, 0, 0))
        said.append('in')
    except OSError as why:
        said.append(why.errno)
print(said, os.fstat(file).st_blocks)
"""
FOLDERS = """
import os
for number in range(6000):
    os.mkdir(f'/tmp/{number}')
"""
DEEP = """
import os
os.chdir('/tmp')
for _ in range(300):
    os.mkdir('d' * 200)
    os.chdir('d' * 200)
"""
CLOSED = """
import os
os.mkdir('/code/closed')
block = bytes(1 << 20)
for number in range(24):
    with open(f'/code/closed/{number}', 'wb') as file:
        file.write(block)
os.chmod('/code/closed', 0)
"""
IN_TWO_PARTS = """
import os, select
block = bytes(1 << 20)
def wait(seconds):
    select.select([], [], [], seconds)
def fill(name, count):
    with open(f'/code/{name}', 'wb') as file:
        for _ in range(count):
            file.write(block)
fill('one', 16)
os.mkdir('/code/half')
while not os.path.exists('/code/go'):
    wait(0.01)
wait(1.5)
fill('two', 60)
wait(5)
"""
BALLAST_BYTES = 512 << 20


@pytest.fixture(autouse=True)
def clean(hands: Hands) -> Iterator[None]:
    """The workspace is empty before and after."""
    empty(hands)
    yield
    empty(hands)


def empty(hands: Hands) -> None:
    for folder in (hands.code, hands.tmp):
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.is_dir():
                path.chmod(0o755)
                shutil.rmtree(path)
            else:
                path.unlink()


def call(hands: Hands, **limits: int) -> Any:
    return hands.python("pass", limits=limits)


@pytest.mark.parametrize("source", [WITHOUT_NAMES, MAPPED, UNDER_WAY], ids=["open", "mapped", "under-way"])
def test_files_without_a_name_are_counted(hands: Hands, source: str) -> None:
    done = hands.python(source + WAIT, limits=LITTLE)
    assert (done["killed"], done["exit"]) == ("disk", 137)


def test_old_times_are_no_disguise(hands: Hands) -> None:
    done = hands.python(OLD_TIMES + WAIT, limits=LITTLE)
    assert (done["killed"], done["exit"]) == ("disk", 137)


def test_what_others_delete_is_no_room_for_a_box(hands: Hands) -> None:
    (hands.code / "large").write_bytes(bytes(128 << 20))
    assert call(hands, folders_bytes=64 << 20)["code"] == "workspace_full"
    assert call(hands, folders_bytes=1 << 30)["exit"] == 0
    (hands.code / "large").unlink()
    (hands.code / "go").touch()
    assert hands.python(IN_TWO_PARTS, limits=LITTLE)["killed"] == "disk"


async def test_space_that_others_free_hides_nothing(hands: Hands) -> None:
    ballast = hands.code.parent / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, BALLAST_BYTES)
    call = asyncio.create_task(asyncio.to_thread(hands.python, IN_TWO_PARTS, limits=LITTLE))
    try:
        await eventually((hands.code / "half").exists, timeout_s=20)
    finally:
        ballast.unlink()
        (hands.code / "go").touch()
    done = await call
    assert (done["killed"], done["exit"]) == ("disk", 137)


def test_no_blocks_can_be_reserved(hands: Hands) -> None:
    done = hands.python(RESERVE)
    assert done["stdout"].strip() == "[(-1, 95), (-1, 95), 1, 1, 1] 0"


def test_a_file_of_a_given_size_can_still_be_asked_for(hands: Hands) -> None:
    source = "import os; f = os.open('/tmp/f', os.O_CREAT | os.O_RDWR); os.posix_fallocate(f, 0, 1 << 20)"
    assert hands.python(source)["exit"] == 0
    assert (hands.tmp / "f").stat().st_size == 1 << 20


def test_empty_folders_are_counted(hands: Hands) -> None:
    done = hands.python(FOLDERS + WAIT, limits={"disk_written_entries": 4_000})
    assert (done["killed"], done["exit"]) == ("disk", 137)


def test_few_entries_left_stop_the_writer(hands: Hands) -> None:
    done = hands.python(WAIT, limits={"disk_free_entries": 1 << 60})
    assert (done["killed"], done["exit"]) == ("disk", 137)


def test_empty_files_in_shared_memory_are_counted(hands: Hands) -> None:
    done = hands.python(SHARED + WAIT, limits={"shared_memory_entries": 1_000})
    assert (done["killed"], done["exit"]) == ("disk", 137)


def test_many_calls_fill_no_more_than_the_workspace_may_hold(hands: Hands) -> None:
    """Each of them writes less than a call may."""
    source = "import os, sys; open(f'/code/{sys.argv[1]}', 'wb').write(bytes(8 << 20))"
    # How many it takes depends on what others free on this disk meanwhile; a look is due at some time whatever they do.
    for number in range(200):
        done = hands.python(source, str(number), limits={"folders_bytes": 40 << 20})
        if "code" in done:
            break
    assert (done["code"], done["bytes_max"]) == ("workspace_full", 40 << 20)
    empty(hands)
    assert call(hands, folders_bytes=40 << 20)["exit"] == 0


def test_a_box_that_runs_ends_when_the_workspace_is_full(hands: Hands) -> None:
    source = "import os\nfor n in range(64): open(f'/code/{n}', 'wb').write(bytes(1 << 20))\n" + WAIT
    # It may write all of that: only what the workspace may hold can end it, however slowly it writes.
    done = hands.python(source, limits={"folders_bytes": 40 << 20, "disk_written_bytes": 1 << 30})
    assert (done["killed"], done["exit"]) == ("disk", 137)
    assert call(hands, folders_bytes=40 << 20)["code"] == "workspace_full"


def test_too_many_files_close_the_workspace(hands: Hands) -> None:
    hands.python(FOLDERS.replace("/tmp", "/code"))
    done = call(hands, folders_entries=4_000)
    assert (done["code"], done["files_max"]) == ("workspace_full", 4_000)


def test_what_fills_the_private_tmp_goes_before_it_closes_the_workspace(hands: Hands) -> None:
    hands.python(FOLDERS)
    (hands.code / "kept").touch()
    assert call(hands, folders_entries=4_000)["exit"] == 0
    assert (list(hands.tmp.iterdir()), (hands.code / "kept").exists()) == ([], True)


def test_a_tree_that_is_deeper_than_a_path_closes_nothing(hands: Hands) -> None:
    assert hands.python(DEEP)["exit"] == 0
    hands.kill()
    hands.start_again()  # it knows nothing of the workspace, and looks at it
    assert call(hands)["exit"] == 0
    done = call(hands, folders_entries=100)
    assert (done["exit"], list(hands.tmp.iterdir())) == (0, [])


def test_a_folder_that_is_closed_to_its_owner_is_opened_and_counted(hands: Hands) -> None:
    hands.python(CLOSED)
    for _ in range(2):
        done = call(hands, folders_bytes=16 << 20)
    assert done["code"] == "workspace_full"
    # To root nothing is closed, so nothing needs to be opened.
    assert os.stat(hands.code / "closed").st_mode & 0o777 == (0o700 if hands.uid else 0)
