"""The shell tool: what comes back, whatever a program does."""

import asyncio
import os
from pathlib import Path

import pytest

from contracts.errors import Rejected
from services.policy_gateway.decision.plans import Place, Profile
from services.policy_gateway.sandbox.limits import Limits
from tests.attack.ground import Ground
from tests.attack.test_bombs import processes_with
from tests.support.eventually import eventually

pytestmark = pytest.mark.box


@pytest.fixture(params=[True, False], ids=["cgroups", "watchdog"])
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> Ground:
    return Ground(tmp_path, cgroups=request.param)


async def test_output_exit_and_duration_come_back(ground: Ground) -> None:
    done = await ground.shell("sh", "-c", "echo out; echo err >&2; exit 7", profile="admin")
    assert done.pop("duration_ms") < 10_000
    assert done == {"stdout": "out\n", "stderr": "err\n", "exit": 7, "truncated": False}


async def test_an_argument_is_data(ground: Ground) -> None:
    done = await ground.python("import sys; print(sys.argv[1:])", "a b; touch x", "$(touch y)", "", "new\nline", "ü")
    assert done["stdout"] == "['a b; touch x', '$(touch y)', '', 'new\\nline', 'ü']\n"
    assert os.listdir(ground.code) == []


async def test_what_a_program_writes_can_be_read_by_a_tester_in_a_container(ground: Ground) -> None:
    before = os.umask(0o077)  # a service keeps its own files private
    try:
        await ground.python("import os; open('/code/f', 'w').close(); os.mkdir('/code/d')")
    finally:
        os.umask(before)
    assert [(ground.code / name).stat().st_mode & 0o777 for name in ("f", "d")] == [0o644, 0o755]


@pytest.mark.parametrize("signal_no", [6, 9, 11, 15])
async def test_a_signal_is_said_as_128_and_its_number(ground: Ground, signal_no: int) -> None:
    done = await ground.python(f"import os; os.kill(os.getpid(), {signal_no})")
    assert done["exit"] == 128 + signal_no
    assert "killed" not in done


async def test_there_is_nothing_to_read(ground: Ground) -> None:
    assert (await ground.python("import sys; print(repr(sys.stdin.read()))"))["stdout"] == "''\n"


async def test_binary_output_is_shown_and_said_so(ground: Ground) -> None:
    done = await ground.python("import os; os.write(1, bytes(range(256)))")
    assert (done["lossy"], done["truncated"], done["stdout"][:3]) == (True, False, "\0\x01\x02")


async def test_much_output_is_cut_on_each_side(ground: Ground) -> None:
    done = await ground.python("import os\nfor _ in range(20): os.write(1, b'o' * 65536); os.write(2, b'e' * 65536)")
    assert (done["truncated"], done["exit"]) == (True, 0)
    mark = "\n[... 262144 bytes left out here ...]\n"
    assert [len(done[name]) for name in ("stdout", "stderr")] == [len(mark) + (1 << 20)] * 2
    assert mark in done["stdout"]


async def test_the_end_of_much_output_is_kept(ground: Ground) -> None:
    source = (
        "import os\nprint('begun', flush=True)"
        "\nfor _ in range(20): os.write(1, b'o' * 65536)\nprint('\\n1 failed, 2 passed')"
    )
    done = await ground.python(source)
    assert (done["stdout"][:6], done["stdout"][-20:]) == ("begun\n", "\n1 failed, 2 passed\n")


async def test_what_was_printed_before_the_deadline_is_told(ground: Ground) -> None:
    source = "import os, signal\nos.write(1, b'test_one\\n')\nos.write(2, b'warned\\n')\nsignal.pause()"
    with pytest.raises(Rejected) as refused:
        await ground.python(source, timeout_s=3)
    assert (refused.value.code, refused.value.detail["stdout"], refused.value.detail["stderr"]) == (
        "timeout",
        "test_one\n",
        "warned\n",
    )


async def test_files_stay_and_the_private_folder_too(ground: Ground) -> None:
    await ground.python("open('/code/kept', 'w').write('c'); open('/tmp/kept', 'w').write('t')")
    done = await ground.python("print(open('/code/kept').read() + open('/tmp/kept').read())")
    assert (done["stdout"], (ground.code / "kept").read_text()) == ("ct\n", "c")


async def test_it_runs_where_it_was_asked_to(ground: Ground) -> None:
    (ground.code / "lib").mkdir()
    done = await ground.shell("python3", "-ISc", "import os; print(os.getcwd())", cwd=Place("code", ("lib",)))
    assert done["stdout"] == "/code/lib\n"
    with pytest.raises(Rejected) as refused:
        await ground.shell("python3", "-ISc", "", cwd=Place("code", ("gone",)))
    assert refused.value.code == "file_not_found"


@pytest.mark.parametrize("target", ["inner", "/tmp", "/code/.git", "..", "/"])
@pytest.mark.parametrize("parts", [("link",), ("link", "below"), ("folder", "link")], ids=str)
async def test_a_link_for_a_folder_is_refused(ground: Ground, target: str, parts: tuple[str, ...]) -> None:
    """As the fs tool does: a call runs in the folder that it names or nowhere, also where the link leads inside."""
    (ground.code / "inner" / "below").mkdir(parents=True)
    (ground.code / "folder").mkdir()
    (ground.code / "link").symlink_to(target)
    (ground.code / "folder" / "link").symlink_to(target)
    for call in (
        ground.shell("python3", "-ISc", "", cwd=Place("code", parts)),
        ground.git("status", cwd=Place("code", parts)),
    ):
        with pytest.raises(Rejected) as refused:
            await call
        assert (refused.value.code, refused.value.detail["path"]) == ("forbidden_path", Place("code", parts).shown)


async def test_a_file_is_no_folder_to_run_in(ground: Ground) -> None:
    (ground.code / "file").touch()
    with pytest.raises(Rejected) as refused:
        await ground.shell("python3", "-ISc", "", cwd=Place("code", ("file",)))
    assert refused.value.code == "file_not_found"


@pytest.mark.parametrize("profile", ["coder", "tester", "admin"])
async def test_a_call_leaves_no_folder_of_its_own(ground: Ground, profile: Profile) -> None:
    await ground.python("pass", profile=profile)
    assert os.listdir(ground.code) == []


async def test_no_repository_can_be_made_while_another_call_ends(ground: Ground) -> None:
    """What stands in for the missing one is taken away by the last call only."""
    source = """
import os, select
open('/code/ready', 'w').close()
while not os.path.exists('/code/go'):
    select.select([], [], [], 0.01)
for path in ('/code/.git/config', '/code/.git/hooks'):
    try:
        os.makedirs(path)
        print('in')
    except OSError:
        print('out')
"""
    long = asyncio.ensure_future(ground.python(source))
    await eventually((ground.code / "ready").exists)
    await ground.python("pass")
    assert (ground.code / ".git").is_dir()
    (ground.code / "go").touch()
    assert (await long)["stdout"] == "out\nout\n"
    assert not (ground.code / ".git").exists()


async def test_a_folder_of_the_user_stays(ground: Ground) -> None:
    (ground.code / ".git").mkdir()
    await ground.python("pass")
    assert (ground.code / ".git").is_dir()


@pytest.mark.parametrize("name", ["nonesuch", "/bin/sh", "../sh", "", ".", "a/b"])
async def test_what_is_not_in_the_table_is_not_found(ground: Ground, name: str) -> None:
    with pytest.raises(Rejected) as refused:
        await ground.shell(name)
    assert refused.value.code == "program_not_found"


async def test_the_admin_runs_a_program_by_its_path(ground: Ground) -> None:
    (ground.code / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (ground.code / "run.sh").chmod(0o755)
    assert (await ground.shell("./run.sh", profile="admin"))["stdout"] == "ran\n"
    with pytest.raises(Rejected) as refused:
        await ground.shell("./gone.sh", profile="admin")
    assert (refused.value.code, refused.value.detail) == ("program_not_found", {"program": "gone.sh"})


async def test_at_the_deadline_it_is_dead(ground: Ground, tmp_path: Path) -> None:
    marker = f"deadline-{tmp_path}"
    with pytest.raises(Rejected) as refused:
        await ground.python("import signal; signal.pause()", marker, timeout_s=0.5)
    assert (refused.value.code, processes_with(marker)) == ("timeout", [])
    assert 300 <= refused.value.detail["timeout_ms"] <= 500


@pytest.mark.parametrize("rounds", [12])
async def test_a_cancelled_call_leaves_nothing_whenever_that_is(ground: Ground, tmp_path: Path, rounds: int) -> None:
    marker = f"cancelled-{tmp_path}"
    await ground.sandbox.ready()
    before = len(os.listdir("/proc/self/fd"))
    for step in range(rounds):
        call = asyncio.ensure_future(ground.python("import signal; signal.pause()", marker))
        await asyncio.wait([call], timeout=step * 0.002)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    await eventually(lambda: not processes_with(marker))
    await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)


async def test_many_at_once_wait_for_their_turn(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    done = await asyncio.gather(*(ground.python(f"print({n})") for n in range(24)))
    assert [one["stdout"] for one in done] == [f"{n}\n" for n in range(24)]


async def test_a_vanished_workspace_has_its_own_code(ground: Ground) -> None:
    ground.code.rmdir()
    with pytest.raises(Rejected) as refused:
        await ground.shell("sh")
    assert refused.value.code == "workspace_not_found"


async def test_without_bubblewrap_nothing_runs(tmp_path: Path) -> None:
    """There is no way around the sandbox: a program that is no bubblewrap stands for one that does not work."""
    ground = Ground(tmp_path, bwrap=Path("/bin/false"))
    with pytest.raises(Rejected) as refused:
        await ground.shell("sh", "-c", "touch /code/ran", profile="admin")
    assert (refused.value.code, (ground.code / "ran").exists()) == ("sandbox_unavailable", False)
    with pytest.raises(Rejected) as refused:
        await ground.git("status")
    assert refused.value.code == "sandbox_unavailable"


async def test_memory_beyond_the_bound_is_said(tmp_path: Path) -> None:
    ground = Ground(tmp_path, limits=Limits(memory_bytes=128 << 20))
    source = "import mmap\nm = mmap.mmap(-1, 1 << 29)\nfor at in range(0, 1 << 29, 4096): m[at] = 1"
    done = await ground.python(source)
    assert (done["killed"], done["exit"]) == ("memory", 137)
