"""Who speaks through the console: a note in the log, not a proof of identity."""

import getpass
import os
import re
from collections.abc import Mapping
from functools import cache
from typing import Final

from contracts.commit import HEADER_BY

NAME_CHARS_MAX: Final = 64
_UNUSUAL: Final = re.compile(r"[^A-Za-z0-9._@\\-]")


def principal() -> str:
    """`operator:` and the name of the user of this machine; the number when the user has no name."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return f"operator:{_UNUSUAL.sub('_', name)[:NAME_CHARS_MAX]}"


@cache
def headers() -> Mapping[str, str]:
    """What the console's calls carry."""
    return {HEADER_BY: principal()}
