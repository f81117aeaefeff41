"""What a program printed: kept up to a bound, the rest read and counted, shown as text."""

import asyncio
import json
from typing import Final, NamedTuple

CHUNK_BYTES: Final = 1 << 16
DRAIN_PAUSE_S: Final = 0.005
"""Beyond the bound a program is slowed down rather than read at full speed: nobody will see it."""
ENCODED_BYTES_MAX: Final = 3 << 20
"""What one stream may take in a JSON reply: control characters become six bytes each there."""


class Output(NamedTuple):
    """The kept beginning of one stream, and how long all of it was."""

    kept: bytes
    total_bytes: int


class Shown(NamedTuple):
    """One stream as text. `lossy`: some bytes were no UTF-8 and are shown as replacement characters."""

    text: str
    truncated: bool
    lossy: bool


async def collect(stream: asyncio.StreamReader, bytes_max: int) -> Output:
    """Read to the end, keep the first `bytes_max` bytes."""
    kept, total_bytes = bytearray(), 0
    while chunk := await stream.read(CHUNK_BYTES):
        kept += chunk[: max(bytes_max - len(kept), 0)]
        total_bytes += len(chunk)
        if total_bytes > bytes_max:
            await asyncio.sleep(DRAIN_PAUSE_S)
    return Output(bytes(kept), total_bytes)


def shown(output: Output) -> Shown:
    """The text of one stream, small enough for a reply whatever its bytes are."""
    cut = output.total_bytes > len(output.kept)
    kept = _whole_characters(output.kept) if cut else output.kept
    text = kept.decode("utf-8", "replace")
    lossy = "�" in text and text.encode() != kept
    while len(encoded := json.dumps(text, ensure_ascii=False).encode()) > ENCODED_BYTES_MAX:
        text, cut = text[: len(text) * ENCODED_BYTES_MAX // len(encoded)], True
    return Shown(text, cut, lossy)


def _whole_characters(data: bytes) -> bytes:
    """Without the first bytes of a character that the cut went through."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte < 0x80:
            break
        if byte >= 0xC0:
            needed = 2 + (byte >= 0xE0) + (byte >= 0xF0)
            return data[:-back] if back < needed else data
    return data
