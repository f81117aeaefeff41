"""A field that was renamed, dropped, moved or filled from another one is no addition."""

from typing import Any

import msgspec
import pytest

from tests.contracts.additive import without_later_fields


class Was(msgspec.Struct, omit_defaults=True):
    name: str
    size: int = 0


class Grown(msgspec.Struct, omit_defaults=True):
    name: str
    size: int = 0
    attempt: int = msgspec.field(default_factory=lambda: 1)


class Renamed(msgspec.Struct, omit_defaults=True):
    name: str
    length: int = msgspec.field(default_factory=lambda: 0)


class Dropped(msgspec.Struct, omit_defaults=True):
    name: str


class FilledFromAnother(msgspec.Struct, omit_defaults=True):
    name: str
    size: int = 0
    attempt: int = msgspec.field(default_factory=lambda: 1)

    def __post_init__(self) -> None:
        self.attempt = self.size


class Reordered(msgspec.Struct, omit_defaults=True, kw_only=True):
    size: int = 0
    name: str


@pytest.mark.parametrize(
    ("message", "as_ever"),
    [(Was, True), (Grown, True), (Renamed, False), (Dropped, False), (FilledFromAnother, False), (Reordered, False)],
)
def test_only_the_default_of_a_later_field_may_be_written_beside_what_was_there(
    message: type[Any], as_ever: bool
) -> None:
    old = msgspec.json.encode(Was("x", 3))
    written = msgspec.json.encode(msgspec.json.decode(old, type=message))
    assert (without_later_fields(written, message, old) == old) is as_ever
