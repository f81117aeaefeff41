"""Workspaces: found by name, bound to directories of the user, never to what holds more than a project."""

from pathlib import Path

import pytest

from contracts.errors import Rejected
from services.policy_gateway.workspaces import SETTINGS, Workspaces, name_of, profile_of


@pytest.fixture
def workspaces(tmp_path: Path) -> Workspaces:
    found = Workspaces(tmp_path / "home" / "workspaces", tmp_path / "home")
    found.start()
    return found


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "My Project"
    folder.mkdir()
    return folder


def refused(call, *arguments) -> Rejected:
    with pytest.raises(Rejected) as caught:
        call(*arguments)
    return caught.value


def test_the_default_workspace_is_made_at_the_start(workspaces: Workspaces, tmp_path: Path) -> None:
    found = workspaces.find(None)
    assert found.name == "default"
    assert (found.code, found.tmp) == (
        tmp_path / "home/workspaces/default/code",
        tmp_path / "home/workspaces/default/tmp",
    )
    assert found.profile == "seed"
    assert found.code.is_dir()
    assert found.tmp.is_dir()
    assert (tmp_path / "home/workspaces").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["nobody", "", ".", "..", "a/b", "../home", "x" * 65, "a\0b", "default\n"])
def test_a_name_without_a_folder_or_no_name_at_all_is_not_found(workspaces: Workspaces, name: str) -> None:
    assert refused(workspaces.find, name).code == "workspace_not_found"


def test_a_workspace_whose_code_vanished_is_not_found(workspaces: Workspaces) -> None:
    workspaces.find(None).code.rmdir()
    assert refused(workspaces.find, None).code == "workspace_not_found"


def test_a_bound_directory_that_vanished_or_became_a_link_is_not_found(workspaces: Workspaces, project: Path) -> None:
    bound = workspaces.bind(None, project)
    project.rename(project.with_name("elsewhere"))
    assert refused(workspaces.find, bound.name).code == "workspace_not_found"
    project.symlink_to("/etc")
    assert refused(workspaces.find, bound.name).code == "workspace_not_found"


def test_the_temporary_folder_is_made_again_when_somebody_removed_it(workspaces: Workspaces) -> None:
    workspaces.find(None).tmp.rmdir()
    assert workspaces.find(None).tmp.is_dir()


def test_a_directory_is_bound_under_a_name_of_its_own(workspaces: Workspaces, project: Path, tmp_path: Path) -> None:
    bound = workspaces.bind(None, project)
    assert bound.code == project
    assert bound.name == name_of(project)
    assert bound.name.startswith("My-Project-")
    assert bound.tmp == tmp_path / "home/workspaces" / bound.name / "tmp"
    assert workspaces.find(bound.name) == bound
    settings = tmp_path / "home/workspaces" / bound.name / SETTINGS
    assert settings.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in settings.parent.iterdir() if path.name.startswith(".")] == []


def test_binding_again_changes_nothing_but_the_profile(workspaces: Workspaces, project: Path) -> None:
    first = workspaces.bind(None, project)
    assert workspaces.bind(None, project) == first
    assert workspaces.bind(None, project, "python").profile == "python"
    assert workspaces.bind(None, project).profile == "python"


def test_a_link_to_a_directory_binds_the_directory(workspaces: Workspaces, project: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(project)
    assert workspaces.bind(None, link) == workspaces.bind(None, project)


def test_a_name_keeps_its_code(workspaces: Workspaces, project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    workspaces.bind("mine", project)
    assert refused(workspaces.bind, "mine", other).code == "conflict"
    assert refused(workspaces.bind, "default", project).code == "conflict"
    assert refused(workspaces.bind, "a.b", project).code == "bad_id"


@pytest.mark.parametrize("path", ["/", "/home", "/root", "/etc", "/usr", "/usr/lib", "/proc", "/dev", "/tmp", "~"])
def test_what_holds_more_than_a_project_is_not_bound(workspaces: Workspaces, path: str) -> None:
    assert refused(workspaces.bind, None, Path(path)).code == "bad_request"


@pytest.mark.parametrize("path", ["home", "home/workspaces", "home/workspaces/default/code", "home/keys", "."])
def test_the_home_of_the_instance_is_not_bound(workspaces: Workspaces, tmp_path: Path, path: str) -> None:
    (tmp_path / "home/keys").mkdir()
    assert refused(workspaces.bind, None, tmp_path / path).code == "bad_request"


def test_a_file_or_nothing_is_not_bound(workspaces: Workspaces, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert refused(workspaces.bind, None, tmp_path / "file").code == "bad_request"
    assert refused(workspaces.bind, None, tmp_path / "nothing").code == "bad_request"


@pytest.mark.parametrize(
    "text", ["code = 3", 'code = "relative"', 'colour = "red"', 'profile = "admin"', "code = ", "\0", '"' * 3]
)
def test_a_settings_file_that_makes_no_sense_is_a_configuration_error(workspaces: Workspaces, text: str) -> None:
    (workspaces.find(None).code.parent / SETTINGS).write_text(text)
    assert refused(workspaces.find, None).code == "bad_config"


def test_settings_are_read_again_when_they_change(workspaces: Workspaces, project: Path) -> None:
    settings = workspaces.find(None).code.parent / SETTINGS
    settings.write_text('profile = "python"\n')
    assert workspaces.find(None).profile == "python"
    settings.write_text(f'code = "{project}"\n')
    assert workspaces.find(None).code == project


@pytest.mark.parametrize("name", ['quote"s', "back\\slash", "ünïcode 日本 🦊"])
def test_any_directory_name_can_be_written_down(workspaces: Workspaces, tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert workspaces.bind(None, tmp_path / name).code == tmp_path / name


@pytest.mark.parametrize(
    ("files", "profile"),
    [
        ([], "seed"),
        (["pyproject.toml"], "python"),
        (["setup.py"], "python"),
        (["requirements.txt"], "python"),
        (["mix.exs"], "seed"),
        (["mix.exs", "requirements.txt"], "seed"),
        (["pyproject.toml", "package.json"], "python"),
        (["Cargo.toml"], "seed"),
        (["gleam.toml"], "seed"),
        (["a.py", "notes.txt"], "python"),
        (["package.json", "a.py"], "seed"),
        (["notes.txt"], "seed"),
    ],
)
def test_the_profile_follows_the_project(tmp_path: Path, files: list[str], profile: str) -> None:
    for name in files:
        (tmp_path / name).write_text("")
    assert profile_of(tmp_path) == profile
