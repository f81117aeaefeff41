"""The fs tool on real files: what it does, what it refuses, and that no race leads out of the workspace."""

import asyncio
import base64
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from contracts.errors import Rejected
from services.policy_gateway.decision.plans import Place, ReadPlan, Root, WritePlan
from services.policy_gateway.sandbox.limits import DEFAULTS
from services.policy_gateway.tools.files import BYTES_MAX, Files
from services.policy_gateway.tools.tool import Ticket, Workspace
from tests.support.eventually import eventually
from tests.support.nats_server import die_with_parent

pytestmark = pytest.mark.box

SECRET = "the secret of the host"
CALLS = itertools.count()


@pytest.fixture
def files() -> Iterator[Files]:
    tool = Files()
    yield tool
    tool.close()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    for name in ("code", "tmp", "outside"):
        (tmp_path / "w" / name).mkdir(parents=True)
    (tmp_path / "w/outside/secret").write_text(SECRET)
    return Workspace("w", tmp_path / "w/code", tmp_path / "w/tmp", "seed")


def place(path: str, root: Root = "code") -> Place:
    return Place(root, tuple(part for part in path.split("/") if part))


def ticket(workspace: Workspace, timeout_s: float = 20.0) -> Ticket:
    return Ticket(f"call-{next(CALLS)}", "coder", workspace, asyncio.get_running_loop().time() + timeout_s)


async def read(files: Files, workspace: Workspace, path: str, root: Root = "code", bytes_max: int = BYTES_MAX):
    return await files.run(ReadPlan(place(path, root), bytes_max), ticket(workspace))


async def write(files: Files, workspace: Workspace, path: str, content: bytes = b"new", root: Root = "code"):
    return await files.run(WritePlan(place(path, root), content), ticket(workspace))


async def refused(call) -> Rejected:
    with pytest.raises(Rejected) as caught:
        await call
    assert "/w/" not in str(caught.value.to_wire())  # no path of the host
    return caught.value


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


async def test_what_was_written_is_read(files: Files, workspace: Workspace) -> None:
    text = "defmodule Feature do\n  def hello, do: :wörld\nend\n".encode()
    value = await write(files, workspace, "lib/deep/feature.ex", text)
    assert value == {"bytes_written": len(text), "path": "/code/lib/deep/feature.ex"}
    assert await read(files, workspace, "lib/deep/feature.ex") == {"content": text.decode(), "size": len(text)}
    assert names(workspace.code) == ["deep", "feature.ex", "lib"]
    assert (workspace.code / "lib/deep/feature.ex").stat().st_mode & 0o777 == 0o644
    assert (workspace.code / "lib/deep").stat().st_mode & 0o777 == 0o755


async def test_both_roots_are_kept_apart(files: Files, workspace: Workspace) -> None:
    await write(files, workspace, "a", b"in tmp", "tmp")
    assert (await read(files, workspace, "a", "tmp"))["content"] == "in tmp"
    assert (await refused(read(files, workspace, "a"))).code == "file_not_found"


async def test_an_admin_reads_and_writes_any_file(files: Files, workspace: Workspace) -> None:
    secret = str(workspace.code.parent / "outside/secret")
    assert (await read(files, workspace, secret, "host"))["content"] == SECRET
    await write(files, workspace, secret, b"changed", "host")
    assert Path(secret).read_text() == "changed"
    assert (await read(files, workspace, f"/proc/{os.getpid()}/status", "host"))["content"].startswith("Name:")


async def test_a_file_keeps_its_mode_but_no_special_bits(files: Files, workspace: Workspace) -> None:
    script = workspace.code / "run.sh"
    script.write_text("old")
    script.chmod(0o4755)
    await write(files, workspace, "run.sh")
    assert script.stat().st_mode & 0o7777 == 0o755
    assert script.read_text() == "new"


async def test_bytes_that_are_no_text_come_as_base64(files: Files, workspace: Workspace) -> None:
    (workspace.code / "image").write_bytes(b"\xff\x00\xfe")
    value = await read(files, workspace, "image")
    assert value == {"content": base64.b64encode(b"\xff\x00\xfe").decode(), "encoding": "base64", "size": 3}


async def test_too_much_is_refused_with_the_limit(files: Files, workspace: Workspace) -> None:
    (workspace.code / "big").write_bytes(b"x" * 101)
    why = await refused(read(files, workspace, "big", bytes_max=100))
    assert why.detail.pop("hint")
    assert (why.code, why.detail) == ("too_large", {"path": "/code/big", "max": 100, "size": 101})
    assert (await read(files, workspace, "big", bytes_max=101))["size"] == 101
    assert (await refused(write(files, workspace, "huge", b"x" * (BYTES_MAX + 1)))).code == "too_large"
    assert (
        await refused(read(files, workspace, f"/proc/{os.getpid()}/maps", "host", bytes_max=10))
    ).code == "too_large"
    assert names(workspace.code) == ["big"]


async def test_what_is_no_file_is_neither_read_nor_replaced(files: Files, workspace: Workspace) -> None:
    (workspace.code / "folder").mkdir()
    os.mkfifo(workspace.code / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(workspace.code / "s"))
        for name in ("folder", "fifo", "s", ""):
            assert (await refused(read(files, workspace, name))).code == "not_regular_file", name
            assert (await refused(write(files, workspace, name))).code == "not_regular_file", name
    assert (await refused(read(files, workspace, "/dev/null", "host"))).code == "not_regular_file"


async def test_what_is_not_there_is_not_found(files: Files, workspace: Workspace) -> None:
    (workspace.code / "file").write_text("x")
    why = await refused(read(files, workspace, "lib/none"))
    assert (why.code, why.detail) == ("file_not_found", {"path": "/code/lib/none"})
    assert (await refused(read(files, workspace, "file/below"))).code == "file_not_found"
    assert (await refused(write(files, workspace, "file/below"))).code == "file_error"
    assert (await refused(read(files, workspace, "x" * 300))).code == "file_error"


async def test_no_symbolic_link_is_followed(files: Files, workspace: Workspace) -> None:
    outside = workspace.code.parent / "outside"
    (workspace.code / "folder").symlink_to(outside)
    (workspace.code / "file").symlink_to(outside / "secret")
    (workspace.code / "dangling").symlink_to(outside / "made")
    (workspace.code / "real").write_text("x")
    (workspace.code / "inside").symlink_to("real")
    for path in ("folder/secret", "file", "dangling", "inside"):
        assert (await refused(read(files, workspace, path))).code == "forbidden_path", path
        assert (await refused(write(files, workspace, path))).code == "forbidden_path", path
    assert (await refused(write(files, workspace, "folder/new/deep"))).code == "forbidden_path"
    assert names(outside) == ["secret"]
    assert (outside / "secret").read_text() == SECRET


@pytest.mark.parametrize("path", ["/proc/self/root/etc/passwd", "/proc/self/cwd/pyproject.toml", "/proc/self/exe"])
async def test_no_magic_link_is_followed_even_for_an_admin(files: Files, workspace: Workspace, path: str) -> None:
    assert (await refused(read(files, workspace, path, "host"))).code == "forbidden_path"


async def test_the_parent_of_the_root_is_never_reached(files: Files, workspace: Workspace) -> None:
    plan = Place("code", ("..", "outside", "secret"))  # the decision refuses it; the kernel does as well
    assert (await refused(files.run(ReadPlan(plan, 100), ticket(workspace)))).code == "forbidden_path"
    assert (await refused(files.run(WritePlan(plan, b"x"), ticket(workspace)))).code == "forbidden_path"


async def test_a_file_with_a_second_name_is_read_but_not_written(files: Files, workspace: Workspace) -> None:
    os.link(workspace.code.parent / "outside/secret", workspace.code / "twin")
    assert (await refused(write(files, workspace, "twin"))).code == "forbidden_path"
    assert (await read(files, workspace, "twin"))["content"] == SECRET


@pytest.mark.parametrize("path", [".git", ".git/config", ".git/hooks/pre-commit", "sub/.git/config", ".git/new/x"])
async def test_the_history_is_read_but_never_written_by_hand(files: Files, workspace: Workspace, path: str) -> None:
    (workspace.code / ".git").mkdir()
    (workspace.code / ".git/config").write_text("[core]")
    assert (await refused(write(files, workspace, path))).code == "forbidden_path"
    assert names(workspace.code) == [".git", "config"]
    assert (await read(files, workspace, ".git/config"))["content"] == "[core]"


@pytest.mark.parametrize("path", [".github/workflows/ci.yml", ".gitignore", ".gitattributes", "a.git/x"])
async def test_names_that_only_resemble_the_history_are_ordinary(files: Files, workspace: Workspace, path: str) -> None:
    assert (await write(files, workspace, path))["path"] == f"/code/{path}"


async def test_a_vanished_workspace_says_so(files: Files, workspace: Workspace) -> None:
    workspace.code.rename(workspace.code.with_name("gone"))
    assert (await refused(read(files, workspace, "a"))).code == "workspace_not_found"
    assert (await refused(write(files, workspace, "a"))).code == "workspace_not_found"
    workspace.code.symlink_to("gone")
    assert (await refused(read(files, workspace, "a"))).code == "workspace_not_found"


async def test_what_the_disk_refuses_has_a_reason(files: Files, workspace: Workspace) -> None:
    why = await refused(write(files, workspace, "/proc/htdag", b"x", "host"))
    assert why.code in {"file_error", "file_not_found"}
    with small_file_limit(1000):
        why = await refused(write(files, workspace, "big", b"x" * 5000))
    assert (why.code, why.detail["reason"]) == ("file_error", "File too large")
    assert names(workspace.code) == []


@contextmanager
def small_file_limit(bytes_max: int) -> Iterator[None]:
    """A limit of the process stands in for a full disk: both end a write in the middle."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_call_whose_time_is_over_writes_nothing(files: Files, workspace: Workspace) -> None:
    with pytest.raises(Rejected) as caught:
        await files.run(WritePlan(place("late"), b"x"), ticket(workspace, -1.0))
    assert caught.value.code == "timeout"
    await eventually(lambda: names(workspace.code) == [])


async def test_many_calls_at_once_answer_all(files: Files, workspace: Workspace) -> None:
    await asyncio.gather(*(write(files, workspace, f"d{n % 7}/f{n}", str(n).encode()) for n in range(200)))
    values = await asyncio.gather(*(read(files, workspace, f"d{n % 7}/f{n}") for n in range(200)))
    assert [value["content"] for value in values] == [str(n) for n in range(200)]


FOLDER_SWAP = """
import ctypes, os, sys
exchange = ctypes.CDLL(None).renameat2  # flag 2: both names change place in one step
one, other = map(os.fsencode, sys.argv[1:])
print(flush=True)
while True:
    exchange(-100, one, -100, other, 2)
"""
FILE_SWAP = """
import os, sys
target, secret = sys.argv[1:]
print(flush=True)
while True:
    os.symlink(secret, target + ".new")
    os.replace(target + ".new", target)
    with open(target + ".new", "w") as file:
        file.write("harmless")
    os.replace(target + ".new", target)
"""


@contextmanager
def meanwhile(program: str, *arguments: Path) -> Iterator[None]:
    """Another process does something again and again for the length of a `with`."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=die_with_parent) as process:  # noqa: PLW1509
        process.stdout.readline()
        try:
            yield
            assert process.poll() is None
        finally:
            process.kill()


async def test_a_folder_swapped_for_a_link_in_between_never_leads_out(files: Files, workspace: Workspace) -> None:
    code, outside = workspace.code, workspace.code.parent / "outside"
    (code / "swapped").mkdir()
    (code / "swapped/secret").write_text("harmless")
    (code / "link").symlink_to(outside)
    answers = []
    with meanwhile(FOLDER_SWAP, code / "swapped", code / "link"):
        for turn in range(2000):
            with suppress(Rejected):
                await write(files, workspace, "swapped/made", str(turn).encode())
            try:
                answers.append((await read(files, workspace, "swapped/secret"))["content"])
            except Rejected as why:
                answers.append(why.code)
    assert names(outside) == ["secret"]
    assert set(answers) == {"harmless", "forbidden_path"}  # both: the race was run, not missed


async def test_a_file_swapped_for_a_link_in_between_never_leads_out(files: Files, workspace: Workspace) -> None:
    code, secret = workspace.code, workspace.code.parent / "outside/secret"
    answers = []
    with meanwhile(FILE_SWAP, code / "target", secret):
        for _ in range(2000):
            with suppress(Rejected):
                await write(files, workspace, "target", b"mine")
            try:
                answers.append((await read(files, workspace, "target"))["content"])
            except Rejected as why:
                answers.append(why.code)
    assert secret.read_text() == SECRET
    assert SECRET not in answers
    assert {"harmless", "forbidden_path"} <= set(answers)


async def test_nothing_is_written_into_a_workspace_that_is_full(tmp_path: Path) -> None:
    for name in ("code", "tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "code" / "large").write_bytes(bytes(2 << 20))
    tool = Files(limits=DEFAULTS._replace(folders_bytes=1 << 20))
    deadline_s = asyncio.get_running_loop().time() + 10
    ticket = Ticket("c1", "coder", Workspace("w1", tmp_path / "code", tmp_path / "tmp", "seed"), deadline_s)
    with pytest.raises(Rejected) as refused:
        await tool.run(WritePlan(Place("code", ("new",)), b"x"), ticket)
    assert (refused.value.code, (tmp_path / "code" / "new").exists()) == ("workspace_full", False)
    tool.close()


@pytest.mark.parametrize("content", [b"x" * 3000, b"\0" * 500, b"\xff" * 2000], ids=["large", "control", "binary"])
async def test_a_file_comes_whole_or_not_at_all(workspace: Workspace, content: bytes) -> None:
    """An answer carries only so much, whatever the file looks like in it: half a file is never taken for the whole."""
    (workspace.code / "file").write_bytes(content)
    tool = Files(value_bytes_max=2048)
    error = await refused(read(tool, workspace, "file"))
    assert (error.code, error.detail["max"], error.detail["size"]) == ("too_large", 2048, len(content))
    assert "program" in error.detail["hint"]
    (workspace.code / "file").write_bytes(b"x" * 1900)
    assert (await read(tool, workspace, "file"))["size"] == 1900
    tool.close()
