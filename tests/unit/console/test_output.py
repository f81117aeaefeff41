"""What goes to which stream, and how it looks."""

import json

import pytest

from contracts.errors import Rejected, failure
from contracts.reply import RemoteRejected
from contracts.run import RunCreated, RunSummary
from services.console import failure as failing
from services.console.output import Output, columns, duration, money, plain, size


def test_json_keeps_fields_at_their_default():
    value = plain(RunSummary("r1", "running"))
    assert (value["failed"], value["cost_unknown"], value["epic_id"]) == (0, False, None)


def test_a_tagged_struct_keeps_its_tag():
    assert plain(RunCreated("r1", 5))["type"] == "run.created.v1"


def test_data_goes_to_stdout_and_notes_to_stderr(capsys):
    output = Output()
    output.value({"a": 1}, "one")
    output.note("working")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("one\n", "working\n")


def test_with_json_only_documents_reach_stdout(capsys):
    output = Output(json=True)
    output.line("for people")
    output.piece("for people")
    output.value([RunSummary("r1", "running")], "text")
    assert json.loads(capsys.readouterr().out)[0]["run_id"] == "r1"


def test_colour_only_on_a_terminal(monkeypatch, capsys):
    assert Output().state("failed") == "failed"
    monkeypatch.setenv("FORCE_COLOR", "1")
    forced = Output()
    forced.line(forced.state("failed"))
    assert capsys.readouterr().out == "\x1b[31mfailed\x1b[0m\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert Output().state("failed") == "failed"


def test_a_column_is_as_wide_as_what_is_seen_of_it(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    output = Output()
    output.line(columns(("STATE", "N"), [(output.state("failed"), 1), (output.state("pending"), 2)]))
    assert capsys.readouterr().out == "STATE    N\n\x1b[31mfailed\x1b[0m   1\n\x1b[2mpending\x1b[0m  2\n"


def test_columns_are_aligned_and_nothing_is_cut():
    assert columns(("A", "LONG"), [("xyz", "1"), (None, "y" * 200)]) == f"A    LONG\nxyz  1\n-    {'y' * 200}"


@pytest.mark.parametrize(
    ("micros", "text"), [(0, "$0.0000"), (4300, "$0.0043"), (4301, "$0.004301"), (12_400_000, "$12.4000")]
)
def test_money(micros, text):
    assert money(micros) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0s"), (59.9, "59.9s"), (185, "3m05s"), (7265, "2h01m")])
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (98_362_432, "98.4 MB")])
def test_size(count, text):
    assert size(count) == text


def test_an_error_is_one_line_and_a_hint(capsys):
    code = failing.report(failure("cycle", path=["a", "b", "a"]), as_json=False)
    said = capsys.readouterr()
    assert said.err == (
        'error: cycle: the dependencies form a cycle (path=["a","b","a"])\nhint: remove one of the edges shown\n'
    )
    assert (said.out, code) == ("", 2)


def test_with_json_the_error_is_also_a_document(capsys):
    assert failing.report(failure("run_not_found", run_id="x"), as_json=True) == 3
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "run_not_found"


def test_a_refusal_is_found_inside_a_group():
    inner = ExceptionGroup("inner", [ValueError("x"), Rejected("timeout")])
    assert failing.wire_of(ExceptionGroup("outer", [inner]))["code"] == "timeout"
    assert failing.wire_of(RemoteRejected({"code": "cycle", "message": "m"}))["code"] == "cycle"
    assert failing.wire_of(ValueError("x")) is None


def test_ctrl_c_is_found_inside_a_group():
    assert failing.interrupted(BaseExceptionGroup("g", [KeyboardInterrupt()]))
    assert not failing.interrupted(ValueError("x"))
