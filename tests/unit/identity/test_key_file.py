"""The key file is private, is changed by one at a time, and is never quietly replaced."""

import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from contracts.errors import Rejected
from services.identity.key_file import DROPPED_MAX, KeyFile


def test_the_key_file_is_private_and_refused_when_it_is_not(key_file):
    assert stat.S_IMODE(key_file.path.stat().st_mode) == 0o600
    key_file.path.chmod(0o640)
    with pytest.raises(Rejected, match="open to others"):
        KeyFile(key_file.path).read()


def test_a_lost_or_broken_key_file_is_not_replaced(key_file):
    key_file.path.unlink()
    with pytest.raises(Rejected, match="is lost"):
        key_file.read()
    key_file.path.write_text("not a key\n")
    key_file.path.chmod(0o600)
    with pytest.raises(Rejected, match="cannot be read"):
        key_file.read()


def test_creating_it_again_changes_nothing(key_file):
    before = key_file.path.read_bytes()
    key_file.create()
    assert key_file.path.read_bytes() == before


def test_of_many_who_rotate_at_once_each_adds_a_key(key_file):
    def rotate(_: int) -> int:
        other = KeyFile(key_file.path)
        with other.changing():
            return other.rotate()

    with ThreadPoolExecutor(8) as pool:
        counts = sorted(pool.map(rotate, range(8)))
    assert counts == list(range(2, 10))
    assert len(KeyFile(key_file.path).read().fernet) == 9


def test_whoever_waits_too_long_for_others_to_change_the_file_is_told(key_file, monkeypatch):
    monkeypatch.setattr("services.identity.key_file.LOCK_WAIT_S", 0.0)
    with key_file.changing(), pytest.raises(Rejected, match="is being changed"), KeyFile(key_file.path).changing():
        pytest.fail("two at once")


def test_the_key_file_remembers_no_more_dropped_keys_than_it_must(key_file):
    for _ in range(DROPPED_MAX + 3):
        key_file.rotate()
        key_file.drop_old()
    assert len(key_file.read().dropped) == DROPPED_MAX
