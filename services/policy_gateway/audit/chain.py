"""The hash chain over audit entries: how an entry is linked, and whether a stored one is what was linked.

Pure. An entry's hash covers the stored JSON itself (keys sorted), not the struct it is read into: an entry of a newer
version, with fields that this one does not know, is verified like any other.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from contracts.policy import GENESIS, AuditEvent

_ENCODE: Final = msgspec.json.Encoder(order="sorted").encode
E = TypeVar("E", bound=msgspec.Struct)


class Head(NamedTuple):
    """The last entry of the chain: its number and hash, and the sequence of the message that holds it."""

    n: int = 0
    hash: str = GENESIS
    seq: int = 0


class Broken(Exception):
    """An entry is not what it should be: `n` is where the chain breaks."""

    def __init__(self, n: int, reason: str) -> None:
        self.n, self.reason = n, reason
        super().__init__(f"entry {n}: {reason}")


def digest_of(fields: Mapping[str, Any]) -> str:
    """The hash of an entry, given all its stored fields; that of `hash` itself does not count."""
    return sha256(_ENCODE({key: value for key, value in fields.items() if key != "hash"})).hexdigest()


def linked(entry: E, head: Head) -> E:
    """The entry as the next one behind `head`."""
    placed = msgspec.structs.replace(entry, n=head.n + 1, prev=head.hash, hash="")
    return msgspec.structs.replace(placed, hash=digest_of(msgspec.to_builtins(placed)))


def after(entry: AuditEvent, head: Head) -> Head:
    """The head once a linked entry is taken in; the sequence is known when it is stored."""
    return Head(entry.n, entry.hash, head.seq)


def check(fields: Mapping[str, Any], head: Head) -> Head:
    """The head behind a stored entry. Raises Broken when it is not the one that was linked there."""
    n = head.n + 1
    if fields.get("n") != n:
        raise Broken(n, f"the entry is numbered {fields.get('n')!r}: something is missing, or was put in")
    if fields.get("prev") != head.hash:
        raise Broken(n, "it does not follow from the entry before")
    if fields.get("hash") != digest_of(fields):
        raise Broken(n, "its content was changed")
    return Head(n, str(fields["hash"]), head.seq)
