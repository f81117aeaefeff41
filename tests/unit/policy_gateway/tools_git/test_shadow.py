"""Whatever happens to a repository, its history can be brought back."""

import shutil
from pathlib import Path

import pytest

from contracts.errors import Rejected
from services.policy_gateway.tools.shadow import Shadow
from tests.attack.ground import Ground

pytestmark = pytest.mark.box


@pytest.fixture
async def ground(tmp_path: Path) -> Ground:
    """A repository with two branches, a tag and a stash, all seen by the gateway."""
    ground = Ground(tmp_path)
    ground.host_git("init", "-q", "-b", "main")
    (ground.code / "a.txt").write_text("one\n")
    ground.host_git("add", "-A")
    ground.host_git("commit", "-q", "-m", "first")
    ground.host_git("branch", "feature/one")
    ground.host_git("tag", "v1")
    (ground.code / "a.txt").write_text("stashed\n")
    await ground.git("stash", "push")
    await ground.git("commit", "--allow-empty", "-m", "second")
    await ground.git("tag", "v2")
    return ground


def refs(ground: Ground) -> str:
    return ground.host_git("for-each-ref", "--format=%(refname) %(objectname)")


async def test_all_is_deleted_and_all_comes_back(ground: Ground) -> None:
    await ground.shadow.keep(ground.workspace, ground.ticket().deadline_s)
    before, head = refs(ground), ground.host_git("rev-parse", "HEAD")
    shutil.rmtree(ground.code)
    ground.code.mkdir()
    await ground.shadow.restore(ground.workspace, ground.ticket().deadline_s)
    assert (refs(ground), ground.host_git("rev-parse", "HEAD")) == (before, head)
    assert ground.host_git("status", "--porcelain", "--branch") == "## main"
    assert (ground.code / "a.txt").read_text() == "one\n"
    assert ground.host_git("fsck", "--no-dangling") == ""


async def test_what_was_overwritten_comes_back_beside_what_is_there(ground: Ground) -> None:
    lost = ground.host_git("rev-parse", "main")
    await ground.git("commit", "--allow-empty", "-m", "third")  # the shadow has seen the second by now
    ground.host_git("update-ref", "refs/heads/main", "v1")
    ground.host_git("tag", "-d", "v2")
    ground.host_git("reflog", "expire", "--expire=now", "--all")
    ground.host_git("gc", "--prune=now", "--quiet")
    await ground.shadow.keep(ground.workspace, ground.ticket().deadline_s)
    assert lost in {tip.commit for tip in ground.shadow.tips(ground.workspace)}
    await ground.shadow.restore(ground.workspace, ground.ticket().deadline_s, commit=lost)
    assert ground.host_git("log", "-1", "--format=%s", f"refs/rescued/{lost}") == "second"
    await ground.shadow.restore(ground.workspace, ground.ticket().deadline_s)
    assert "refs/rescued/heads/feature/one" in refs(ground)


async def test_a_branch_may_become_a_folder_of_branches(ground: Ground) -> None:
    await ground.git("branch", "topic")
    await ground.git("commit", "--allow-empty", "-m", "seen")
    ground.host_git("branch", "-D", "topic")
    ground.host_git("branch", "topic/one")
    done = await ground.git("commit", "--allow-empty", "-m", "third")
    assert done["exit"] == 0
    assert any(tip.ref.endswith("topic/one") for tip in ground.shadow.tips(ground.workspace))


async def test_a_detached_head_is_kept(ground: Ground) -> None:
    ground.host_git("checkout", "-q", "--detach")
    await ground.git("commit", "--allow-empty", "-m", "alone")
    alone = ground.host_git("rev-parse", "HEAD")
    await ground.shadow.keep(ground.workspace, ground.ticket().deadline_s)
    shutil.rmtree(ground.code / ".git")
    await ground.shadow.restore(ground.workspace, ground.ticket().deadline_s)
    assert ground.host_git("rev-parse", "HEAD") == alone


async def test_objects_named_by_sha256_are_kept(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    ground.host_git("init", "-q", "-b", "main", "--object-format=sha256")
    for subject in ("first", "second"):
        assert (await ground.git("commit", "--allow-empty", "-m", subject))["exit"] == 0
    shutil.rmtree(ground.code / ".git")
    await ground.shadow.restore(ground.workspace, ground.ticket().deadline_s)
    assert ground.host_git("log", "--format=%s") == "first"


async def test_nothing_is_fetched_twice(ground: Ground, tmp_path: Path) -> None:
    await ground.shadow.keep(ground.workspace, ground.ticket().deadline_s)
    seen = tmp_path / "state" / "shadow" / "w1" / "seen"
    before = seen.stat().st_mtime_ns
    await ground.shadow.keep(ground.workspace, ground.ticket().deadline_s)
    assert seen.stat().st_mtime_ns == before


async def test_a_history_that_cannot_be_kept_is_not_written(ground: Ground) -> None:
    small = Shadow(ground.sandbox, bytes_max=10)
    ground.host_git("commit", "-q", "--allow-empty", "-m", "more")
    with pytest.raises(Rejected) as refused:
        await small.keep(ground.workspace, ground.ticket().deadline_s)
    assert refused.value.code == "too_large"


async def test_a_broken_repository_is_not_written(ground: Ground) -> None:
    main = ground.code / ".git" / "refs" / "heads" / "main"
    main.write_text("1" * 40 + "\n")
    with pytest.raises(Rejected) as refused:
        await ground.git("tag", "v3")
    assert refused.value.code == "file_error"


async def test_without_a_shadow_there_is_nothing_to_restore(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    with pytest.raises(Rejected) as refused:
        await ground.shadow.restore(ground.workspace, ground.ticket().deadline_s)
    assert refused.value.code == "not_found"
