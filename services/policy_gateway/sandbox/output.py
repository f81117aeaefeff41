"""What a program printed: kept up to a bound, the rest read and counted, shown as text."""

import asyncio
import json
from typing import Any, Final, NamedTuple

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


class Kept:
    """Takes a stream in piece by piece, keeps its first `bytes_max` bytes and counts the rest."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._kept, self._total_bytes = bytearray(), 0

    @property
    def full(self) -> bool:
        """Whether something was not kept."""
        return self._total_bytes > self._bytes_max

    def add(self, piece: bytes) -> None:
        """Take a piece in."""
        self._kept += piece[: max(self._bytes_max - len(self._kept), 0)]
        self._total_bytes += len(piece)

    def output(self) -> Output:
        """What there is now."""
        return Output(bytes(self._kept), self._total_bytes)


async def collect(stream: asyncio.StreamReader, bytes_max: int) -> Output:
    """Read to the end, keep the first `bytes_max` bytes."""
    kept = Kept(bytes_max)
    while chunk := await stream.read(CHUNK_BYTES):
        kept.add(chunk)
        if kept.full:
            await asyncio.sleep(DRAIN_PAUSE_S)
    return kept.output()


def told(stdout: Output, stderr: Output, exit_code: int, duration_ms: int) -> dict[str, Any]:
    """The value of a call that ran a program: `truncated`, and `lossy` where it is so."""
    shown_out, shown_err = shown(stdout), shown(stderr)
    value: dict[str, Any] = {
        "stdout": shown_out.text,
        "stderr": shown_err.text,
        "exit": exit_code,
        "truncated": shown_out.truncated or shown_err.truncated,
        "duration_ms": duration_ms,
    }
    return value | ({"lossy": True} if shown_out.lossy or shown_err.lossy else {})


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
