"""What folders hold: measured by blocks and entries, remembered as long as nothing hints at a change."""

import os
from pathlib import Path

import pytest

from contracts.errors import Rejected
from services.policy_gateway.sandbox.holding import measure
from services.policy_gateway.sandbox.ledger import Free, Ledger
from services.policy_gateway.sandbox.limits import DEFAULTS


def entries(ledger: Ledger, folder: Path) -> int:
    known = ledger.known([folder])
    return known.entries if known is not None else -1


def test_blocks_and_folders_count_and_second_names_do_not(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(bytes(1 << 20))
    os.link(tmp_path / "file", tmp_path / "again")
    os.truncate(os.open(tmp_path / "sparse", os.O_CREAT | os.O_RDWR), 1 << 30)
    (tmp_path / "out").symlink_to("/usr")
    found = measure([tmp_path], bytes_max=1 << 40, entries_max=1_000)
    assert (found.entries, found.whole, found.closed) == (4, True, False)
    assert 1 << 20 <= found.bytes < 2 << 20


def test_a_tree_that_is_too_deep_to_be_named_is_too_much(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(40):
        os.mkdir("d" * 200, dir_fd=folder)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    with pytest.raises(Rejected) as refused:
        Ledger().check([tmp_path], DEFAULTS, "/code")
    assert (refused.value.code, "more folders" in refused.value.message) == ("workspace_full", True)


def test_a_look_ends_where_it_is_enough(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / str(number)).touch()
    found = measure([tmp_path], bytes_max=1 << 40, entries_max=10)
    assert (found.entries, found.whole) == (11, False)


def test_what_is_known_is_not_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, free = Ledger(), Free(1 << 40, 1 << 20)
    monkeypatch.setattr("services.policy_gateway.sandbox.ledger.free_of", lambda _folders: free)
    ledger.check([tmp_path], DEFAULTS, "/code")
    (tmp_path / "new").touch()
    ledger.check([tmp_path], DEFAULTS, "/code")
    assert entries(ledger, tmp_path) == 0
    free = Free((1 << 40) - DEFAULTS.folders_bytes // 2, 1 << 20)
    ledger.check([tmp_path], DEFAULTS, "/code")
    assert entries(ledger, tmp_path) == 1


def test_what_the_gateway_writes_itself_is_added(tmp_path: Path) -> None:
    ledger, small = Ledger(), DEFAULTS._replace(folders_bytes=1 << 20)
    ledger.check([tmp_path], small, "/code")
    ledger.add([tmp_path], 2 << 20)
    ledger.check([tmp_path], small, "/code")  # it was not really that much
    (tmp_path / "large").write_bytes(bytes(2 << 20))
    ledger.add([tmp_path], 2 << 20)
    with pytest.raises(Rejected):
        ledger.check([tmp_path], small, "/code")
