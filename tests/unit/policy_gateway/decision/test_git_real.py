"""The git table against git itself: what is allowed there loses no history, stays inside, and starts nothing else."""

import json
import os
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from services.policy_gateway.decision.git import git
from services.policy_gateway.decision.git_table import SUBCOMMANDS
from services.policy_gateway.decision.paths import CODE
from services.policy_gateway.decision.plans import GitPlan

SEEDS = range(8)
CALLS_PER_SEED = 25
LACKS_VALUE = re.compile(r"requires an? (?:value|argument)")
UNKNOWN = re.compile(r"unknown (?:option|switch)|unrecognized argument|invalid option")
REVISIONS = [
    "HEAD",
    "HEAD~1",
    "main",
    "feature",
    "v1.0",
    "main..feature",
    "HEAD@{1}",
    "@{-1}",
    "HEAD^{tree}",
    "main:lib",
]
PATHS = ["lib/a.ex", "lib", ".", "README.md", "new.txt", "a b.txt", "nowhere", "*.md", ".gitignore", "../outside.txt"]
NAMES = ["topic", "topic/x", "v2.0", "main", "x.lock", "HEAD", "feature"]
VALUES = ["1", "2", "HEAD", "main", "short", "a", "%h %s", "2 days ago", "topic2", "1,2:lib/a.ex", "--force", "refname"]
WORDS = [
    *REVISIONS,
    *PATHS,
    *NAMES,
    "show",
    "push",
    "pop",
    "apply",
    "list",
    "stash@{0}",
    "pattern",
    "-1",
    "--",
    "--hard",
]


class Desk(NamedTuple):
    """A scratch repository with a file beside it, and where git tells what it starts."""

    repository: Path
    trace: Path

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run git as the sandbox does: with nothing of the machine's configuration, and nobody to edit a message."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_EDITOR": ":",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_TRACE2_EVENT": str(self.trace),
            "GIT_AUTHOR_NAME": "a",
            "GIT_AUTHOR_EMAIL": "a@example.org",
            "GIT_COMMITTER_NAME": "a",
            "GIT_COMMITTER_EMAIL": "a@example.org",
        }
        return subprocess.run(
            ["git", "--no-pager", "-c", "gc.auto=0", "-c", "maintenance.auto=false", *argv],
            cwd=self.repository,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=20,
            check=False,
        )

    def refs(self) -> dict[str, str]:
        """Every branch and tag, and the object it stands at."""
        listed = self.run("for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/tags").stdout
        return dict(line.split(" ") for line in listed.splitlines())

    def surroundings(self) -> dict[str, bytes]:
        """The files that no allowed command may touch: those outside, and git's own settings and hooks."""
        kept = [path for path in self.repository.parent.iterdir() if path.is_file() and path != self.trace]
        own = self.repository / ".git"
        kept += [own / "config", *(own / "hooks").iterdir(), *(own / "info").iterdir()]
        return {str(path): path.read_bytes() for path in kept}

    def started(self) -> list[str]:
        """The programs that git has started."""
        events = [json.loads(line) for line in self.trace.read_text().splitlines()]
        return [event["argv"][0] for event in events if event["event"] == "child_start"]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two branches, a tag, a stash and changes in its folder."""
    folder = tmp_path_factory.mktemp("template")
    desk = Desk(folder / "code", folder / "trace")
    (desk.repository / "lib").mkdir(parents=True)
    (folder / "outside.txt").write_text("keep me")
    desk.run("init", "-q", "-b", "main")
    for number in range(3):
        (desk.repository / "lib" / "a.ex").write_text(f"{number}\n" * 3)
        (desk.repository / "README.md").write_text("read me\n" * number)
        desk.run("add", ".")
        desk.run("commit", "-qm", f"commit {number}")
    desk.run("tag", "v1.0", "HEAD~1")
    desk.run("checkout", "-qb", "feature", "HEAD~1")
    (desk.repository / "b.txt").write_text("b\n")
    desk.run("add", ".")
    desk.run("commit", "-qm", "feature")
    desk.run("checkout", "-q", "main")
    (desk.repository / "lib" / "a.ex").write_text("stashed\n")
    desk.run("stash")
    (desk.repository / "README.md").write_text("changed\n")
    (desk.repository / "new.txt").write_text("new\n")
    (desk.repository / "a b.txt").write_text("new\n")
    desk.trace.unlink()
    return folder


def some_argv(chance: random.Random) -> list[str]:
    """A command that somebody could type: a subcommand, options of its table and of nobody's, words of all kinds."""
    name = chance.choice(list(SUBCOMMANDS))
    options = SUBCOMMANDS[name].options
    words: list[str] = []
    for _ in range(chance.choice([0, 0, 1, 1, 2, 3])):
        option, kind = chance.choice(list(options.items()))
        value = chance.choice(VALUES)
        match kind:
            case "flag":
                words.append(option)
            case "value" | "last":
                glued = option + ("=" if option.startswith("--") else "") + value
                words.extend(chance.choice([[option, value], [glued], [option]]))
            case _:
                words.append(
                    chance.choice([option, f"{option}={value}" if option.startswith("--") else option + value])
                )
    for _ in range(chance.choice([0, 1, 1, 2, 2])):
        words.append(chance.choice(WORDS))
    if chance.random() < 0.2:
        words += ["--", chance.choice(PATHS)]
    if chance.random() < 0.3:
        chance.shuffle(words)
    if chance.random() < 0.4 and name in {"commit", "tag"}:
        words = ["-m", "message", *words]
    return [name, *words]


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_allowed_loses_nothing_and_stays_inside(template: Path, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    shutil.copytree(template, tmp_path / "desk", symlinks=True)
    desk = Desk(tmp_path / "desk" / "code", tmp_path / "desk" / "trace")
    surroundings = desk.surroundings()
    before = desk.refs()
    done = succeeded = 0
    while done < CALLS_PER_SEED:
        argv = some_argv(chance)
        plan = git(argv, CODE)
        if not isinstance(plan, GitPlan):
            continue
        ended = desk.run(*plan.argv)
        done += 1
        succeeded += ended.returncode == 0
        if not plan.writes:
            continue
        after = desk.refs()
        for ref, commit in before.items():
            assert ref in after, (argv, plan)
            kept = after[ref] == commit or desk.run("merge-base", "--is-ancestor", commit, after[ref]).returncode == 0
            assert kept, (argv, plan)
        before = after
    assert before == desk.refs(), "a command moved refs and its plan does not say so"
    assert desk.surroundings() == surroundings
    assert set(desk.started()) <= {"git"}
    assert succeeded >= CALLS_PER_SEED // 10, "the words are no test when git takes none of them"


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_options_take_values_exactly_as_git_does(template: Path, tmp_path: Path, name: str) -> None:
    """A word that we took for a value and git for a path would be a word that nobody judged."""
    shutil.copytree(template, tmp_path / "desk", symlinks=True)
    desk = Desk(tmp_path / "desk" / "code", tmp_path / "desk" / "trace")
    for option, kind in SUBCOMMANDS[name].options.items():
        verb = ["push"] if name == "stash" else []
        told = desk.run(name, *verb, option).stderr
        if UNKNOWN.search(told):
            # One row serves diff, log and show: what one of them does not know it refuses itself.
            assert kind == "equals" or name in {"diff", "log", "show", "revert"}, (name, option, told)
            continue
        assert bool(LACKS_VALUE.search(told)) == (kind == "value"), (name, option, kind, told)
