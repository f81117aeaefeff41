"""One point of a contract, and what was seen."""

from typing import Literal, NamedTuple

Outcome = Literal["pass", "fail", "note"]


class Point(NamedTuple):
    """How one point went, and what was seen. A note is no failure."""

    name: str
    outcome: Outcome
    seen: str = ""
