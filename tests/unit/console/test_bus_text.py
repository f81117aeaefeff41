"""Whatever bytes a stream holds, looking at them shows them."""

import pytest

from services.console.commands.bus import _print
from services.console.output import Output

DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\x00", b"not json", DEEP, b'{"events":[1,null,"x"]}', b'{"events":[[]],"at":7}', b'{"events":{}}'],
)
def test_bytes_that_are_no_commit_are_shown_as_they_are(data, as_json, capsys):
    _print(Output(json=as_json), "a.b", data, 3, {})
    shown = capsys.readouterr().out
    assert "a.b" in shown
    assert "3" in shown


def test_a_commit_is_shown_event_by_event(capsys):
    commit = b'{"at":"now","by":"ann","cause":"m1","corr":"c1","events":[{"type":"a.v1","x":1},{"type":"b.v1"}]}'
    _print(Output(json=False), "a.b", commit, 3, {})
    assert capsys.readouterr().out.splitlines() == [
        "3  a.b  now  by ann  cause m1",
        '    a.v1  {"x": 1}',
        "    b.v1  {}",
    ]
