"""What tasks have read, as it may leave the executor: a path or a name may hold a secret like any other text."""

import msgspec

from contracts.taint import WHAT_CHARS_MAX, Reading
from services.runtime.redaction import masked


def shown(reading: Reading) -> Reading:
    """The reading without secrets."""
    return msgspec.structs.replace(reading, what=masked(reading.what)[:WHAT_CHARS_MAX])
