"""The body of a response, taken in piece by piece and unpacked within bounds."""

import zlib
from typing import Final

from contracts.errors import Rejected

BODY_BYTES_MAX: Final = 5 << 20
RATIO_MAX: Final = 100
"""How many times larger than what came over the wire a body may become, once it is past RATIO_FREE_BYTES."""
RATIO_FREE_BYTES: Final = 256 << 10
STEP_BYTES: Final = 64 << 10
WINDOWS: Final = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


class Body:
    """Collects one body. Raises Rejected: too_large, fetch_failed for a packing it cannot take off."""

    def __init__(self, encoding: str) -> None:
        encoding = encoding.strip().lower()
        if encoding not in ("", "identity", *WINDOWS):
            raise Rejected("fetch_failed", reason=f"the body is packed as {encoding[:40]!r}")
        self._window = WINDOWS.get(encoding)
        self._unpacker = zlib.decompressobj(self._window) if self._window else None
        self._arrived = 0
        self._body = bytearray()

    def add(self, piece: bytes) -> None:
        """Take in what came over the wire."""
        self._arrived += len(piece)
        if self._unpacker is None:
            self._keep(piece)
            return
        try:
            self._unpack(piece)
        except zlib.error:
            raise Rejected("fetch_failed", reason="the packed body is damaged") from None

    def whole(self) -> bytes:
        """The body, now that all of it is here."""
        if self._unpacker is not None and self._arrived and not self._unpacker.eof:
            raise Rejected("fetch_failed", reason="the packed body ends too early")
        return bytes(self._body)

    def _unpack(self, piece: bytes) -> None:
        if self._window == WINDOWS["deflate"] and self._arrived == len(piece) and piece and piece[0] & 0x0F != 8:
            self._unpacker = zlib.decompressobj(-zlib.MAX_WBITS)  # many servers mean the bare format
        while piece:
            if self._unpacker is None or self._unpacker.eof:
                self._unpacker = zlib.decompressobj(self._window or 0)  # a file may hold several packings in a row
            self._keep(self._unpacker.decompress(piece, STEP_BYTES))
            piece = self._unpacker.unconsumed_tail or self._unpacker.unused_data

    def _keep(self, piece: bytes) -> None:
        self._body += piece
        size = len(self._body)
        if size > BODY_BYTES_MAX:
            raise Rejected("too_large", f"the body is larger than {BODY_BYTES_MAX} bytes", max=BODY_BYTES_MAX)
        if size > RATIO_FREE_BYTES and size > RATIO_MAX * self._arrived:
            raise Rejected("too_large", "the body is packed far tighter than any page", max=BODY_BYTES_MAX)
