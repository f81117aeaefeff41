"""What the doctor says of identity's keys."""

from pathlib import Path

from services.console.doctor import identity
from services.console.home import Home


def home_of(folder: Path) -> Home:
    home = Home(folder)
    home.prepare()
    return home


def test_a_home_that_never_ran_has_no_keys_yet(tmp_path: Path) -> None:
    found = identity.keys(home_of(tmp_path))
    assert (found.status, found.mend) == ("note", "the first start of identity makes it")


def test_a_lost_key_file_is_a_failure_and_nothing_makes_it_again(tmp_path: Path) -> None:
    home = home_of(tmp_path)
    (home.keys / "identity-began").write_text('{"first_seq":1}')
    found = identity.keys(home)
    assert (found.status, found.message) == ("fail", "the key file of identity is lost")
    assert "back from its copy" in found.mend
