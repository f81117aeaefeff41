"""Tool calls on the screen: in a few words, with their end, and without anything that moves the cursor."""

import pytest

from contracts.llm import LlmToken
from contracts.run import RunCreated, RunEvent, TasksAdded, TaskStarted
from contracts.run_tools import ToolAnswered, ToolRequested
from contracts.task import TaskSpec
from services.console.board_text import describe, summary, tree_text
from services.console.follow_run import Lines
from services.console.output import Output
from services.console.run_board import Board, take
from services.console.tool_text import call_text, outcome_text


@pytest.mark.parametrize(
    ("tool", "args", "text"),
    [
        ("fs", {"write": "/code/x.py", "content": "secret"}, "fs write /code/x.py"),
        ("fs", {"read": "/code/x.py"}, "fs read /code/x.py"),
        ("shell", {"cmd": ["mix", "test"]}, "shell mix test"),
        ("git", {"cmd": ["push", "--force"]}, "git push --force"),
        ("http", {"url": "https://docs.rs/x"}, "http GET https://docs.rs/x"),
        ("docker", {"image": "i", "cmd": ["ls"]}, "docker i ls"),
        ("lua", {"src": "return 1"}, "lua return 1"),
        ("shell", {"cmd": "rm -rf /"}, "shell"),
        ("shell", "nonsense", "shell"),
        ("te\x1b[31mst", {"cmd": ["a\nb", "\x1b]0;title\x07"]}, "te [31mst a b  ]0;title"),
    ],
)
def test_a_call_in_words(tool: str, args: object, text: str):
    assert call_text(tool, args).strip() == text
    assert call_text(tool, args).isprintable()


def test_a_long_call_is_cut():
    assert len(call_text("shell", {"cmd": ["x" * 1_000_000]})) == 80


def test_how_a_call_ended():
    assert outcome_text({"exit": 0}, None) == "ok"
    assert outcome_text({"exit": 2}, None, truncated=True) == "exit 2  (cut)"
    assert outcome_text({"status": 200}, None) == "200"
    assert outcome_text("anything", None) == "ok"
    assert outcome_text(None, {"class": "policy_violation", "code": "forbidden_path"}) == "denied forbidden_path"
    assert outcome_text(None, {"class": "execution", "code": "program_not_found"}) == "failed program_not_found"


def test_the_board_shows_what_runs_and_counts_what_ran():
    board = Board("r1")
    lines = []
    events: list[RunEvent] = [
        RunCreated("r1", 1),
        TasksAdded([TaskSpec(id="impl")]),
        TaskStarted("impl", 1, 1),
        ToolRequested("impl", 1, "llm-1", 1, "fs", {"write": "/code/x.py"}, 1),
        ToolRequested("impl", 1, "llm-1", 2, "shell", {"cmd": ["python", "-c", "1"]}, 1),
        ToolAnswered("impl", 1, 1, {"bytes_written": 3}),
    ]
    for event in events:
        take(board, event, 1_000)
        lines.append(describe(board, event))
    assert lines[-3:] == [None, None, "impl  ⚒ fs write /code/x.py ok"]
    tree = tree_text(board, 2_000, lambda text, _: text)
    assert "⚒ shell python -c 1 …" in tree
    assert "⚒ 2" in tree
    denial = ToolAnswered("impl", 1, 2, error={"class": "policy_violation", "code": "forbidden_command"})
    take(board, denial, 1_000)
    assert describe(board, denial) == "impl  ⚒ shell python -c 1 denied forbidden_command"
    assert "…" not in tree_text(board, 2_000, lambda text, _: text)
    assert "tools 2" in summary(board)
    assert "tools" not in summary(Board("r2"))


def test_an_answer_without_words_leaves_no_empty_line(capsys: pytest.CaptureFixture[str]):
    lines = Lines(Output(json=False))
    for token in (LlmToken("", 1, True), LlmToken("hi", 1, False), LlmToken("", 2, True)):
        lines.chunk("impl", token)
    assert capsys.readouterr().out == "impl> hi\n"


def test_secrets_of_a_call_are_not_shown():
    assert call_text("shell", {"cmd": ["mix", "deploy", "--token", "s3cret"]}) == "shell mix deploy --token ***"
    assert call_text("http", {"url": "https://a:s3cret@x/?api_key=s3cret"}) == "http GET https://a:***@x/?api_key=***"
