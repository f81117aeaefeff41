"""What folders hold: measured by blocks and entries, remembered as long as nothing hints at a change."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.errors import Rejected
from services.policy_gateway.sandbox.descent import OPEN_MAX, Descent, Moved
from services.policy_gateway.sandbox.emptying import empty
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


def dig(top: Path, depth: int) -> None:
    """Folders in each other, with a file in the last one: more than a path can name."""
    folder = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d" * 200, dir_fd=folder)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(os.open("last", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.close(folder)


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A tree that whoever cleans up after the tests could not remove."""
    dig(tmp_path, 100)
    yield tmp_path
    empty(tmp_path)


def test_a_tree_that_is_too_deep_to_be_named_counts_like_others(deep: Path) -> None:
    (deep / "beside").mkdir()
    found = measure([deep], bytes_max=1 << 40, entries_max=1_000)
    assert (found.entries, found.whole, found.closed) == (102, True, False)
    Ledger().check([deep], DEFAULTS, "/code")
    with pytest.raises(Rejected) as refused:
        Ledger().check([deep], DEFAULTS._replace(folders_entries=50), "/code")
    assert refused.value.code == "workspace_full"


def test_few_files_are_open_however_deep_it_is(deep: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Descent(deep) as descent:
        for _ in range(100):
            descent.down("d" * 200)
        assert len(os.listdir("/proc/self/fd")) <= before + OPEN_MAX + 1
        for _ in range(100):
            assert descent.up() == "d" * 200
        assert os.path.samestat(os.fstat(descent.here), deep.stat())
    assert len(os.listdir("/proc/self/fd")) == before


def back(descent: Descent) -> None:
    while descent.depth:
        descent.up()


def test_a_walk_never_comes_back_to_another_folder(tmp_path: Path) -> None:
    dig(tmp_path, 100)
    (tmp_path / "elsewhere").mkdir()
    name = "d" * 200
    with Descent(tmp_path) as descent:
        for _ in range(100):
            descent.down(name)
        (tmp_path / name / name).rename(tmp_path / "elsewhere" / name)
        with pytest.raises(Moved):
            back(descent)
    empty(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_folder_is_emptied_and_what_links_lead_to_stays(deep: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "kept").touch()
    (deep / "link").symlink_to(other)
    (deep / "closed").mkdir()
    (deep / "closed" / "file").touch()
    (deep / "closed").chmod(0)
    empty(deep)
    assert (os.listdir(deep), os.listdir(other)) == ([], ["kept"])


def test_a_full_workspace_loses_its_tmp_when_no_box_works_there(tmp_path: Path) -> None:
    code, tmp = tmp_path / "code", tmp_path / "tmp"
    for folder in (code, tmp):
        folder.mkdir()
    (code / "kept").touch()
    for number in range(20):
        (tmp / str(number)).touch()
    ledger, small = Ledger(), DEFAULTS._replace(folders_entries=10)
    with ledger.working_in([code, tmp]), pytest.raises(Rejected) as refused:
        ledger.check([code, tmp], small, "/code with /tmp", tmp=tmp)
    assert refused.value.code == "workspace_full"
    assert len(os.listdir(tmp)) == 20
    ledger.check([code, tmp], small, "/code with /tmp", tmp=tmp)
    assert (os.listdir(code), os.listdir(tmp)) == (["kept"], [])


def test_what_others_have_freed_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, free = Ledger(), Free(1 << 40, 1 << 20)
    monkeypatch.setattr("services.policy_gateway.sandbox.ledger.free_of", lambda _folders: free)
    (tmp_path / "gone").touch()
    ledger.check([tmp_path], DEFAULTS, "/code")
    (tmp_path / "gone").unlink()
    free = Free((1 << 40) + DEFAULTS.disk_written_bytes // 2, 1 << 20)
    ledger.check([tmp_path], DEFAULTS, "/code")
    assert entries(ledger, tmp_path) == 0


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
