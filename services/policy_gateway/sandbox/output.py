"""What a program printed: its beginning and its end are kept, the middle read and counted, all of it shown as text.

Both ends, since the beginning says what was done and the end how it went.
"""

import asyncio
import json
from typing import Any, Final, NamedTuple

CHUNK_BYTES: Final = 1 << 16
DRAIN_PAUSE_S: Final = 0.005
"""Beyond the bound a program is slowed down rather than read at full speed: nobody will see it."""
ENCODED_BYTES_MAX: Final = 3 << 20
"""What one stream may take in a JSON reply: control characters become six bytes each there."""
SAID_BYTES_MAX: Final = 16 << 10
"""What one stream may take in an error."""


class Output(NamedTuple):
    """The kept beginning of one stream, how long all of it was, and its end where something in between is missing."""

    kept: bytes
    total_bytes: int
    end: bytes = b""


class Shown(NamedTuple):
    """One stream as text. `lossy`: some bytes were no UTF-8 and are shown as replacement characters."""

    text: str
    truncated: bool
    lossy: bool


class HeadAndTail:
    """Takes a stream in piece by piece, keeps half of `bytes_max` from its beginning and half from its end."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max, self._end_max = bytes_max, bytes_max // 2
        self._kept, self._end, self._total_bytes = bytearray(), bytearray(), 0

    @property
    def full(self) -> bool:
        """Whether something was not kept."""
        return self._total_bytes > self._bytes_max

    def add(self, piece: bytes) -> None:
        """Take a piece in."""
        room = max(self._bytes_max - self._end_max - len(self._kept), 0)
        self._kept += piece[:room]
        self._end += piece[room:]
        self._total_bytes += len(piece)
        if len(self._end) > 2 * self._end_max + CHUNK_BYTES:  # seldom, since it moves what stays
            del self._end[: len(self._end) - self._end_max]

    def output(self) -> Output:
        """What there is now."""
        if not self.full:
            return Output(bytes(self._kept + self._end), self._total_bytes)
        return Output(bytes(self._kept), self._total_bytes, bytes(self._end[len(self._end) - self._end_max :]))


async def collect(stream: asyncio.StreamReader, kept: HeadAndTail) -> None:
    """Read to the end."""
    while chunk := await stream.read(CHUNK_BYTES):
        kept.add(chunk)
        if kept.full:
            await asyncio.sleep(DRAIN_PAUSE_S)


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


def said(stdout: Output, stderr: Output) -> dict[str, Any]:
    """What a program had printed when its time was over, for the detail of the error: little of it."""
    value: dict[str, Any] = {}
    for name, output in (("stdout", stdout), ("stderr", stderr)):
        text, truncated, _ = shown(output, SAID_BYTES_MAX)
        if text:
            value |= {name: text} | ({"truncated": True} if truncated else {})
    return value


def shown(output: Output, encoded_bytes_max: int = ENCODED_BYTES_MAX) -> Shown:
    """The text of one stream, small enough for a reply whatever its bytes are."""
    if output.total_bytes <= len(output.kept):
        text = output.kept.decode("utf-8", "replace")
        lossy = "\ufffd" in text and text.encode() != output.kept
        if encoded_bytes(text) <= encoded_bytes_max:
            return Shown(text, False, lossy)
        half = (len(text) + 1) // 2
        begin, end = text[:half], text[half:]
    else:
        kept, last = _whole_characters(output.kept), _from_whole_character(output.end)
        begin, end = kept.decode("utf-8", "replace"), last.decode("utf-8", "replace")
        lossy = any("\ufffd" in text and text.encode() != data for text, data in ((begin, kept), (end, last)))
    begin, end = fitted(begin, encoded_bytes_max // 2), fitted(end, encoded_bytes_max // 2, from_end=True)
    left_out = output.total_bytes - len(begin.encode()) - len(end.encode())
    return Shown(f"{begin}{left_out_mark(left_out)}{end}", True, lossy)


def left_out_mark(count: int) -> str:
    """What stands in a text where its middle was left out."""
    return f"\n[... {max(count, 0)} bytes left out here ...]\n"


def fitted(text: str, encoded_bytes_max: int, *, from_end: bool = False) -> str:
    """The beginning of a text, or its end, as much as a JSON reply has room for."""
    while (encoded := encoded_bytes(text)) > encoded_bytes_max:
        length = len(text) * encoded_bytes_max // encoded
        text = text[len(text) - length :] if from_end else text[:length]
    return text


def encoded_bytes(text: str) -> int:
    """What a text takes in a JSON reply."""
    return len(json.dumps(text, ensure_ascii=False).encode())


def _from_whole_character(data: bytes) -> bytes:
    """Without the last bytes of a character that the cut went through."""
    start = 0
    while start < min(3, len(data)) and 0x80 <= data[start] < 0xC0:
        start += 1
    return data[start:]


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
