"""The README is true: its console and python blocks run, in order, against a real instance."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
COMMAND_TIMEOUT_S = 150


class Step(NamedTuple):
    """One command of the README and the lines that stand below it; `…` stands for anything."""

    line: int
    command: str
    expected: list[str]


def steps_of(readme: str) -> Iterator[Step]:
    for block in re.finditer(r"^```(console|python)\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL):
        line = readme[: block.start()].count("\n") + 2
        if block[1] == "python":
            yield Step(line, f"python - <<'PYTHON'\n{block[2]}PYTHON", [])
        else:
            yield from console_steps(line, block[2].splitlines())


def console_steps(line: int, lines: list[str]) -> Iterator[Step]:
    step: Step | None = None
    for number, text in enumerate(lines, line):
        if text.startswith("$ "):
            if step:
                yield step
            step = Step(number, text[2:], [])
        elif step and text.startswith("> ") and not step.expected:
            step = step._replace(command=f"{step.command}\n{text[2:]}")
        elif step:
            step.expected.append(text)
    if step:
        yield step


class Shell:
    """One bash for the whole README: what a block exports, the next one has."""

    def __init__(self, folder: Path) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("HTDAG_", "NATS_"))}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
        environment["COLUMNS"] = "160"
        self._script = folder / "command.sh"
        self._bash = subprocess.Popen(
            ["bash"], cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def run(self, command: str) -> tuple[int, str]:
        """Exit code and output (both streams) of one command."""
        self._script.write_text(command + "\n")
        assert self._bash.stdin
        assert self._bash.stdout
        self._bash.stdin.write(f'source "{self._script}" </dev/null; printf "\\n:END %d\\n" $?\n'.encode())
        self._bash.stdin.flush()
        said: list[str] = []
        for line in self._bash.stdout:
            ended = re.fullmatch(rb":END (\d+)\n", line)
            if ended:
                return int(ended[1]), "".join(said)
            said.append(line.decode(errors="replace"))
        return -1, "".join(said)

    def end(self) -> None:
        """Stop the instance, if one was started, and the shell."""
        if self._bash.poll() is None:
            self.run('[[ -z "${HTDAG_HOME:-}" ]] || htdag down')
        assert self._bash.stdin
        assert self._bash.stdout
        self._bash.stdin.close()
        self._bash.stdout.close()
        self._bash.wait(10)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, as a home's is: a socket's path has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="htdag-") as path:
        yield Path(path)


@pytest.fixture
def shell(folder: Path) -> Iterator[Shell]:
    bash = Shell(folder)
    yield bash
    bash.end()


def shows(output: str, expected: str) -> bool:
    """Whether the pieces of `expected` between the `…` stand in the output, in this order."""
    text = re.sub(r"\s+", " ", output)
    place = 0
    for piece in filter(None, (re.sub(r"\s+", " ", part) for part in expected.split("…"))):
        place = text.find(piece, place)
        if place < 0:
            return False
        place += len(piece)
    return True


@pytest.mark.timeout(COMMAND_TIMEOUT_S * 3)
def test_every_block_of_the_readme_does_what_it_says(shell: Shell, folder: Path) -> None:
    readme = (ROOT / "README.md").read_text().replace("/tmp/", f"{folder}/")
    steps = list(steps_of(readme))
    assert len(steps) > 15
    for step in steps:
        code, output = shell.run(step.command)
        assert code == 0, f"README.md:{step.line} ended with {code}\n$ {step.command}\n{output}"
        missing = [line for line in step.expected if not shows(output, line)]
        assert missing == [], f"README.md:{step.line} does not print {missing}\n$ {step.command}\n{output}"
