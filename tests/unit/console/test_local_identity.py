"""The console finds the listener of a running identity, and set-up links that lead to it."""

import json
import os
from pathlib import Path

import pytest

from services.console import local_identity
from services.console.home import Home

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
