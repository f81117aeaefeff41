"""The top level is as people expect it, and every file has its place."""

import ast
import subprocess
from pathlib import Path

import pytest

from tests.architecture.source import ROOT, sources

TOP_LEVEL = {
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "contracts",
    "infra",
    "pyproject.toml",
    "requirements.lock",
    "scripts",
    "services",
    "subjects.md",
    "tests",
}
VAGUE = {"common", "utils", "util", "helpers", "helper", "misc", "manager", "managers", "models_base", "base"}


def tracked() -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [Path(line) for line in listed.stdout.splitlines()]


def test_the_top_level_is_as_it_was_fixed() -> None:
    assert {path.parts[0] for path in tracked()} == TOP_LEVEL


def test_no_file_has_a_vague_name() -> None:
    assert [str(path) for path in tracked() if path.stem in VAGUE or VAGUE & set(path.parts[:-1])] == []


def test_scripts_carry_no_suffix_and_can_be_run() -> None:
    for path in (ROOT / "scripts").iterdir():
        if path.is_file() and path.name != "__init__.py":
            assert path.suffix == "", path.name
            assert path.stat().st_mode & 0o111, f"chmod +x scripts/{path.name}"


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "scripts").iterdir() if path.is_file()))
def test_every_script_explains_itself(name: str) -> None:
    if name == "__init__.py":
        return
    done = subprocess.run([ROOT / "scripts" / name, "--help"], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: scripts/" in done.stdout


def test_every_python_program_is_linted() -> None:
    """ruff finds files by suffix; those without one must be named in pyproject.toml."""
    named = (ROOT / "pyproject.toml").read_text()
    programs = [source.path for source in sources("scripts") if not source.path.endswith(".py")]
    assert programs
    assert [path for path in programs if f'"{path}"' not in named] == []


def test_every_package_says_what_it_is() -> None:
    silent = [
        source.path
        for source in sources()
        if source.path.endswith("__init__.py") and ast.get_docstring(source.tree) is None
    ]
    assert silent == []
