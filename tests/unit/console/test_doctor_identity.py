"""What the doctor says of identity's keys."""

from pathlib import Path

import pytest

from services.console.doctor import identity
from services.console.home import Home
from services.console.local_identity import key_path
from services.identity.beginning import Beginning
from services.identity.key_file import KeyFile
from services.identity.local.whereabouts import tell_where
from services.identity.sealing import Sealer


def home_of(folder: Path) -> Home:
    home = Home(folder)
    home.prepare()
    return home


def test_a_home_that_never_ran_has_no_keys_yet(tmp_path: Path) -> None:
    found = identity.keys(home_of(tmp_path))
    assert (found.status, found.message) == ("note", "there is no key file here")
    assert found.mend.startswith("the first start of identity makes it; where there were accounts, put ")


def test_a_lost_key_file_is_a_failure_and_nothing_makes_it_again(tmp_path: Path) -> None:
    home = home_of(tmp_path)
    (home.keys / "identity-began").write_text('{"first_seq":1}')
    found = identity.keys(home)
    assert (found.status, found.message) == ("fail", "the key file of identity is lost")
    assert "back from its copy" in found.mend


def begun(home: Home) -> KeyFile:
    """A home as identity leaves it after its first start."""
    file = KeyFile(home.keys / "identity")
    file.create()
    beginning_of(home).done(Sealer(file).public_key, Sealer(file).newest)
    return file


def beginning_of(home: Home) -> Beginning:
    return Beginning(home.keys, accounts=True, first_seq=1)


def test_the_key_file_of_this_home_is_well_also_after_a_rotation(tmp_path: Path) -> None:
    home = home_of(tmp_path)
    file = begun(home)
    assert identity.keys(home).status == "ok"
    file.rotate()
    file.drop_old()
    assert identity.keys(home).status == "ok"


@pytest.mark.parametrize("dropped", [True, False])
def test_an_older_copy_is_not_called_well_once_identity_used_a_newer_key(tmp_path: Path, dropped: bool) -> None:
    home = home_of(tmp_path)
    file = begun(home)
    older = file.path.read_bytes()
    file.rotate()
    beginning_of(home).takes(Sealer(file).newest)
    both = file.path.read_bytes()
    if dropped:
        file.drop_old()
    file.path.write_bytes(older)
    found = identity.keys(home)
    assert (found.status, found.message) == (
        "fail",
        "the key file of identity is an older copy: it lacks the key in use",
    )
    assert found.mend == f"put {file.path} back from its newest copy; without it no secret can be opened"
    file.path.write_bytes(both)
    assert identity.keys(home).status == "ok", "it opens all there is"


def test_what_is_noted_of_a_key_leads_back_to_none(tmp_path: Path) -> None:
    home = home_of(tmp_path)
    file = begun(home)
    noted = (home.keys / "identity-began").read_text()
    assert not [line for line in (*file.read().fernet, file.read().seed) if line in noted]


def test_a_mark_of_an_older_version_says_nothing_of_the_key(tmp_path: Path) -> None:
    home = home_of(tmp_path)
    begun(home)
    (home.keys / "identity-began").write_text('{"first_seq":1}')
    assert identity.keys(home).status == "ok"


@pytest.mark.parametrize("content", [b"", b"x", b"\xff\x00" * 99, b"seed=" + b"0" * 64, None])
def test_what_is_no_key_file_is_not_called_well(tmp_path: Path, content: bytes | None) -> None:
    home = home_of(tmp_path)
    begun(home)
    path = home.keys / "identity"
    path.write_bytes(path.read_bytes()[:60] if content is None else content)
    found = identity.keys(home)
    assert (found.status, found.message) == ("fail", "the key file of identity cannot be read")
    assert "back from its copy" in found.mend


def test_another_homes_key_file_is_not_called_well(tmp_path: Path) -> None:
    home, other = home_of(tmp_path / "a"), home_of(tmp_path / "b")
    begun(home)
    begun(other)
    (home.keys / "identity").write_bytes((other.keys / "identity").read_bytes())
    found = identity.keys(home)
    assert (found.status, found.message) == ("fail", "the key file of identity is another home's")


def test_a_key_file_that_others_may_read_is_not_called_well(tmp_path: Path) -> None:
    home = home_of(tmp_path)
    begun(home)
    (home.keys / "identity").chmod(0o640)
    found = identity.keys(home)
    assert (found.status, found.mend) == ("fail", f"chmod 600 {home.keys / 'identity'}")


@pytest.mark.parametrize("by", ["the configuration", "the identity that runs"])
def test_a_key_file_at_another_place_is_looked_at_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    home = home_of(tmp_path / "home")
    elsewhere = KeyFile(tmp_path / "kf" / "id")
    elsewhere.create()
    beginning_of(home).done(Sealer(elsewhere).public_key, Sealer(elsewhere).newest)
    assert identity.keys(home).status == "fail"
    if by == "the configuration":
        monkeypatch.setenv("HTDAG_IDENTITY__KEY_FILE", str(elsewhere.path))
    else:
        home.run.mkdir(exist_ok=True)
        tell_where(home.run, "identity-1", "http://127.0.0.1:1", None, "", elsewhere.path)
    found = identity.keys(home)
    assert (found.status, found.message) == ("ok", f"{elsewhere.path}, private; keep a copy of it")
    assert key_path(home) == elsewhere.path
