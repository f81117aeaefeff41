"""Who may speak to the local listener: a process on this host, and nobody through a stranger's page in a browser.

The listener is bound to loopback already. Behind a proxy on the same host every peer looks local, so whatever a proxy
adds is refused too; a page that made its own name point to 127.0.0.1 is betrayed by its Host, any other by its Origin.
"""

from collections.abc import Iterable
from typing import Final

from contracts.errors import Rejected

PEERS: Final = frozenset({"127.0.0.1", "::1"})
HOSTS: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_FORWARDING: Final = frozenset(
    {b"forwarded", b"via", b"x-real-ip", b"x-client-ip", b"x-cluster-client-ip", b"true-client-ip", b"cf-connecting-ip"}
)
_SITES_GOOD: Final = frozenset({"none", "same-origin"})


def check_local(peer: str | None, headers: Iterable[tuple[bytes, bytes]], port: int) -> None:
    """Raise Rejected("not_local") with the reason, unless the request comes from this host and from no strange page."""
    if peer not in PEERS:
        raise Rejected("not_local", reason="peer")
    given: dict[bytes, list[str]] = {}
    for name, value in headers:
        given.setdefault(name.lower(), []).append(value.decode("latin-1").strip())
    if any(name in _FORWARDING or name.startswith(b"x-forwarded") for name in given):
        raise Rejected("not_local", "it was forwarded", reason="forwarded")
    hosts = given.get(b"host", [])
    if len(hosts) != 1 or _name_of(hosts[0], port) not in HOSTS:
        raise Rejected("not_local", "the Host is not this host", reason="host")
    ours = {f"http://{name}:{port}" for name in HOSTS}
    if any(origin.lower() not in ours for origin in given.get(b"origin", [])):
        raise Rejected("not_local", "the page is a stranger's", reason="origin")
    if any(site not in _SITES_GOOD for site in given.get(b"sec-fetch-site", [])):
        raise Rejected("not_local", "the page is a stranger's", reason="origin")


def _name_of(host: str, port: int) -> str:
    """The name in a Host header, when its port (which may be left out) is ours; else what is no host."""
    name, colon, number = host.rpartition(":")
    if not colon or host.endswith("]"):
        return host.lower()
    return name.lower() if number == str(port) else ""
