"""What a journaled outcome says of money, for whoever finds one that the ledger may not have heard of. Pure."""

from typing import Final

import msgspec

from contracts.llm import Disputed, Usage


class Failed(msgspec.Struct, frozen=True):
    """A journaled error; with usage where its provider had begun to answer."""

    code: str = "internal"
    usage: Usage | None = None
    cost_usd_micros: int | None = None
    abandoned_tokens: int = 0
    abandoned_usd_micros: int | None = 0


class Journaled(msgspec.Struct, frozen=True):
    """A journaled outcome, as far as the ledger needs it."""

    model_id: str = ""
    model_used: str = ""
    usage: Usage | None = None
    cost_usd_micros: int | None = None
    error: Failed | None = None
    disputed: Disputed | None = None
    cached: bool = False
    abandoned_tokens: int = 0
    abandoned_usd_micros: int | None = 0


_DECODE: Final = msgspec.json.Decoder(Journaled).decode


def journaled(data: bytes) -> Journaled:
    """The money of an outcome. Raises msgspec.MsgspecError when it is none."""
    return _DECODE(data)
