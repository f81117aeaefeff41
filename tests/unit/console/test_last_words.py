"""Whoever waits for an instance reads why it does not start, not with which code it ended."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from services.console.supervision.last_words import last_words

CRASH = {"level": "error", "msg": "task_crashed", "code": "bad_config", "reason": "the key file is lost", "hint": "h"}
END = {"level": "info", "msg": "stopped", "exit_code": 78}
OLD: list[dict[str, object]] = [{**CRASH, "reason": "of yesterday", "instance": "i0"}, {**END, "instance": "i0"}]


def log_of(folder: Path, *entries: Mapping[str, object] | str) -> Path:
    path = folder / "identity.log"
    lines = [entry if isinstance(entry, str) else json.dumps({"instance": "i1", **entry}) for entry in entries]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_error_is_told_and_not_the_end(tmp_path: Path) -> None:
    assert last_words(log_of(tmp_path, *OLD, CRASH, END)) == " (bad_config: the key file is lost; h)"


def test_an_error_of_an_earlier_process_is_not_told(tmp_path: Path) -> None:
    told = last_words(log_of(tmp_path, *OLD, {"level": "info", "msg": "health"}))
    assert '"msg": "health"' in told


@pytest.mark.parametrize("line", ["[ERR] address already in use", '"text"', "[1]", "{"])
def test_what_is_no_log_line_of_ours_is_told_as_it_is(tmp_path: Path, line: str) -> None:
    assert last_words(log_of(tmp_path, line)) == f" ({line})"


def test_no_log_is_no_words(tmp_path: Path) -> None:
    assert last_words(tmp_path / "none") == ""
    assert last_words(log_of(tmp_path, "")) == ""
