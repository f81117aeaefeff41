"""Whatever bytes a stream holds, looking at them shows them."""

import pytest

from services.console.commands.bus import _print, _print_newest, _print_oldest
from services.console.output import Output
from services.runtime.event_store import Recorded

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


@pytest.mark.parametrize(
    ("show", "shown", "note"), [(_print_oldest, "12", "the oldest 2"), (_print_newest, "23", "the newest 2 of 3")]
)
async def test_a_limit_shows_the_oldest_or_the_newest_in_order(show, shown, note, capsys):
    async def records():
        for seq in (1, 2, 3):
            yield Recorded(seq, "a.b", b"x", {})

    assert await show(Output(json=False), records(), 2) == 2
    said = capsys.readouterr()
    assert [line[0] for line in said.out.splitlines()] == list(shown)
    assert note in said.err


def test_a_commit_is_shown_event_by_event(capsys):
    commit = b'{"at":"now","by":"ann","cause":"m1","corr":"c1","events":[{"type":"a.v1","x":1},{"type":"b.v1"}]}'
    _print(Output(json=False), "a.b", commit, 3, {})
    assert capsys.readouterr().out.splitlines() == [
        "3  a.b  now  by ann  cause m1",
        '    a.v1  {"x": 1}',
        "    b.v1  {}",
    ]
