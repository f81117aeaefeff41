"""`--workspace`: which directories may be bound, what is written down, and which words are names."""

import os
import stat
import tomllib
from pathlib import Path

import pytest

from contracts.errors import Rejected
from contracts.subjects import ID
from services.console.commands.run import RunFlags
from services.console.home import Home
from services.console.workspace import bind, name_of, root_of, workspace_of


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.delenv("HTDAG_POLICY__WORKSPACES", raising=False)
    monkeypatch.chdir(tmp_path)
    return Home(tmp_path / "home")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    made = tmp_path / "my shop"
    made.mkdir()
    return made


def settings(home: Home, name: str) -> dict[str, str]:
    return tomllib.loads((home.root / "workspaces" / name / "workspace.toml").read_text())


def test_a_directory_is_bound_under_a_name_of_its_own(home: Home, project: Path):
    name = workspace_of(str(project), home)
    assert name == name_of(project)
    assert name.startswith("my-shop-")
    assert ID.match(name)
    assert settings(home, name) == {"code": str(project)}
    folder = home.root / "workspaces" / name
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "workspace.toml").stat().st_mode) == 0o600
    assert (folder / "tmp").is_dir()
    assert sorted(os.listdir(folder)) == ["tmp", "workspace.toml"]
    assert list(project.iterdir()) == []


def test_the_same_directory_is_the_same_workspace_by_whatever_path(home: Home, project: Path, tmp_path: Path):
    link = tmp_path / "link"
    link.symlink_to(project)
    assert workspace_of("my shop", home) == workspace_of(str(link), home) == name_of(project)
    other = tmp_path / "x" / "my shop"
    other.mkdir(parents=True)
    assert workspace_of(str(other), home) != name_of(project)


def test_a_profile_is_kept_until_another_is_chosen(home: Home, project: Path):
    name = workspace_of(str(project), home, "python")
    assert settings(home, name) == {"code": str(project), "profile": "python"}
    workspace_of(str(project), home)
    assert settings(home, name)["profile"] == "python"
    workspace_of(str(project), home, "seed")
    assert settings(home, name)["profile"] == "seed"


def test_odd_names_are_written_so_that_they_are_read_back(home: Home, tmp_path: Path):
    for odd in ('with "quotes"', "back\\slash", "ünï", "日本", "a'b", "x" * 200, "..."):
        code = tmp_path / odd
        code.mkdir()
        name = workspace_of(str(code), home)
        assert ID.match(name)
        assert settings(home, name) == {"code": str(code)}
    line = tmp_path / "two\nlines"
    line.mkdir()
    with pytest.raises(Rejected, match="bad_request"):
        workspace_of(str(line), home)


def test_folders_that_hold_more_than_a_project_are_refused(home: Home, project: Path, tmp_path: Path):
    home.prepare()
    (home.root / "workspaces" / "x").mkdir(parents=True)
    inside = home.root / "workspaces" / "x"
    for closed in ("/", "/tmp", "/etc", "/usr/bin", "~", str(home.root), str(home.keys), str(inside), str(tmp_path)):
        with pytest.raises(Rejected) as refused:
            workspace_of(closed, home)
        assert refused.value.code == "bad_request", closed
    link = tmp_path / "innocent"
    link.symlink_to(home.keys)
    with pytest.raises(Rejected, match="bad_request"):
        workspace_of(str(link), home)


def test_a_word_that_is_no_directory_is_the_name_of_a_workspace(home: Home):
    assert workspace_of("shop-1a2b3c4d", home) == "shop-1a2b3c4d"
    with pytest.raises(Rejected, match="workspace_not_found"):
        workspace_of("./not/there", home)
    with pytest.raises(Rejected, match="bad_request"):
        workspace_of("shop", home, "python")


def test_the_root_can_be_configured(home: Home, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert root_of(home) == home.root / "workspaces"
    monkeypatch.setenv("HTDAG_POLICY__WORKSPACES", str(tmp_path / "elsewhere"))
    assert root_of(home) == tmp_path / "elsewhere"
    name = workspace_of(str(project), home)
    assert (tmp_path / "elsewhere" / name / "workspace.toml").is_file()
    monkeypatch.delenv("HTDAG_POLICY__WORKSPACES")
    home.prepare()
    (home.root / "htdag.toml").write_text(f'[policy]\nworkspaces = "{tmp_path}/third"\ncalls_light = 3\n')
    assert root_of(home) == tmp_path / "third"


def test_a_broken_file_is_said_and_not_overwritten(home: Home, project: Path):
    name = workspace_of(str(project), home)
    path = home.root / "workspaces" / name / "workspace.toml"
    path.write_text("code = ")
    with pytest.raises(Rejected, match="bad_config"):
        bind(project, home.root / "workspaces", home)
    assert path.read_text() == "code = "


def test_the_flags_of_run_become_the_runs_options(home: Home, project: Path):
    assert RunFlags(workspace=str(project)).options(watched=False, home=home)["workspace"] == name_of(project)
    assert "workspace" not in RunFlags().options(watched=False, home=home)
    with pytest.raises(Rejected, match="bad_request"):
        RunFlags(profile="python").options(watched=False, home=home)


def test_nothing_is_no_workspace(home: Home):
    for nothing in ("", "  "):
        with pytest.raises(Rejected) as refused:
            RunFlags(workspace=nothing).options(watched=False, home=home)
        assert (refused.value.code, refused.value.detail["hint"]) == ("bad_request", "say . for this directory")


def test_the_name_that_people_see_is_enough_while_only_one_has_it(home: Home, project: Path, tmp_path: Path):
    name = workspace_of(str(project), home)
    assert workspace_of("my-shop", home) == workspace_of(name, home) == name
    other = tmp_path / "x" / "my shop"
    other.mkdir(parents=True)
    workspace_of(str(other), home)
    with pytest.raises(Rejected, match="conflict"):
        workspace_of("my-shop", home)
