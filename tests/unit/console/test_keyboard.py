"""What people type is waited for so that Ctrl-C ends the wait, and a terminal is left as it was found."""

import asyncio
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.errors import Rejected
from services.console import keyboard
from tests.e2e.instance import HTDAG, environment
from tests.support.eventually import eventually


class Terminal:
    """Both ends of a terminal: what the person types goes in at `person`."""

    def __init__(self) -> None:
        self.person, self.line = pty.openpty()

    def type(self, text: str) -> None:
        os.write(self.person, text.encode())

    @property
    def shows(self) -> bool:
        """Whether what is typed is shown."""
        return bool(termios.tcgetattr(self.line)[3] & termios.ECHO)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    made = Terminal()
    with os.fdopen(made.line, "r", closefd=False) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield made
    os.close(made.person)
    os.close(made.line)


async def test_a_line_is_what_was_typed_before_enter(terminal: Terminal) -> None:
    terminal.type("Aka\n483 291\n")
    assert (await keyboard.ask("Who are you?"), await keyboard.ask("Enter your code.")) == ("Aka", "483 291")


async def test_a_wait_for_a_person_can_be_cancelled(terminal: Terminal) -> None:
    waits = asyncio.create_task(keyboard.ask("Who are you?"))
    await asyncio.sleep(0)
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
    terminal.type("Aka\n")
    assert await keyboard.ask("Who are you?") == "Aka"


async def test_a_password_is_not_shown_and_the_terminal_shows_again_afterwards(terminal: Terminal) -> None:
    waits = asyncio.create_task(keyboard.ask_password("Password."))
    await eventually(lambda: not terminal.shows)
    terminal.type("secret\n")
    assert await waits == "secret"
    assert terminal.shows


async def test_a_cancelled_password_leaves_the_terminal_as_it_was(terminal: Terminal) -> None:
    waits = asyncio.create_task(keyboard.ask_password("Password."))
    await eventually(lambda: not terminal.shows)
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
    assert terminal.shows


async def test_the_end_of_the_input_is_said(terminal: Terminal) -> None:
    terminal.type("\x04")
    with pytest.raises(Rejected, match="bad_request"):
        await keyboard.ask("Who are you?")


@pytest.mark.parametrize("kind", ["pipe", "file"])
async def test_lines_of_a_pipe_or_a_file_are_taken_one_by_one(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"secret\nAka\nlast")
    os.close(writing)
    (tmp_path / "lines").write_text("secret\nAka\nlast")
    with os.fdopen(reading) as pipe, (tmp_path / "lines").open() as file:
        monkeypatch.setattr(sys, "stdin", pipe if kind == "pipe" else file)
        assert [await keyboard.ask_password("Password."), await keyboard.ask("?"), await keyboard.ask("?")] == [
            "secret",
            "Aka",
            "last",
        ]
        with pytest.raises(Rejected, match="bad_request"):
            await keyboard.ask("?")


async def test_a_line_without_an_end_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "long").write_text("x" * (keyboard.LINE_BYTES_MAX + 1))
    with (tmp_path / "long").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        with pytest.raises(Rejected, match="too_large"):
            await keyboard.ask("?")


async def test_without_any_input_it_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(Rejected, match="no input"):
        await keyboard.ask_password("Password.")


async def test_ctrl_c_at_a_password_ends_the_command_at_once(tmp_path: Path) -> None:
    terminal = Terminal()
    command = subprocess.Popen(
        [HTDAG, "users", "unlock", "aka"], env=environment(HTDAG_HOME=str(tmp_path)), stdin=terminal.line,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        await eventually(lambda: not terminal.shows, timeout_s=20)
        command.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(command.wait, 10) == 130
        assert terminal.shows
    finally:
        command.kill()
        command.wait()
