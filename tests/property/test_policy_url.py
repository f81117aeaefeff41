"""URLs that we read are read the same by everybody else: two readers that differ are how lists of hosts are evaded."""

import ipaddress
from urllib.parse import urlsplit

import httpx2
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.policy_gateway.decision.url import PORTS, Url, read_url

WORDS = "https http : // / \\ @ ? # [ ] %2e % github.com evil.com . 443 1 127.0.0.1 0x7f ::1 a - _ é .. ; & xn-- 。 |"
PIECES = st.sampled_from([*WORDS.split(" "), "\t", "\n", " ", "\x00"])
TEXTS = st.one_of(
    st.lists(PIECES, max_size=8).map("".join),
    st.lists(PIECES, max_size=8).map(lambda parts: "https://" + "".join(parts)),
)


def same_host(theirs: str, ours: str) -> bool:
    """Names to the letter, addresses of the sixth version by what they mean: we write them in their shortest form."""
    if ours[0] == "[":
        return ipaddress.IPv6Address(theirs) == ipaddress.IPv6Address(ours[1:-1])
    return theirs == ours


@settings(max_examples=1500, deadline=None)
@given(TEXTS)
@example("https://github.com:443@evil.com/")
@example("https://evil.com\\@github.com/")
@example("https://github.com#@evil.com/")
@example("https://[::1]:443/a?b#c")
@example("HTTPS://GITHUB.com:8443")
@example("https://[0:0::127.0.0.1]/")
def test_every_reader_sees_the_same_host(text: str) -> None:
    ours = read_url(text)
    if not isinstance(ours, Url):
        return
    theirs = urlsplit(text)
    assert same_host(theirs.hostname or "", ours.host)
    assert (theirs.port or PORTS[ours.scheme]) == ours.port
    assert (theirs.path or "/") + (f"?{theirs.query}" if "?" in text.split("#", maxsplit=1)[0] else "") == ours.target
    dialled = httpx2.URL(text)
    assert dialled.scheme == ours.scheme
    assert same_host(dialled.raw_host.decode(), ours.host)
    assert (dialled.port or PORTS[ours.scheme]) == ours.port
    again = read_url(f"{ours.scheme}://{ours.host}:{ours.port}{ours.target}")
    assert again == ours
