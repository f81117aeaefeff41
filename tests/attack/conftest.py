"""The attacks run as whoever runs the tests, and as nobody where that is root."""

import os
from collections.abc import Iterator

import pytest

from tests.attack.ground import Hands

USERS = ("root", "nobody") if os.geteuid() == 0 else ("user",)


@pytest.fixture(scope="session", params=USERS)
def hands(request: pytest.FixtureRequest) -> Iterator[Hands]:
    """A gateway's tools in a process of their own."""
    started = Hands(request.param)
    yield started
    started.close()
