"""Where everything of our own stands while codes are produced: a folder that is removed, whatever is in it."""

import tempfile
from typing import Final

PREFIX: Final = "htdag-conformance-"


def thrown_away() -> tempfile.TemporaryDirectory[str]:
    """A new folder, for as long as its block runs. What cannot be removed stays, and fails nothing."""
    return tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
