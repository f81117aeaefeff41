"""From a name to what runs: the system, toolchains, Python projects with and without an environment of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

from contracts.errors import Rejected
from services.policy_gateway.sandbox.box import Bind
from services.policy_gateway.tools.programs import Programs, Toolchain, rust_toolchains
from services.policy_gateway.tools.tool import Workspace
from tests.architecture.source import ROOT
from tests.attack.ground import Ground


def workspace(folder: Path, profile: str = "seed") -> Workspace:
    for name in ("code", "tmp"):
        (folder / name).mkdir(exist_ok=True)
    return Workspace("w1", folder / "code", folder / "tmp", profile)


def project(ground: Ground) -> None:
    """A small Python project: one module, one good and one bad test."""
    (ground.code / "pyproject.toml").write_text('[project]\nname = "small"\nversion = "1"\n')
    (ground.code / "small.py").write_text("def double(x: int) -> int:\n    return 2 * x\n")
    (ground.code / "test_small.py").write_text(
        "from small import double\n\n\ndef test_double():\n    assert double(2) == 4\n\n\n"
        "def test_bad():\n    assert double(2) == 5\n"
    )


@pytest.mark.box
async def test_a_project_without_an_environment_uses_the_gateways(tmp_path: Path) -> None:
    ground = Ground(tmp_path, profile="python")
    project(ground)
    assert (await ground.shell("ruff", "check", "."))["stdout"] == "All checks passed!\n"
    assert (await ground.shell("python", "-m", "compileall", "-q", "."))["exit"] == 0
    done = await ground.shell("pytest", "-q", "-p", "no:asyncio", profile="tester")
    assert (done["exit"], "1 failed, 1 passed" in done["stdout"]) == (1, True)


@pytest.mark.box
async def test_a_project_with_its_own_environment_uses_that(tmp_path: Path) -> None:
    ground = Ground(tmp_path, profile="python")
    project(ground)
    venv = ground.code / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    packages = next(venv.glob("lib/python3*/site-packages"))
    (packages / "own.py").write_text("WHERE = 'its own environment'\n")
    (ground.code / "src").mkdir()
    (ground.code / "src" / "edited.py").write_text("WHERE = 'editable'\n")
    (packages / "edited.pth").write_text(f"{ground.code}/src\n")
    script = venv / "bin" / "tool"
    script.write_text(f"#!{venv}/bin/python\nimport own, edited, sys\nprint(own.WHERE, edited.WHERE, sys.prefix)\n")
    script.chmod(0o755)
    assert (await ground.shell("tool"))["stdout"] == "its own environment editable /code/.venv\n"
    assert (await ground.shell("python", "-c", "import own; print(own.WHERE)"))["stdout"] == "its own environment\n"


@pytest.mark.box
async def test_our_own_repository_is_workable(tmp_path: Path) -> None:
    """Coder and tester in a checkout of htdag, with the environment that scripts/setup made."""
    ground = Ground(tmp_path, profile="python")
    ground.code.rmdir()
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        (ground.code / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            (ground.code / name).write_bytes((ROOT / name).read_bytes())
    assert (await ground.shell("ruff", "check", "."))["exit"] == 0
    assert (await ground.shell("python", "-m", "compileall", "-q", "contracts"))["exit"] == 0
    done = await ground.shell("pytest", "-q", "tests/unit/support", "tests/contracts", profile="tester")
    assert (done["exit"], "passed" in done["stdout"]) == (0, True), done


@pytest.mark.box
async def test_an_environment_of_a_foreign_interpreter_opens_no_folder(tmp_path: Path) -> None:
    """A workspace names its interpreter itself: where that leads is no reason to show it."""
    ground = Ground(tmp_path, profile="python")
    bin_folder = ground.code / ".venv" / "bin"
    bin_folder.mkdir(parents=True)
    (tmp_path / "private" / "bin").mkdir(parents=True)
    (tmp_path / "private" / "bin" / "python").write_text("#!/bin/sh\n")
    (bin_folder / "python").symlink_to(tmp_path / "private" / "bin" / "python")
    (ground.code / ".venv" / "pyvenv.cfg").write_text(f"home = {tmp_path}/private/bin\n")
    with pytest.raises(Rejected) as refused:
        await ground.shell("python", "-V")
    assert (refused.value.code, str(tmp_path) in refused.value.message) == ("program_not_found", False)


def test_the_gateways_environment_is_for_python_workspaces_only(tmp_path: Path) -> None:
    programs = Programs(toolchains=())
    assert programs.find("ruff", workspace(tmp_path, "python")).argv == ("/opt/htdag/bin/ruff",)
    with pytest.raises(Rejected):
        programs.find("ruff-of-nowhere", workspace(tmp_path))


def test_a_toolchain_is_shown_where_it_is_and_nothing_around_it(tmp_path: Path) -> None:
    chain = tmp_path / "chain"
    (chain / "bin").mkdir(parents=True)
    (chain / "bin" / "mytool").write_text('#!/bin/sh\necho "$MY_HOME"\n')
    (chain / "bin" / "mytool").chmod(0o755)
    found = Programs(toolchains=(Toolchain(chain, environment={"MY_HOME": "set"}),)).find("mytool", workspace(tmp_path))
    assert found.argv == (f"{chain}/bin/mytool",)
    assert found.binds == (Bind(chain, str(chain)),)
    assert found.environment == {"MY_HOME": "set", "PATH": f"{chain}/bin:/usr/local/bin:/usr/bin:/bin"}


@pytest.mark.parametrize("path", ["/root/bin/x", "/home/jo/bin/x", "/home/jo/.local/bin/x", "/bin/x"])
def test_a_home_is_never_the_prefix_of_a_program(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from services.policy_gateway.tools.programs import _prefix

    monkeypatch.setenv("HOME", "/root" if path.startswith("/root") else "/home/jo")
    assert _prefix(Path(path)) == Path(path)


def test_the_default_toolchain_of_rustup_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUSTUP_HOME", raising=False)
    assert rust_toolchains(tmp_path) == ()
    chain = tmp_path / ".rustup" / "toolchains" / "stable"
    (chain / "bin").mkdir(parents=True)
    (tmp_path / ".rustup" / "settings.toml").write_text('version = "12"\ndefault_toolchain = "stable"\n')
    assert rust_toolchains(tmp_path) == (Toolchain(chain),)
