"""One strict reading of URLs, ours alone: what two parsers could read differently is refused.

Printable ASCII, http or https, a host of plain labels or a canonical IP literal, no user info, no backslash. The
fragment stays at home. Hosts are compared whole and in lower case, never by their beginning or end.
"""

import ipaddress
import re
from typing import Final, NamedTuple

URL_CHARS_MAX: Final = 2048
PORT_MAX: Final = 65_535
PORTS: Final = {"https": 443, "http": 80}
_URL: Final = re.compile(r"(https?)://([^/?#]*)([^?#]*)(\?[^#]*)?(#.*)?", re.ASCII | re.IGNORECASE)
_HOST_PORT: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::([0-9]{1,5}))?", re.ASCII)
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_PRINTABLE: Final = re.compile(r"[!-\[\]-~]+", re.ASCII)
_PATH: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*", re.ASCII)
_QUERY: Final = re.compile(r"\?(?:[A-Za-z0-9._~!$&'()*+,;=:@/?\[\]|-]|%[0-9A-Fa-f]{2})*", re.ASCII)
HOST_CHARS_MAX: Final = 253


class Url(NamedTuple):
    """A URL taken apart: `target` is path and query, `port` always a number."""

    scheme: str
    host: str
    port: int
    target: str


def read_url(text: str) -> Url | str:
    """The parts of an absolute URL, or why it is none that we read."""
    if len(text) > URL_CHARS_MAX:
        return f"at most {URL_CHARS_MAX} characters"
    if _PRINTABLE.fullmatch(text) is None:
        return "printable ASCII without spaces and backslashes"
    found = _URL.fullmatch(text)
    if found is None:
        return "an absolute http or https URL"
    scheme, authority, path, query, _ = found.groups()
    if "@" in authority:
        return "no user in front of the host"
    parts = _HOST_PORT.fullmatch(authority)
    if parts is None:
        return "a plain host name"
    host = _host(parts[1].lower())
    if host is None:
        return "a plain host name, or a canonical address"
    scheme = scheme.lower()
    port = PORTS[scheme] if parts[2] is None else int(parts[2])
    if not 0 < port <= PORT_MAX or (parts[2] is not None and parts[2][0] == "0"):
        return "a port of 1 to 65535"
    if _PATH.fullmatch(path) is None or (query is not None and _QUERY.fullmatch(query) is None):
        return "a path and query of plain characters; write the others as %XX"
    return Url(scheme, host, port, (path or "/") + (query or ""))


def _host(text: str) -> str | None:
    """A name of plain labels or an address in its one canonical form, lower case; None for anything else."""
    if text[0] == "[":
        try:
            return f"[{ipaddress.IPv6Address(text[1:-1]).compressed}]"
        except ValueError:
            return None
    labels = text.split(".")
    if len(text) > HOST_CHARS_MAX or any(_LABEL.fullmatch(label) is None for label in labels):
        return None
    last = labels[-1]
    if not last[0].isdigit():
        return text
    # Whatever ends in a number is an address to somebody: only the one way to write it is read.
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        return None


def is_address(host: str) -> bool:
    """Whether a host that was read is an address."""
    return host[0] == "[" or host.rpartition(".")[2].isdigit()


def is_listed(host: str, hosts: frozenset[str]) -> bool:
    """Whether `host` is one of `hosts`, or below one that is written `*.name`."""
    if host in hosts:
        return True
    above = host.partition(".")[2]
    while above:
        if f"*.{above}" in hosts:
            return True
        above = above.partition(".")[2]
    return False
