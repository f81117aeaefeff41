"""What the tasks of a run have read, in lines: escaped, and never more than a screen of them."""

from typing import Any

from services.console.taint_text import TASKS_SHOWN_MAX, read_text, taint_lines


def task(name: str, *what: str, after: tuple[str, ...] = (), more: int = 0) -> dict[str, Any]:
    return {"id": name, "read": [{"tool": "fs", "what": one} for one in what], "read_more": more,
            "tainted_by": list(after)}  # fmt: skip


def test_readings_on_one_line_are_few_and_the_others_counted() -> None:
    read = task("a", *"123456")["read"]
    assert read_text(read, 2) == "fs 1, fs 2, fs 3, and at least 5 more"
    assert read_text([{"tool": "shell"}], 0) == "shell"
    assert read_text([], 0) == ""


def test_a_run_that_read_nothing_has_no_lines() -> None:
    assert taint_lines([task("a"), task("b")]) == []


def test_readers_have_a_line_each_and_those_behind_them_one() -> None:
    tasks = [task("a", "/code/x\x1b[2K"), task("b", "/code/y", after=("a",)), task("c", after=("a", "b")), task("d")]
    assert taint_lines(tasks) == ["read   a  fs /code/x\\u001b[2K", "read   b  fs /code/y", "taint  b, c"]


def test_of_many_tasks_the_first_are_shown() -> None:
    lines = taint_lines(task(f"t{number}", "/code/x", after=("t0",)) for number in range(TASKS_SHOWN_MAX + 5))
    assert len(lines) == TASKS_SHOWN_MAX + 2
    assert lines[-2] == "read   … and 5 more tasks"
    assert lines[-1].endswith(", and 5 more")
