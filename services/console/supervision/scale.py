"""How many copies of a service are wished: `llm-worker=3`, or between bounds, `llm-worker=1..4`; and their names."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from contracts.errors import Rejected
from services.console.home import Home, write_private
from services.console.serve import SERVICES

COPIES_MAX: Final = 8
"""As many programs as the shipped supervisord.conf has for a service."""
SCALABLE: Final = ("executor", "identity", "llm-worker")
ELASTIC: Final = ("llm-worker",)
"""What says how long its work waits, so that its number can follow."""
_WISH: Final = re.compile(r"([a-z-]+)=(\d+)(?:\.\.(\d+))?\Z")


class Bounds(msgspec.Struct, frozen=True):
    """From how many to how many copies."""

    least: int
    most: int


Wishes = dict[str, Bounds]


def parse(words: Sequence[str]) -> Wishes:
    """The wishes of `--scale`. Raises Rejected("bad_request")."""
    wishes: Wishes = {}
    for word in (part.strip() for text in words for part in text.split(",")):
        found = _WISH.match(word)
        if found is None:
            raise Rejected("bad_request", f"--scale {word} is no wish", hint="--scale llm-worker=3 or llm-worker=1..4")
        service, least = found[1], int(found[2])
        most = int(found[3]) if found[3] else least
        if service not in SCALABLE:
            raise Rejected("bad_request", f"{service} cannot be scaled", hint=f"there are {', '.join(SCALABLE)}")
        if not 1 <= least <= most <= COPIES_MAX:
            raise Rejected("bad_request", f"--scale {word} is out of range", hint=f"from 1 to {COPIES_MAX} copies")
        if least != most and service not in ELASTIC:
            raise Rejected("bad_request", f"{service} takes a number, no range", hint=f"--scale {service}={most}")
        wishes[service] = Bounds(least, most)
    return wishes


def copy_name(service: str, number: int) -> str:
    """The name of one copy: the first is called like its service."""
    return service if number == 1 else f"{service}-{number}"


def service_of(name: str) -> str:
    """The service that a copy is one of."""
    service, _, number = name.rpartition("-")
    return service if service in SERVICES and number.isdecimal() else name


def services_of(names: Iterable[str]) -> set[str]:
    """The services that these copies are of: the first copy of one may be gone while others are there."""
    return {service_of(name) for name in names}


def expanded(services: Iterable[str], wishes: Mapping[str, Bounds]) -> list[str]:
    """The names of all copies to begin with, in starting order."""
    one = Bounds(1, 1)
    return [
        copy_name(service, number)
        for service in services
        for number in range(1, wishes.get(service, one).least + 1)
    ]  # fmt: skip


def free_name(service: str, taken: Iterable[str]) -> str | None:
    """The name of one more copy; None when all are there."""
    used = set(taken)
    names = (copy_name(service, number) for number in range(1, COPIES_MAX + 1))
    return next((name for name in names if name not in used), None)


def remember(home: Home, wishes: Wishes) -> None:
    """Write the wishes down, for whoever keeps the copies of this home."""
    write_private(home.scale_file, msgspec.json.encode(wishes).decode())


def wished(home: Home) -> Wishes:
    """What was wished last; nothing when it cannot be read."""
    try:
        return msgspec.json.decode(home.scale_file.read_bytes(), type=Wishes)
    except (OSError, msgspec.MsgspecError):
        return {}
