"""Who may speak to the local listener."""

import pytest

from contracts.errors import Rejected
from services.identity.local.guard import check_local

PORT = 8787


def reason(peer: str | None = "127.0.0.1", **headers: str) -> str | None:
    given = {"host": f"127.0.0.1:{PORT}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    try:
        check_local(peer, [(name.encode(), value.encode()) for name, value in given.items()], PORT)
    except Rejected as refused:
        return str(refused.detail["reason"])
    return None


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1"])
def test_this_host_may(peer):
    assert reason(peer) is None


@pytest.mark.parametrize(
    "peer", [None, "", "10.0.0.1", "172.17.0.1", "192.168.1.2", "::ffff:127.0.0.1", "127.0.0.2", "localhost", "fe80::1"]
)
def test_no_other_address_may(peer):
    assert reason(peer) == "peer"


@pytest.mark.parametrize("host", ["localhost", f"localhost:{PORT}", "LOCALHOST", "127.0.0.1", f"[::1]:{PORT}", "[::1]"])
def test_a_host_of_this_host_may(host):
    assert reason(host=host) is None


@pytest.mark.parametrize(
    "host", ["", "evil.example", f"evil.example:{PORT}", "127.0.0.1:1", "127.0.0.1.evil.example", "::1", "localhost."]
)
def test_a_name_that_points_here_may_not(host):
    assert reason(host=host) == "host"


@pytest.mark.parametrize(
    "name",
    ["Forwarded", "X-Forwarded-For", "x-forwarded-host", "X-FORWARDED-PROTO", "X-Real-IP", "Via", "CF-Connecting-IP"],
)
def test_whatever_was_forwarded_may_not_whatever_it_claims(name):
    assert reason(**{name.replace("-", "_"): "127.0.0.1"}) == "forwarded"


@pytest.mark.parametrize("origin", [f"http://127.0.0.1:{PORT}", f"http://localhost:{PORT}", f"http://[::1]:{PORT}"])
def test_our_own_page_may(origin):
    assert reason(origin=origin, sec_fetch_site="same-origin") is None


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "http://evil.example",
        "http://127.0.0.1:1",
        "http://localhost",
        f"https://localhost:{PORT}",
        "",
        "http://[bad",
        "http://[",
        f"http://evil@localhost:{PORT}",
        f"http://localhost:{PORT}/x",
        "\xff",
    ],
)
def test_a_strangers_page_may_not(origin):
    assert reason(origin=origin) == "origin"


def test_a_strangers_page_is_betrayed_by_the_browser_too():
    assert reason(sec_fetch_site="cross-site") == "origin"


def test_two_hosts_are_no_host():
    with pytest.raises(Rejected, match="Host"):
        check_local("127.0.0.1", [(b"host", b"localhost"), (b"host", b"evil.example")], PORT)
