"""Every subject of the contracts with its version, its owner and the stream that keeps it."""

import re
from typing import Final, NamedTuple

from contracts.channels import CHANNELS
from contracts.verbs import VERBS

FIRST: Final = "v1"
"""The version of the short subjects, which are frozen."""
_VERSION: Final = re.compile(r"htdag\.(v\d+)\.")


class Subject(NamedTuple):
    """One subject; parameters stand in braces. `stream` is empty where nothing is kept."""

    subject: str
    version: str
    owner: str
    stream: str
    meaning: str


def _version(subject: str) -> str:
    found = _VERSION.match(subject)
    return found[1] if found else FIRST


SUBJECTS: Final = tuple(
    Subject(subject, _version(subject), owner, stream, meaning)
    for subject, owner, stream, meaning in sorted(
        [(verb.subject, verb.service, "", verb.meaning) for verb in VERBS]
        + [(one.address, one.publishers, one.stream or "", one.meaning) for one in CHANNELS]
    )
)
