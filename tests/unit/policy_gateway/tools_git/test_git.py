"""Everyday git in its box, and what it says where there is no repository."""

from pathlib import Path

import pytest

from contracts.errors import Rejected
from services.policy_gateway.decision.plans import GitPlan, Place
from tests.attack.ground import Ground
from tests.unit.policy_gateway.decision.verdicts import allowed

pytestmark = pytest.mark.box


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


@pytest.fixture
def repository(ground: Ground) -> Ground:
    """A repository with one commit."""
    ground.host_git("init", "-q", "-b", "main")
    (ground.code / "a.txt").write_text("one\n")
    ground.host_git("add", "-A")
    ground.host_git("commit", "-q", "-m", "first")
    return ground


async def test_where_there_is_no_repository_git_says_so(ground: Ground) -> None:
    done = await ground.git("status")
    assert (done["exit"], "not a git repository" in done["stderr"]) == (128, True)
    assert set(done) == {"stdout", "stderr", "exit", "truncated", "duration_ms"}


async def test_the_working_day_of_a_coder(repository: Ground) -> None:
    """The whole grammar of the coder, in the order in which it is used."""
    (repository.code / "lib").mkdir()
    (repository.code / "lib" / "b.py").write_text("x = 1\n")
    (repository.code / "a.txt").write_text("two\n")
    day = [
        ("status", "--short"),
        ("diff", "--stat"),
        ("add", "-A"),
        ("diff", "--cached"),
        ("commit", "-m", "second; $(touch /code/marker)"),
        ("log", "--oneline", "-2"),
        ("show", "HEAD"),
        ("switch", "-c", "topic"),
        ("mv", "a.txt", "c.txt"),
        ("commit", "-am", "moved"),
        ("checkout", "main"),
        ("merge", "--no-ff", "--no-edit", "topic"),
        ("tag", "-a", "v1", "-m", "one"),
        ("describe", "--tags"),
        ("branch", "-v"),
        ("rev-parse", "--show-toplevel"),
        ("blame", "lib/b.py"),
        ("grep", "-n", "x"),
        ("ls-files",),
        ("rm", "-q", "--cached", "lib/b.py"),
        ("reset", "-q", "HEAD", "lib/b.py"),
        ("restore", "--staged", "lib/b.py"),
        ("reflog", "-5"),
        ("revert", "--no-edit", "HEAD~1"),
        ("cherry-pick", "topic~1"),
        ("shortlog", "-sn", "HEAD"),
    ]
    failed = {}
    for argv in day:
        done = await repository.git(*argv)
        if done["exit"] and argv[0] not in {"cherry-pick"}:  # that change is there already: git says so with 1
            failed[argv] = done
    assert failed == {}
    assert not (repository.code / "marker").exists()


async def test_shortlog_counts_what_head_has_also_when_nobody_says_so(repository: Ground) -> None:
    plan = allowed("coder", "git", {"cmd": ["shortlog", "-sn"]})
    assert isinstance(plan, GitPlan)
    assert (await repository.git(*plan.argv))["stdout"].split() == ["1", "host"]


async def test_stash_keeps_and_gives_back(repository: Ground) -> None:
    (repository.code / "a.txt").write_text("changed\n")
    assert (await repository.git("stash", "push", "-m", "later"))["exit"] == 0
    assert (repository.code / "a.txt").read_text() == "one\n"
    assert "later" in (await repository.git("stash", "list"))["stdout"]
    assert (await repository.git("stash", "pop"))["exit"] == 0
    assert (repository.code / "a.txt").read_text() == "changed\n"


async def test_commits_carry_the_role_where_nobody_is_named(repository: Ground) -> None:
    await repository.git("commit", "--allow-empty", "-m", "mine")
    assert repository.host_git("log", "-1", "--format=%an <%ae> %cn") == "coder@htdag <coder@htdag> coder@htdag"


async def test_the_name_in_the_repository_wins(repository: Ground) -> None:
    repository.host_git("config", "user.name", "Jo Doe")
    await repository.git("commit", "--allow-empty", "-m", "hers")
    assert repository.host_git("log", "-1", "--format=%an <%ae>") == "Jo Doe <coder@htdag>"


async def test_git_runs_below_the_root_too(repository: Ground) -> None:
    (repository.code / "lib").mkdir()
    (repository.code / "lib" / "n.txt").write_text("n")
    done = await repository.git("add", "n.txt", cwd=Place("code", ("lib",)))
    assert (done["exit"], repository.host_git("ls-files")) == (0, "a.txt\nlib/n.txt")


async def test_a_folder_that_is_not_there_is_said_to_be_so(repository: Ground) -> None:
    with pytest.raises(Rejected) as refused:
        await repository.git("status", cwd=Place("code", ("nowhere",)))
    assert (refused.value.code, refused.value.detail["path"]) == ("file_not_found", "/code/nowhere")


async def test_a_repository_elsewhere_is_not_followed(repository: Ground, tmp_path: Path) -> None:
    (repository.code / ".git").rename(tmp_path / "elsewhere")
    (repository.code / ".git").write_text(f"gitdir: {tmp_path}/elsewhere\n")
    done = await repository.git("status")
    assert (done["exit"], str(tmp_path) in done["stderr"]) == (128, False)


async def test_the_configuration_of_the_repository_is_as_it_was(repository: Ground) -> None:
    before = (repository.code / ".git" / "config").read_bytes()
    await repository.git("switch", "-c", "other")
    await repository.git("branch", "third")
    assert (repository.code / ".git" / "config").read_bytes() == before


async def test_the_admin_pushes_by_force_inside_the_workspace(repository: Ground) -> None:
    repository.host_git("init", "-q", "--bare", "mirror.git")
    repository.host_git("remote", "add", "mirror", "/code/mirror.git")
    done = await repository.git("push", "--force", "mirror", "main", profile="admin")
    assert (done["exit"], repository.host_git("-C", "mirror.git", "rev-parse", "main")) == (
        0,
        repository.host_git("rev-parse", "main"),
    )


async def test_a_vanished_workspace_has_its_own_code(repository: Ground) -> None:
    repository.code.rename(repository.code.with_name("gone"))
    with pytest.raises(Rejected) as refused:
        await repository.git("status")
    assert refused.value.code == "workspace_not_found"
