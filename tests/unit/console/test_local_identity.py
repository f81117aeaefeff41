"""What the console reads of a home: where a running identity listens, links to it, credentials, and nothing else."""

import json
import os
from pathlib import Path

import pytest

from contracts.errors import Rejected
from services.console import local_identity
from services.console.home import Home
from services.console.local_identity import credential_file

LINK = "http://127.0.0.1:1/auth/setup/?user=aka&until=x#token"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    (home.keys / local_identity.LINKS).mkdir(parents=True)
    (home.keys / local_identity.LINKS / "aka").write_text(LINK)
    home.run.mkdir(parents=True)
    return home


def runs(home: Home, name: str, pid: int, port: int) -> None:
    told = {"pid": pid, "url": f"http://127.0.0.1:{port}"}
    (home.run / f"identity-{name}.local").write_text(json.dumps(told))


def test_a_link_leads_to_an_identity_that_runs_whoever_wrote_it(home):
    runs(home, "a", os.getpid(), 2)
    assert local_identity.links(home) == {"aka": LINK.replace(":1/", ":2/")}
    assert local_identity.token_of(home, "aka") == "token"


def test_without_one_the_link_is_as_it_was_written(home):
    runs(home, "dead", 2**22 + 1, 2)
    assert local_identity.address(home) is None
    assert local_identity.links(home) == {"aka": LINK}


def test_a_credential_stands_in_a_file_of_its_agents_name(tmp_path: Path) -> None:
    assert credential_file(Home(tmp_path), "Planner-1") == tmp_path / "keys" / "agents" / "planner-1"


@pytest.mark.parametrize("name", ["../identity", "..", "", "a/b", "/etc/passwd", ".hidden"])
def test_no_other_file_is_taken_for_one_and_sent(name: str, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="bad_id"):
        credential_file(Home(tmp_path), name)
