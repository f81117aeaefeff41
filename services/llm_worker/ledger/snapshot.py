"""The ledger's state as bytes and back: a worker starts from the newest snapshot and the events behind it. Pure."""

from typing import Final

import msgspec

from services.llm_worker.ledger.state import Held, Ledger, Open, Spent

FORMAT: Final = "ledger-1"


class _Kept(msgspec.Struct, frozen=True):
    open: dict[str, Open]
    spent: dict[str, Spent]
    held: dict[str, Held]
    live: dict[str, int]
    grants: dict[str, list[int]]
    closed: list[int]


_ENCODE: Final = msgspec.msgpack.Encoder().encode
_DECODE: Final = msgspec.msgpack.Decoder(_Kept).decode


def dump(ledger: Ledger) -> bytes:
    """The state as bytes."""
    return _ENCODE(
        _Kept(
            ledger.open,
            ledger.spent,
            ledger.held,
            ledger.live,
            ledger.grants,
            list(ledger.closed),
        )
    )


def restore(data: bytes) -> Ledger:
    """The state in `data`. Raises msgspec.MsgspecError when it holds none."""
    kept = _DECODE(data)
    ledger = Ledger()
    ledger.open, ledger.spent, ledger.held = kept.open, kept.spent, kept.held
    ledger.live, ledger.grants = kept.live, kept.grants
    ledger.closed = dict.fromkeys(kept.closed)
    return ledger
