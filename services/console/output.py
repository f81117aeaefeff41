"""Where a command's words go: data to stdout, progress to stderr, JSON when asked, colour only on a terminal."""

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final, TextIO

import msgspec

from contracts.errors import Rejected
from services.console.terminal import coloured, width, words_for

_DOLLARS_MAX: Final = 1_000_000_000
_SGR: Final = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36", "dim": "2", "bold": "1"}
_COLOUR_OF: Final = {
    "ok": "green",
    "ready": "green",
    "up": "green",
    "completed": "green",
    "running": "cyan",
    "in_progress": "cyan",
    "starting": "cyan",
    "warn": "yellow",
    "degraded": "yellow",
    "backoff": "yellow",
    "blocked": "yellow",
    "cancelled": "yellow",
    "fail": "red",
    "failed": "red",
    "dead": "red",
    "note": "dim",
    "pending": "dim",
}


def colourful(stream: Any) -> bool:
    """Whether colour and animation are welcome on `stream`: a terminal, not dumb, and nobody set NO_COLOR."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return bool(stream.isatty()) and os.environ.get("TERM") != "dumb"


def plain(value: Any) -> Any:
    """`value` as JSON data with every field, also those at their default, so that keys are stable for scripts."""
    if isinstance(value, msgspec.Struct):
        tag = type(value).__struct_config__.tag
        head = {str(type(value).__struct_config__.tag_field): tag} if tag else {}
        return head | {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value


def columns(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """An aligned table of text: two spaces between columns, the last one never padded or cut."""
    table = [list(headers), *([_cell(value) for value in row] for row in rows)]
    widths = [max(width(row[index]) for row in table) for index in range(len(headers))]
    lines = ([c + " " * (w - width(c)) for c, w in zip(row, widths, strict=True)] for row in table)
    return "\n".join("  ".join(line).rstrip() for line in lines)


def _cell(value: object) -> str:
    return "-" if value is None or value == "" else str(value).replace("\n", " ")


class Output:
    """The two streams of one command. `json` asks for one JSON document per value instead of text."""

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self.colour = colourful(sys.stdout)
        self.live = colourful(sys.stderr) and not json

    def value(self, value: Any, text: Callable[[Any], str] | str | None = None) -> None:
        """Print data: JSON, or `text` (of it), or the value as indented JSON when there is no text for it."""
        if self.json:
            document = msgspec.json.encode(plain(value), order="deterministic").decode()
            sys.stdout.write(f"{document}\n")  # for programs: never altered, wherever it goes
            sys.stdout.flush()
        elif text is None:
            self._write(sys.stdout, msgspec.json.format(msgspec.json.encode(plain(value)), indent=2).decode())
        else:
            self._write(sys.stdout, text if isinstance(text, str) else text(value))

    def line(self, text: str) -> None:
        """A line of data for people; nothing when JSON was asked for."""
        if not self.json:
            self._write(sys.stdout, text)

    def piece(self, text: str) -> None:
        """A piece of streamed data without a line end."""
        if not self.json:
            self._write(sys.stdout, text, end="")

    def note(self, text: str) -> None:
        """Progress or a remark, on stderr."""
        self._write(sys.stderr, text)

    def state(self, word: str) -> str:
        """`word` in the colour of the state that it names."""
        return self.paint(word, _COLOUR_OF.get(word, ""))

    def paint(self, text: str, colour: str) -> str:
        """`text` in `colour` on a terminal, unchanged elsewhere. See `services.console.terminal` for who writes it."""
        code = _SGR.get(colour)
        return coloured(text, code) if code and self.colour else text

    @staticmethod
    def _write(stream: TextIO, text: str, end: str = "\n") -> None:
        stream.write(words_for(stream, text) + end)
        stream.flush()


def money(usd_micros: int, *, unknown: bool = False) -> str:
    """Micro-dollars for people: at least four decimals; says so when a part of the price is unknown."""
    text = f"${usd_micros / 1_000_000:.6f}"
    while text[-1] == "0" and len(text.split(".")[1]) > 4:
        text = text[:-1]
    return f"{text} + unknown" if unknown else text


def micros_of(dollars: Decimal) -> int:
    """Dollars as people type them, in whole micro-dollars. Raises Rejected when it is no amount."""
    if not dollars.is_finite() or not 0 <= dollars <= _DOLLARS_MAX:
        raise Rejected("bad_request", "this is no amount of dollars", value=str(dollars))
    return int((dollars * 1_000_000).to_integral_value(ROUND_HALF_UP))


def duration(seconds: float) -> str:
    """A duration for people: `0.4s`, `12.0s`, `3m05s`, `2h01m`."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
