"""What the log of a process that does not run says of why."""

from pathlib import Path
from typing import Any, Final

import msgspec

_TAIL_BYTES: Final = 16 << 10


def last_words(log: Path) -> str:
    """The last error of the process that wrote last, else its last line, in brackets; empty when there is no log.

    A process that ends in good order says so last: the reason stands some lines above.
    """
    try:
        lines = log.read_bytes()[-_TAIL_BYTES:].decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    if not lines:
        return ""
    entries = [_entry(line) for line in lines]
    writer = entries[-1].get("instance")
    errors = [entry for entry in entries if entry.get("level") == "error" and entry.get("instance") == writer]
    return f" ({_told(errors[-1]) if errors else lines[-1].strip()})"


def _entry(line: str) -> dict[str, Any]:
    try:
        entry = msgspec.json.decode(line)
    except msgspec.MsgspecError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _told(entry: dict[str, Any]) -> str:
    reason = entry.get("reason") or entry.get("msg")
    code = f"{entry['code']}: " if entry.get("code") else ""
    hint = f"; {entry['hint']}" if entry.get("hint") else ""
    return f"{code}{reason}{hint}"
