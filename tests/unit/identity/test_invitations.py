"""Links of accounts that nobody has brought to life yet, as files of the home."""

from pathlib import Path
from typing import Any, cast

from services.console import local_identity
from services.console.home import Home
from services.identity.invitations import Invitations
from services.runtime.clock import FixedClock

NOBODYS: Any = None
LINK = "http://127.0.0.1:1/auth/setup/?user=aka&until=2026#token\n"


def test_links_lead_to_the_port_of_now_and_half_written_files_are_left_alone(tmp_path: Path) -> None:
    """Another replica of this home, or one that was killed, may have a file there that is not a link yet."""
    folder = tmp_path / "keys" / "set-up-links"
    folder.mkdir(parents=True)
    (folder / "aka").write_text(LINK)
    half = folder / ".aka.0123456789abcdef"
    half.write_text(LINK)
    (folder / "bea").symlink_to(folder / "used-meanwhile")
    Invitations(cast(Any, NOBODYS), tmp_path / "keys", FixedClock(), 60.0).retarget("http://127.0.0.1:2")
    assert (folder / "aka").read_text() == LINK.replace(":1/", ":2/")
    assert half.read_text() == LINK
    assert list(local_identity.links(Home(tmp_path))) == ["aka"]
