"""Private files: whole or not at all, for their owner only, whatever stood in their way."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.runtime.private_files import create_private, replace_private

WRITERS = pytest.mark.parametrize("write", [replace_private, create_private])


@WRITERS
def test_only_the_owner_may_read_it_and_nothing_else_is_left(
    tmp_path: Path, write: Callable[[Path, str], object]
) -> None:
    before = os.umask(0)
    try:
        write(tmp_path / "key", "schlüssel\n")
    finally:
        os.umask(before)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "key").read_text("utf-8") == "schlüssel\n"
    assert os.listdir(tmp_path) == ["key"]


def test_an_older_file_is_replaced_and_a_link_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("other's")
    (tmp_path / "key").symlink_to(other)
    replace_private(tmp_path / "key", "new")
    assert ((tmp_path / "key").read_text(), other.read_text(), (tmp_path / "key").is_symlink()) == (
        "new",
        "other's",
        False,
    )


def test_of_many_that_create_one_wins_and_all_see_its_file(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(lambda n: create_private(tmp_path / "key", f"{n}"), range(32)))
    assert won.count(True) == 1
    assert (tmp_path / "key").read_text() == str(won.index(True))
    assert os.listdir(tmp_path) == ["key"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_what_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    replace_private(tmp_path / "key", "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"):
        replace_private(tmp_path / "key", "new")
    monkeypatch.undo()
    assert ((tmp_path / "key").read_text(), os.listdir(tmp_path)) == ("old", ["key"])


@WRITERS
def test_it_is_on_the_disk_before_it_has_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, str], object]
) -> None:
    done: list[str] = []
    real = {name: getattr(os, name) for name in ("fsync", "replace", "link")}
    for name, call in real.items():

        def noted(*given: object, name: str = name, call: Callable[..., object] = call) -> object:
            done.append(name)
            return call(*given)

        monkeypatch.setattr(os, name, noted)
    write(tmp_path / "key", "x")
    assert done == ["fsync", "replace" if write is replace_private else "link", "fsync"]
