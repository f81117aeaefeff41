"""A clock that a test moves: epoch seconds in a file, read at each use. Never used silently or beyond loopback."""

import ipaddress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from contracts.errors import Rejected
from services.runtime.clock import SystemClock

EARLIEST_S: Final = 60
"""Before it the step of a code, and the one behind it, would be none that can be counted."""
LATEST_S: Final = 253_370_764_800
"""The year 9999: what runs out some days after it still has a date."""


class FileClock(SystemClock):
    """The time of day from a file; durations are real."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last_ms: int | None = None

    def now_ms(self) -> int:
        """UTC epoch in milliseconds. Raises Rejected("bad_config") when the file does not hold a number."""
        try:
            text = self._path.read_text(encoding="ascii").strip()
            # Empty: it is being written right now, and it is still the time it was.
            now_ms = self._last_ms if self._last_ms is not None and not text else _milliseconds(text)
        except (OSError, ValueError) as error:
            text = "the test clock's file holds no epoch seconds"
            raise Rejected("bad_config", text, key="identity.test_clock") from error
        self._last_ms = now_ms
        return now_ms


def _milliseconds(text: str) -> int:
    """Raises ValueError for what is no time that people's clocks show."""
    seconds = float(text)
    if not EARLIEST_S <= seconds < LATEST_S:  # false for NaN, too
        raise ValueError("out of bounds")
    return int(seconds * 1000)


def refuse_beyond_loopback(places: dict[str, str]) -> None:
    """Raise Rejected("bad_config") unless every one of `places` (what: host or URL) is this machine's loopback."""
    for what, place in places.items():
        if not all(is_loopback(one) or is_loopback(_host_in(one)) for one in place.split(",")):
            text = f"a test clock is refused: {what} is {place.rpartition('@')[2]}, which is beyond loopback"
            raise Rejected("bad_config", text, key="identity.test_clock")


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _host_in(place: str) -> str:
    try:
        return urlsplit(place if "//" in place else f"//{place}").hostname or ""
    except ValueError:
        return ""
