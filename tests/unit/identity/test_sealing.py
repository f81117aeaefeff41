"""Secrets at rest: whose they are stands inside; the key file is private, rotates, and is never quietly replaced."""

import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from contracts.errors import Rejected
from services.identity import key_file
from services.identity.key_file import DROPPED_MAX, KeyFile
from services.identity.own_files import write_private
from services.identity.sealing import Sealer
from services.runtime.signatures import signature_ok


@pytest.fixture
def file(tmp_path) -> KeyFile:
    made = KeyFile(tmp_path / "keys" / "identity")
    made.create()
    return made


def test_what_is_sealed_opens_for_its_owner_and_kind_only(file):
    sealer = Sealer(file)
    token = sealer.seal("aka", "totp", "SECRET")
    assert "SECRET" not in token
    assert sealer.open("aka", "totp", token) == "SECRET"
    with pytest.raises(Rejected, match="internal"):
        sealer.open("mallory", "totp", token)
    with pytest.raises(Rejected, match="internal"):
        sealer.open("aka", "password", token)


def test_the_key_file_is_private_and_refused_when_it_is_not(file):
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    file.path.chmod(0o640)
    with pytest.raises(Rejected, match="open to others"):
        KeyFile(file.path).read()


def test_a_lost_or_broken_key_file_is_not_replaced(file):
    file.path.unlink()
    with pytest.raises(Rejected, match="is lost"):
        Sealer(file)
    file.path.write_text("not a key\n")
    file.path.chmod(0o600)
    with pytest.raises(Rejected, match="cannot be read"):
        Sealer(file)


def test_creating_it_again_changes_nothing(file):
    before = file.path.read_bytes()
    file.create()
    assert file.path.read_bytes() == before


def test_a_rotation_is_seen_by_who_runs_and_old_seals_open_until_old_keys_are_dropped(file):
    sealer = Sealer(file)
    old = sealer.seal("aka", "totp", "SECRET")
    assert KeyFile(file.path).rotate() == 2
    assert not sealer.is_newest(old)
    assert sealer.open("aka", "totp", old) == "SECRET"
    new = sealer.seal("aka", "totp", "SECRET")
    assert sealer.is_newest(new)
    assert KeyFile(file.path).drop_old() == 1
    assert sealer.open("aka", "totp", new) == "SECRET"
    with pytest.raises(Rejected, match="cannot be opened"):
        sealer.open("aka", "totp", old)


def test_another_key_file_in_the_place_of_ours_opens_and_seals_nothing(file, tmp_path):
    sealer = Sealer(file)
    token = sealer.seal("aka", "totp", "S")
    ours = file.path.read_text()
    other = KeyFile(tmp_path / "other")
    other.create()
    write_private(file.path, other.path.read_text())
    for use in (lambda: sealer.seal("aka", "totp", "S"), lambda: sealer.open("aka", "totp", token)):
        with pytest.raises(Rejected, match="another key file"):
            use()
    write_private(file.path, ours)
    assert sealer.open("aka", "totp", token) == "S"


def test_an_older_copy_of_our_key_file_opens_and_seals_nothing_and_says_why(file):
    older = file.path.read_text()
    sealer = Sealer(file)
    KeyFile(file.path).rotate()
    token = sealer.seal("aka", "totp", "S")
    KeyFile(file.path).drop_old()
    ours = file.path.read_text()
    assert sealer.reason() is None
    write_private(file.path, older)
    for use in (
        lambda: sealer.seal("aka", "totp", "S"),
        lambda: sealer.open("aka", "totp", token),
        lambda: sealer.keys,
    ):
        with pytest.raises(Rejected, match="another key file"):
            use()
    assert "another key file" in (sealer.reason() or "")
    write_private(file.path, ours)
    assert sealer.open("aka", "totp", token) == "S"
    assert sealer.reason() is None


def test_who_looks_only_after_the_old_keys_were_dropped_takes_the_new_ones(file):
    """Another replica sealed everything anew: one that slept through all of it sees that its key was dropped."""
    sealer, other = Sealer(file), KeyFile(file.path)
    for _ in range(2):
        other.rotate()
        other.drop_old()
    token = Sealer(other).seal("aka", "totp", "S")
    assert sealer.open("aka", "totp", token) == "S"


def test_of_many_who_rotate_at_once_each_adds_a_key(file):
    def rotate(_: int) -> int:
        other = KeyFile(file.path)
        with other.changing():
            return other.rotate()

    with ThreadPoolExecutor(8) as pool:
        counts = sorted(pool.map(rotate, range(8)))
    assert counts == list(range(2, 10))
    assert len(KeyFile(file.path).read().fernet) == 9


def test_whoever_waits_too_long_for_others_to_change_the_file_is_told(file, monkeypatch):
    monkeypatch.setattr(key_file, "LOCK_WAIT_S", 0.0)
    with file.changing(), pytest.raises(Rejected, match="is being changed"), KeyFile(file.path).changing():
        pytest.fail("two at once")


def test_the_key_file_remembers_no_more_dropped_keys_than_it_must(file):
    for _ in range(DROPPED_MAX + 3):
        file.rotate()
        file.drop_old()
    assert len(file.read().dropped) == DROPPED_MAX


def test_what_is_derived_outlives_rotations_and_differs_by_purpose(file):
    before = Sealer(file)
    file.rotate()
    file.drop_old()
    after = Sealer(file)
    assert after.derived("names") == before.derived("names") != before.derived("sign")
    assert after.public_key == before.public_key


def test_a_signature_holds_for_its_text_and_key_only(file, tmp_path):
    sealer = Sealer(file)
    signature = sealer.sign(b"text")
    assert signature_ok(sealer.public_key, signature, b"text")
    assert not signature_ok(sealer.public_key, signature, b"other")
    other = KeyFile(tmp_path / "other")
    other.create()
    assert not signature_ok(Sealer(other).public_key, signature, b"text")
    assert not signature_ok("", "", b"text")
