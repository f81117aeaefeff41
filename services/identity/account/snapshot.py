"""An account as bytes and back, so that a log of years is not folded again at each start. Pure.

What is secret in it is sealed, as it is in the events.
"""

from typing import Final

import msgspec

from services.identity.account.state import User

FORMAT: Final = "user-1"
"""Changes with the shape of the state or its meaning: older snapshots are ignored."""

_ENCODE: Final = msgspec.msgpack.Encoder().encode
_DECODE: Final = msgspec.msgpack.Decoder(User).decode


def dump(user: User) -> bytes:
    """The state as bytes."""
    return _ENCODE(user)


def restore(data: bytes) -> User:
    """The state in `data`. Raises msgspec.MsgspecError when it holds none."""
    return _DECODE(data)
