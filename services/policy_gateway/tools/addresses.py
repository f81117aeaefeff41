"""Which addresses of the internet may be dialled: an own list, over addresses in their one canonical form.

Everything that is not plainly public is refused, also where an address only carries another one inside (mapped, NAT64,
6to4, Teredo): what a translator would do with it is not ours to guess.
"""

import ipaddress
from typing import Final

CLOSED_V4: Final = {
    ipaddress.IPv4Network(network): why
    for network, why in {
        "0.0.0.0/8": "this network",
        "10.0.0.0/8": "private",
        "100.64.0.0/10": "shared by carriers",
        "127.0.0.0/8": "loopback",
        "168.63.129.16/32": "a cloud's metadata service",
        "169.254.0.0/16": "link-local, with the metadata services of clouds",
        "172.16.0.0/12": "private",
        "192.0.0.0/24": "reserved for protocols",
        "192.0.2.0/24": "for documentation",
        "192.31.196.0/24": "reserved for name services",
        "192.52.193.0/24": "reserved for multicast tunnels",
        "192.88.99.0/24": "6to4 relay",
        "192.168.0.0/16": "private",
        "192.175.48.0/24": "reserved for name services",
        "198.18.0.0/15": "for benchmarks",
        "198.51.100.0/24": "for documentation",
        "203.0.113.0/24": "for documentation",
        "224.0.0.0/4": "multicast",
        "240.0.0.0/4": "reserved",
    }.items()
}
OPEN_V6: Final = ipaddress.IPv6Network("2000::/3")
"""All of IPv6 that was ever given out; loopback, link-local, private, mapped, NAT64 and multicast lie outside."""
CLOSED_V6: Final = {
    ipaddress.IPv6Network(network): why
    for network, why in {
        "2001::/23": "reserved for protocols, Teredo among them",
        "2001:db8::/32": "for documentation",
        "2002::/16": "6to4",
        "2620:4f:8000::/48": "reserved for name services",
        "3fff::/20": "for documentation",
    }.items()
}


def why_closed(address: str) -> str | None:
    """Why an address may not be dialled; None when it is public."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "no address"
    if isinstance(parsed, ipaddress.IPv4Address):
        return next((why for network, why in CLOSED_V4.items() if parsed in network), None)
    if parsed.scope_id is not None or parsed not in OPEN_V6:
        return "not public"
    return next((why for network, why in CLOSED_V6.items() if parsed in network), None)
