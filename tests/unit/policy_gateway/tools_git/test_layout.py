"""Repositories built in a way that leads elsewhere: by links, pipes, pointers and folders that look like one."""

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from contracts.errors import Rejected
from services.policy_gateway.decision.plans import Place
from tests.attack.ground import CODE, Ground

pytestmark = pytest.mark.box

SECRET = "canary-41c9"
CALLS = (("status",), ("log", "-1"), ("commit", "--allow-empty", "-m", "x"), ("branch", "more"))


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """A repository with one commit, and a foreign one on the machine beside the workspace."""
    ground = Ground(tmp_path / "w")
    for folder in (ground.code, tmp_path / "foreign"):
        folder.mkdir(exist_ok=True)
        (folder / "a.txt").write_text(SECRET if folder.name == "foreign" else "one\n")
        for words in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
            ground.host_git("-C", str(folder), *words)
    return ground


async def said(ground: Ground, *argv: str, cwd: Place = CODE) -> str:
    try:
        async with asyncio.timeout(20):
            done = await ground.git(*argv, cwd=cwd)
    except Rejected as refused:
        return str(refused.to_wire())
    return f"{done['exit']} {done['stdout']} {done['stderr']}"


@pytest.mark.parametrize("name", ["HEAD", "objects", "refs", "packed-refs", "logs", "index", "config", "hooks", "info"])
async def test_a_part_that_is_a_link_closes_the_repository(ground: Ground, tmp_path: Path, name: str) -> None:
    part, foreign = ground.code / ".git" / name, tmp_path / "foreign" / ".git"
    shutil.rmtree(part, ignore_errors=True)
    part.unlink(missing_ok=True)
    part.symlink_to(foreign / name)
    before = sorted(str(path) for path in foreign.rglob("*"))
    for argv in CALLS:
        answer = await said(ground, *argv)
        assert answer.startswith("128 "), answer
        assert str(tmp_path) not in answer
    assert sorted(str(path) for path in foreign.rglob("*")) == before


@pytest.mark.parametrize("name", ["HEAD", "packed-refs", "index", "config"])
async def test_a_pipe_holds_up_nobody(ground: Ground, name: str) -> None:
    (ground.code / ".git" / name).unlink(missing_ok=True)
    os.mkfifo(ground.code / ".git" / name)
    for argv in CALLS:
        assert (await said(ground, *argv)).startswith("128 ")


async def test_a_head_without_end_is_not_read(ground: Ground) -> None:
    head = ground.code / ".git" / "HEAD"
    head.unlink()
    with head.open("wb") as file:
        file.truncate(1 << 40)
    for argv in CALLS:
        assert (await said(ground, *argv)).startswith("128 ")


@pytest.mark.parametrize("target", ["foreign/.git", "w/tmp/.git"])
async def test_a_link_for_the_repository_is_not_followed(ground: Ground, tmp_path: Path, target: str) -> None:
    shutil.move(ground.code / ".git", ground.tmp / ".git")
    (ground.code / ".git").symlink_to(tmp_path / target)
    assert (await said(ground, "log", "-1")).startswith("128 ")


async def test_a_commondir_is_not_followed(ground: Ground, tmp_path: Path) -> None:
    (ground.code / ".git" / "commondir").write_text(f"{tmp_path}/foreign/.git\n")
    assert (await said(ground, "log", "-1")).startswith("128 ")


async def test_alternates_lend_no_objects_of_the_machine(ground: Ground, tmp_path: Path) -> None:
    (ground.code / ".git" / "objects" / "info" / "alternates").write_text(f"{tmp_path}/foreign/.git/objects\n")
    blob = ground.host_git("-C", f"{tmp_path}/foreign", "rev-parse", "HEAD:a.txt")
    for argv in (("show", blob), *CALLS):
        assert SECRET not in await said(ground, *argv)


def trap(folder: Path, code: Path) -> None:
    """A repository whose configuration starts a program that leaves a file named 1 or 2."""
    (code / "program").write_bytes(Path("/usr/bin/touch").read_bytes())
    (code / "program").chmod(0o755)
    with (folder / "config").open("a") as config:
        config.write("[core]\n\tfsmonitor = /code/program\n\thooksPath = /code\n[gc]\n\tauto = 1\n")


def sprung(ground: Ground) -> set[str]:
    return {str(path) for root in (ground.code, ground.tmp) for path in root.rglob("[12]")}


async def test_a_bare_repository_in_a_folder_is_no_repository(ground: Ground) -> None:
    inner = ground.code / "inner"
    subprocess.run(["git", "init", "-q", "--bare", str(inner)], check=True)
    trap(inner, ground.code)
    for argv in (("status",), ("add", "-A"), ("diff",)):
        await said(ground, *argv, cwd=Place("code", ("inner",)))
        await said(ground, *argv)
    assert sprung(ground) == set()


@pytest.mark.parametrize("where", ["/code/evil", "../evil", "{foreign}/.git"])
async def test_a_git_file_in_a_folder_is_not_followed(ground: Ground, tmp_path: Path, where: str) -> None:
    evil, inner = ground.code / "evil", ground.code / "inner"
    subprocess.run(["git", "init", "-q", "--bare", str(evil)], check=True)
    trap(evil, ground.code)
    inner.mkdir()
    (inner / ".git").write_text(f"gitdir: {where.format(foreign=tmp_path / 'foreign')}\n")
    for argv in (("status",), ("add", "-A"), ("diff",)):
        answer = await said(ground, *argv, cwd=Place("code", ("inner",))) + await said(ground, *argv)
        assert SECRET not in answer
    assert sprung(ground) == set()


async def test_the_configuration_of_a_worktree_is_not_read(ground: Ground) -> None:
    ground.host_git("worktree", "add", "-q", str(ground.code / "tree"), "-b", "tree")
    ground.host_git("config", "extensions.worktreeConfig", "true")
    for folder in (ground.code / ".git", ground.code / ".git" / "worktrees" / "tree"):
        (folder / "config.worktree").write_text("[core]\n\tfsmonitor = /code/program\n")
    trap(ground.tmp, ground.code)
    for argv in (("status",), ("diff",), ("add", "-A")):
        await said(ground, *argv)
        await said(ground, *argv, cwd=Place("code", ("tree",)))
    assert sprung(ground) == set()


async def test_bringing_the_history_back_starts_no_program(ground: Ground) -> None:
    await ground.shadow.keep(ground.workspace, ground.ticket().deadline_s)
    with (ground.code / ".git" / "config").open("a") as config:
        config.write(
            '[protocol]\n\tallow = always\n[protocol "ext"]\n\tallow = always\n'
            '[url "ext::sh -c touch% /code/1 "]\n\tinsteadOf = /shadow\n'
        )
    trap(ground.code / ".git", ground.code)
    await ground.shadow.restore(ground.workspace, ground.ticket().deadline_s)
    assert ground.host_git("-c", "core.fsmonitor=false", "rev-parse", "refs/rescued/heads/main")
    assert sprung(ground) == set()
