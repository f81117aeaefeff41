"""A repository that was poisoned before: no marker file ever appears, whatever its configuration names."""

import shutil
import stat
from pathlib import Path

import pytest

from contracts.errors import Rejected
from services.policy_gateway.decision.plans import Place
from services.policy_gateway.sandbox.box import Bind, Box
from tests.attack.ground import Ground

pytestmark = pytest.mark.box

PAYLOAD = "touch /code/marker /tmp/marker; exit 0"
EVERYDAY = [
    ("status",),
    ("diff", "HEAD"),
    ("add", "-A"),
    ("diff", "--cached"),
    ("commit", "-m", "x"),
    ("log", "-p", "-1"),
    ("show", "HEAD"),
    ("stash", "push"),
    ("stash", "list"),
    ("stash", "pop"),
    ("switch", "other"),
    ("merge", "--no-edit", "main"),
    ("blame", "a.poison"),
    ("grep", "one"),
    ("reset", "-q"),
    ("checkout", "main"),
    ("tag", "-a", "v1", "-m", "v1"),
]
POISON = {
    "filter": '[filter "p"]\n\tclean = {0}\n\tsmudge = {0}\n\tprocess = {0}\n\trequired = true\n',
    "diff": '[diff "p"]\n\tcommand = {0}\n\ttextconv = {0}\n[diff]\n\texternal = {0}\n',
    "merge": '[merge "p"]\n\tdriver = {0}\n[merge]\n\tdefault = p\n',
    "core": "[core]\n\tsshCommand = {0}\n\teditor = {0}\n\tfsmonitor = {0}\n\tpager = {0}\n\thooksPath = /code/hooks\n",
    "pager": "[pager]\n\tlog = {0}\n\tdiff = {0}\n\tstatus = {0}\n\tshow = {0}\n[core]\n\tpager = {0}\n",
    "include": "[include]\n\tpath = /code/included\n\tpath = ../included\n"
    '[includeIf "gitdir:**"]\n\tpath = /code/included\n',
    "alias": "[alias]\n\tstatus = !{0}\n\tst = !{0}\n\tcommit = !{0}\n",
    "gpg": "[commit]\n\tgpgSign = true\n[tag]\n\tgpgSign = true\n[gpg]\n\tprogram = /code/evil\n"
    "[log]\n\tshowSignature = true\n",
    "worktree": "[extensions]\n\tworktreeConfig = true\n[core]\n\trepositoryformatversion = 1\n",
    "partial": '[extensions]\n\tpartialClone = o\n[remote "o"]\n\turl = ext::sh -c "{0}"\n\tpromisor = true\n',
    "maintenance": "[gc]\n\tauto = 1\n\tautoDetach = false\n[maintenance]\n\tauto = true\n\tstrategy = incremental\n",
    "trailer": '[trailer "x"]\n\tcommand = {0}\n\tcmd = {0}\n[sequence]\n\teditor = {0}\n'
    "[credential]\n\thelper = !{0}\n",
    "transport": '[protocol]\n\tallow = always\n[protocol "ext"]\n\tallow = always\n'
    '[url "ext::{0} "]\n\tinsteadOf = /code/.git\n\tinsteadOf = /shadow\n[core]\n\tgitProxy = {0}\n'
    '\talternateRefsCommand = {0}\n\taskPass = {0}\n[remote "o"]\n\tvcs = x\n\tuploadpack = {0}\n\treceivepack = {0}\n'
    '[uploadpack]\n\tpackObjectsHook = {0}\n[submodule "s"]\n\tupdate = !{0}\n[credential]\n\thelper = {0}\n',
    "tools": '[diff]\n\ttool = t\n\tguitool = t\n[merge]\n\ttool = t\n[difftool "t"]\n\tcmd = {0}\n'
    '[mergetool "t"]\n\tcmd = {0}\n[interactive]\n\tdiffFilter = {0}\n[add "interactive"]\n\tuseBuiltin = false\n'
    '[tar "tar.gz"]\n\tcommand = {0}\n[browser "b"]\n\tcmd = {0}\n[man "m"]\n\tcmd = {0}\n[web]\n\tbrowser = b\n',
    "signing": "[commit]\n\tgpgSign = true\n[tag]\n\tgpgSign = true\n[gpg]\n\tformat = ssh\n"
    '[gpg "ssh"]\n\tprogram = {0}\n\tdefaultKeyCommand = {0}\n[gpg "openpgp"]\n\tprogram = {0}\n'
    '[gpg "x509"]\n\tprogram = {0}\n[log]\n\tshowSignature = true\n[merge]\n\tverifySignatures = true\n',
    "template": "[init]\n\ttemplateDir = /code/hooks\n[core]\n\tattributesFile = /code/.gitattributes\n"
    "\tworktree = /tmp\n\tbare = true\n[commit]\n\ttemplate = /code/evil\n[safe]\n\tdirectory = *\n",
}
HOOKS = [
    *("pre-commit", "commit-msg", "post-commit", "post-checkout", "post-merge"),
    *("post-index-change", "reference-transaction"),
]


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    ground = Ground(tmp_path)
    ground.host_git("init", "-q", "-b", "main")
    (ground.code / ".gitattributes").write_text("* filter=p diff=p merge=p\n")
    (ground.code / "a.poison").write_text("one\n")
    script(ground.code / "evil")
    ground.host_git("add", "-A")
    ground.host_git("commit", "-q", "-m", "first")
    ground.host_git("branch", "other")
    (ground.code / ".git" / "info" / "attributes").write_text("* filter=p diff=p merge=p\n")
    (ground.code / "a.poison").write_text("two\n")
    for name in HOOKS:
        script(ground.code / ".git" / "hooks" / name)
        script(ground.code / "hooks" / name)
    return ground


def script(path: Path) -> None:
    """A program that leaves the marker; as a script it needs a shell that the box does not have."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{PAYLOAD}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXOTH)


async def no_marker_appears(ground: Ground) -> None:
    for argv in EVERYDAY:
        done = await ground.git(*argv)
        # Files of the poisoned names stay as they are: what runs, runs to a sensible end.
        assert done["exit"] in {0, 1, 128}, (argv, done)
        assert not (ground.code / "marker").exists(), argv
        assert not (ground.tmp / "marker").exists(), argv


@pytest.mark.parametrize("name", POISON)
async def test_no_program_of_a_poisoned_configuration_runs(ground: Ground, name: str) -> None:
    config = ground.code / ".git" / "config"
    payloads = ("sh -c 'touch /code/marker /tmp/marker'", "/code/evil")
    text = "".join(POISON[name].replace("{0}", payload) for payload in payloads)
    config.write_text(config.read_text() + text)
    (ground.code / "included").write_text(POISON["core"].replace("{0}", payloads[0]))
    (ground.code / ".git" / "config.worktree").write_text(POISON["core"].replace("{0}", payloads[0]))
    await no_marker_appears(ground)


async def test_no_hook_runs(ground: Ground) -> None:
    await no_marker_appears(ground)


async def test_no_other_folder_stands_in_for_the_repository(ground: Ground) -> None:
    """A `commondir` file names another folder for the configuration."""
    evil = ground.code / "evil.git"
    evil.mkdir()
    (evil / "config").write_text(POISON["core"].replace("{0}", "/code/evil"))
    (ground.code / ".git" / "commondir").write_text("/code/evil.git\n")
    await no_marker_appears(ground)


def nested(ground: Ground) -> Path:
    """A repository below /code with a hostile configuration, as an agent can build one at any time."""
    inner = ground.code / "inner"
    inner.mkdir()
    ground.host_git("init", "-q", "inner")
    ground.host_git("-C", "inner", "commit", "-q", "--allow-empty", "-m", "inner")
    (inner / "x").write_text("x")
    for name in HOOKS:
        script(inner / ".git" / "hooks" / name)
    with (inner / ".git" / "config").open("a") as config:
        config.write(POISON["core"].replace("{0}", "/code/evil") + "[core]\n\tfsmonitor = /code/program\n")
    # A real program, not a script: it needs no shell.
    (ground.code / "program").write_bytes(Path("/usr/bin/touch").read_bytes())
    (ground.code / "program").chmod(0o755)
    return inner


@pytest.mark.parametrize("ignore", ["", "none", "untracked", "dirty"])
async def test_a_hostile_submodule_is_not_asked(ground: Ground, ignore: str) -> None:
    nested(ground)
    said = f"\tignore = {ignore}\n" if ignore else ""
    (ground.code / ".gitmodules").write_text(f'[submodule "inner"]\n\tpath = inner\n\turl = ./inner\n{said}')
    ground.host_git("-c", "advice.addEmbeddedRepo=false", "add", "inner", ".gitmodules")
    await no_marker_appears(ground)
    left = {path.name for path in ground.code.iterdir()} & {"1", "2", "marker"}
    assert left == set()


async def test_a_filter_of_a_submodule_is_not_run(ground: Ground) -> None:
    # Without arguments, since there is no shell to take them apart: mktemp leaves a file in /tmp.
    inner = ground.code / "inner"
    inner.mkdir()
    (ground.code / "program").write_bytes(Path("/usr/bin/mktemp").read_bytes())
    (ground.code / "program").chmod(0o755)
    ground.host_git("init", "-q", "inner")
    (inner / "f").write_text("1\n")
    ground.host_git("-C", "inner", "add", "f")
    ground.host_git("-C", "inner", "commit", "-qm", "f")
    (inner / ".gitattributes").write_text("* filter=x\n")
    with (inner / ".git" / "config").open("a") as config:
        config.write('[filter "x"]\n\tclean = /code/program\n')
    (ground.code / ".gitmodules").write_text('[submodule "inner"]\n\tpath = inner\n\turl = ./inner\n\tignore = none\n')
    ground.host_git("-c", "advice.addEmbeddedRepo=false", "add", "inner", ".gitmodules")
    (inner / "f").write_text("2\n")
    for words in (["status"], ["diff"], ["add", "."], ["commit", "-am", "x"], ["stash"]):
        await ground.git(*words)
        assert list(ground.tmp.glob("tmp.*")) == [], words


async def test_a_repository_behind_a_link_is_not_entered(ground: Ground) -> None:
    inner = nested(ground)
    (ground.code / "other").mkdir()
    (ground.code / "other" / ".git").symlink_to(inner / ".git")
    done = await ground.git("status")
    assert (done["exit"], "is a link" in done["stderr"]) == (128, True)


async def test_git_in_a_nested_repository_speaks_of_the_workspace(ground: Ground) -> None:
    nested(ground)
    inside = Place("code", ("inner",))
    done = await ground.git("rev-parse", "--show-toplevel", cwd=inside)
    assert done["stdout"] == "/code\n"
    await ground.git("status", cwd=inside)
    assert not (ground.code / "marker").exists()


async def test_the_box_of_git_holds_no_shell_and_no_interpreter(ground: Ground, tmp_path: Path) -> None:
    """Even a key that slips through has nothing to run."""
    box = Box((Bind(ground.code, "/code", writable=True),), {"PATH": "/usr/bin:/bin"}, "/code", programs="none")
    deadline_s = ground.ticket().deadline_s
    for program in ("/bin/sh", "/usr/bin/env", "/usr/bin/python3", "/usr/bin/perl", "/bin/bash"):
        with pytest.raises(Rejected) as refused:
            await ground.sandbox.run(box, [program], deadline_s)
        assert refused.value.code == "program_not_found"


@pytest.mark.parametrize("name", ["filter", "diff", "core", "include", "worktree", "hooks", "submodule"])
async def test_the_poison_is_real(ground: Ground, name: str) -> None:
    """The same repositories leave the marker where git is run without this tool: the tests above can fail."""
    payload = "sh -c 'touch /code/marker'"
    config = ground.code / ".git" / "config"
    config.write_text(config.read_text() + POISON.get(name, "").replace("{0}", payload))
    (ground.code / "included").write_text(POISON["core"].replace("{0}", payload))
    (ground.code / ".git" / "config.worktree").write_text(POISON["core"].replace("{0}", payload))
    if name == "submodule":
        nested(ground)
        (ground.code / ".gitmodules").write_text('[submodule "inner"]\n\tpath = inner\n\turl = ./inner\n')
        ground.host_git("-c", "core.hooksPath=/dev/null", "add", "inner", ".gitmodules")
    if name != "hooks":
        shutil.rmtree(ground.code / ".git" / "hooks")
    for argv in (("diff",), ("add", "-A"), ("status",), ("commit", "-q", "-m", "x")):
        await ground.shell("git", *argv, profile="admin")
    left = {path.name for path in ground.code.iterdir()} & {"1", "2", "marker"}
    assert left
