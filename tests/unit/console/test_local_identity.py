"""What the console reads of a home in the name of an agent or a human: files of theirs, and no others."""

from pathlib import Path

import pytest

from contracts.errors import Rejected
from services.console.home import Home
from services.console.local_identity import credential_file


def test_a_credential_stands_in_a_file_of_its_agents_name(tmp_path: Path) -> None:
    assert credential_file(Home(tmp_path), "Planner-1") == tmp_path / "keys" / "agents" / "planner-1"


@pytest.mark.parametrize("name", ["../identity", "..", "", "a/b", "/etc/passwd", ".hidden"])
def test_no_other_file_is_taken_for_one_and_sent(name: str, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="bad_id"):
        credential_file(Home(tmp_path), name)
