"""Names: what may be one, and its key. Who says anything else is treated as somebody nobody knows."""

import re
from typing import Final

from contracts.errors import Rejected
from contracts.identity import NAME_CHARS_MAX

_WHITE: Final = " \t\r\n\v\f"
# Begins with a letter: what is typed by mistake at the name's prompt, a code above all, is never taken for a name.
_NAME: Final = re.compile(rf"[A-Za-z][A-Za-z0-9_-]{{0,{NAME_CHARS_MAX - 1}}}\Z")


def key_of(text: str) -> str | None:
    """The key of the name in `text`: trimmed, case ignored, ASCII only; None when it can be nobody's name."""
    name = text.strip(_WHITE)
    return name.lower() if _NAME.match(name) else None


def checked_name(text: str) -> tuple[str, str]:
    """Name and key of a new account. Raises Rejected("bad_name")."""
    name, key = text.strip(_WHITE), key_of(text)
    if key is None:
        raise Rejected("bad_name", field="name")
    return name, key
