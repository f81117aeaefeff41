"""What a check says."""

from typing import Literal

import msgspec

Status = Literal["ok", "note", "warn", "fail"]


class Finding(msgspec.Struct, frozen=True):
    """One line of the doctor: `note` is nothing to worry about, `mend` says what to do."""

    name: str
    status: Status
    message: str
    mend: str = ""
