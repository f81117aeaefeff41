"""The configuration that git sees is ours: what is harmless is kept as git itself understands it, the rest is gone."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.policy_gateway.sandbox import repository
from services.policy_gateway.sandbox.repository import BadRepository


def repository_of(folder: Path, config: str) -> Path:
    (folder / ".git").mkdir(parents=True, exist_ok=True)
    (folder / ".git" / "config").write_bytes(config.encode("utf-8", "surrogateescape"))
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    return folder


def listed(config: str, folder: Path) -> dict[str, str]:
    """The keys and values as git itself reads them."""
    path = folder / "listed"
    path.write_bytes(config.encode("utf-8", "surrogateescape"))
    command = ["git", "config", "--no-includes", "-z", "--list", "-f", str(path)]
    said = subprocess.run(command, capture_output=True, check=True, cwd="/").stdout.decode("utf-8", "surrogateescape")
    pairs = (entry.partition("\n") for entry in said.split("\0") if entry)
    return {name: value for name, _, value in pairs}


HARMLESS = """
# a comment
[core]
\trepositoryformatversion = 0 ; another
\tfilemode = true
\tbare = false
[remote "ori gin\\"al"]
\turl = "https://example.com/a b.git#x" # what follows is not
\tfetch = +refs/heads/*:refs/remotes/origin/*
[branch "feature/x"] merge = refs/heads/x
[user]
\tname = Jo "Quoted \\t Tab" Doe   \t
\temail=jo@example.com
[commit]
\tverbose
[diff]
\talgorithm = pat\\
ience
"""


def test_what_is_harmless_is_kept_as_git_understands_it(tmp_path: Path) -> None:
    ours = listed(repository.harmless_config(repository_of(tmp_path, HARMLESS), "coder"), tmp_path)
    theirs = listed(HARMLESS, tmp_path)
    assert {**ours, "core.bare": "false"} == theirs
    assert (ours["user.name"], ours["diff.algorithm"]) == ("Jo Quoted \t Tab Doe", "patience")


def test_who_commits_is_the_role_where_nobody_is_named(tmp_path: Path) -> None:
    ours = listed(repository.harmless_config(repository_of(tmp_path, "[user]\nname = Jo\n"), "coder"), tmp_path)
    assert ours == {"user.name": "Jo", "user.email": "coder@htdag"}


@pytest.mark.parametrize(
    "key",
    [
        *("filter.x.clean", "filter.x.smudge", "filter.x.process", "filter.x.required", "diff.x.command"),
        *("diff.x.textconv", "diff.external", "merge.x.driver", "core.sshCommand", "core.editor", "core.fsmonitor"),
        *("core.hooksPath", "core.pager", "core.askPass", "core.worktree", "core.attributesFile", "core.gitProxy"),
        *("include.path", "includeIf.gitdir:/.path", "alias.status", "credential.helper", "gpg.program"),
        *("gpg.ssh.program", "pager.log", "sequence.editor", "interactive.diffFilter", "uploadpack.packObjectsHook"),
        *("remote.o.uploadpack", "remote.o.receivepack", "remote.o.vcs", "remote.o.proxy", "submodule.x.update"),
        *("url.ext::sh.insteadOf", "browser.x.cmd", "difftool.x.cmd", "mergetool.x.cmd", "man.x.cmd", "trailer.x.cmd"),
        *("extensions.worktreeConfig", "extensions.partialClone", "gc.auto", "commit.template", "commit.gpgSign"),
        *(
            "fsmonitor.socketDir",
            "core.alternateRefsCommand",
            "core.preloadIndex",
            "trace2.eventTarget",
            "blame.ignoreRevsFile",
        ),
    ],
)
def test_what_can_name_a_program_or_a_file_is_gone(tmp_path: Path, key: str) -> None:
    section, _, last = key.rpartition(".")
    first, _, sub = section.partition(".")
    config = f'[{first} "{sub}"]\n\t{last} = touch marker\n' if sub else f"[{section}]\n\t{last} = touch marker\n"
    ours = repository.harmless_config(repository_of(tmp_path, config), "coder")
    assert set(listed(ours, tmp_path)) == {"user.name", "user.email"}


@pytest.mark.parametrize("config", ["[core", "x = 1\n", '[core]\nx = "open\n', "[core]\nname = a\\q\n", "[core]\n=x\n"])
def test_what_is_no_configuration_is_refused(tmp_path: Path, config: str) -> None:
    with pytest.raises(BadRepository):
        repository.harmless_config(repository_of(tmp_path, config), "coder")


PIECES = st.sampled_from(
    [
        *('[filter "x"]', "[core]", "[alias]", "[include]", "[core.x]", '[a "\\"]"]', "clean", "fsmonitor", "path"),
        *("=", "\n", '"', "\\", "\\\n", "#", ";", " ", "\t", "]", "[", "!sh", "\r\n", "\ufeff", "\0", "é", "\udcff"),
    ]
)


@given(st.lists(PIECES, max_size=24).map("".join))
def test_whatever_stands_in_the_file_git_sees_harmless_keys_only(
    tmp_path_factory: pytest.TempPathFactory, config: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    try:
        ours = repository.harmless_config(repository_of(folder, config), "coder")
    except BadRepository:
        return
    for key in listed(ours, folder):
        first, *sub, last = key.split(".")
        assert last in repository.HARMLESS[(first, bool(sub))]


@pytest.mark.parametrize("part", [".git", ".git/config", ".git/hooks", ".git/info"])
def test_a_part_that_is_a_link_is_refused(tmp_path: Path, part: str) -> None:
    code = tmp_path / "code"
    repository_of(tmp_path / "elsewhere", "")
    repository_of(code, "")
    if (code / part).is_dir():
        os.rename(code / part, tmp_path / "moved")
    (code / part).unlink(missing_ok=True)
    (code / part).symlink_to(tmp_path / "elsewhere" / ".git")
    with pytest.raises(BadRepository):
        repository.binds(code, "w", tmp_path / "state", "coder")


def test_a_repository_elsewhere_is_refused_and_none_is_none(tmp_path: Path) -> None:
    assert repository.binds(tmp_path, "w", tmp_path / "state", "coder") == ()
    (tmp_path / ".git").mkdir()
    assert repository.binds(tmp_path, "w", tmp_path / "state", "coder") == ()
    (tmp_path / ".git").rmdir()
    (tmp_path / ".git").write_text("gitdir: /elsewhere\n")
    with pytest.raises(BadRepository):
        repository.check(tmp_path)
