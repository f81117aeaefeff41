"""A clock that a test moves: epoch seconds in a file, read at each use. Never used silently or beyond loopback."""

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from contracts.errors import Rejected
from services.runtime.clock import SystemClock


class FileClock(SystemClock):
    """The time of day from a file; durations are real."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def now_ms(self) -> int:
        """UTC epoch in milliseconds. Raises Rejected("bad_config") when the file does not hold a number."""
        try:
            return int(float(self._path.read_text(encoding="ascii").strip()) * 1000)
        except (OSError, ValueError, OverflowError) as error:
            raise Rejected(
                "bad_config", "the test clock's file holds no epoch seconds", key="identity.test_clock"
            ) from error


def refuse_beyond_loopback(places: dict[str, str]) -> None:
    """Raise Rejected("bad_config") unless every one of `places` (what: host or URL) is this machine's loopback."""
    for what, place in places.items():
        hosts = [urlsplit(one if "//" in one else f"//{one}").hostname or "" for one in place.split(",")]
        if not all(map(is_loopback, hosts)):
            text = f"a test clock is refused: {what} is {', '.join(hosts)}, which is beyond loopback"
            raise Rejected("bad_config", text, key="identity.test_clock")


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
