"""Secrets at rest: whose they are stands inside, and what is sealed opens with the right key file only."""

import pytest

from contracts.errors import Rejected
from services.identity.key_file import KeyFile
from services.identity.own_files import write_private
from services.identity.sealing import Sealer
from services.runtime.signatures import signature_ok


def test_what_is_sealed_opens_for_its_owner_and_kind_only(key_file):
    sealer = Sealer(key_file)
    token = sealer.seal("aka", "totp", "SECRET")
    assert "SECRET" not in token
    assert sealer.open("aka", "totp", token) == "SECRET"
    with pytest.raises(Rejected, match="internal"):
        sealer.open("mallory", "totp", token)
    with pytest.raises(Rejected, match="internal"):
        sealer.open("aka", "password", token)


def test_a_rotation_is_seen_by_who_runs_and_old_seals_open_until_old_keys_are_dropped(key_file):
    sealer = Sealer(key_file)
    old = sealer.seal("aka", "totp", "SECRET")
    assert KeyFile(key_file.path).rotate() == 2
    assert not sealer.is_newest(old)
    assert sealer.open("aka", "totp", old) == "SECRET"
    new = sealer.seal("aka", "totp", "SECRET")
    assert sealer.is_newest(new)
    assert KeyFile(key_file.path).drop_old() == 1
    assert sealer.open("aka", "totp", new) == "SECRET"
    with pytest.raises(Rejected, match="cannot be opened"):
        sealer.open("aka", "totp", old)


def test_another_key_file_in_the_place_of_ours_opens_and_seals_nothing(key_file, tmp_path):
    sealer = Sealer(key_file)
    token = sealer.seal("aka", "totp", "S")
    ours = key_file.path.read_text()
    other = KeyFile(tmp_path / "other")
    other.create()
    write_private(key_file.path, other.path.read_text())
    for use in (lambda: sealer.seal("aka", "totp", "S"), lambda: sealer.open("aka", "totp", token)):
        with pytest.raises(Rejected, match="another key file"):
            use()
    write_private(key_file.path, ours)
    assert sealer.open("aka", "totp", token) == "S"


def test_an_older_copy_of_our_key_file_opens_and_seals_nothing_and_says_why(key_file):
    older = key_file.path.read_text()
    sealer = Sealer(key_file)
    KeyFile(key_file.path).rotate()
    token = sealer.seal("aka", "totp", "S")
    KeyFile(key_file.path).drop_old()
    ours = key_file.path.read_text()
    assert sealer.reason() is None
    write_private(key_file.path, older)
    for use in (
        lambda: sealer.seal("aka", "totp", "S"),
        lambda: sealer.open("aka", "totp", token),
        lambda: sealer.keys,
    ):
        with pytest.raises(Rejected, match="another key file"):
            use()
    assert "another key file" in (sealer.reason() or "")
    write_private(key_file.path, ours)
    assert sealer.open("aka", "totp", token) == "S"
    assert sealer.reason() is None


def test_who_looks_only_after_the_old_keys_were_dropped_takes_the_new_ones(key_file):
    """Another replica sealed everything anew: one that slept through all of it sees that its key was dropped."""
    sealer, other = Sealer(key_file), KeyFile(key_file.path)
    for _ in range(2):
        other.rotate()
        other.drop_old()
    token = Sealer(other).seal("aka", "totp", "S")
    assert sealer.open("aka", "totp", token) == "S"


def test_what_is_derived_outlives_rotations_and_differs_by_purpose(key_file):
    before = Sealer(key_file)
    key_file.rotate()
    key_file.drop_old()
    after = Sealer(key_file)
    assert after.derived("names") == before.derived("names") != before.derived("sign")
    assert after.public_key == before.public_key


def test_a_signature_holds_for_its_text_and_key_only(key_file, tmp_path):
    sealer = Sealer(key_file)
    signature = sealer.sign(b"text")
    assert signature_ok(sealer.public_key, signature, b"text")
    assert not signature_ok(sealer.public_key, signature, b"other")
    other = KeyFile(tmp_path / "other")
    other.create()
    assert not signature_ok(Sealer(other).public_key, signature, b"text")
    assert not signature_ok("", "", b"text")
