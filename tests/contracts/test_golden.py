"""The bytes of every message are frozen: what was written once is read for ever.

`golden/<name>.json` holds one message as it was first released, every field set. When a field is added, the old file
stays and `golden/<name>+<n>.json` with the new field is put beside it; its default may appear in what is written of an
old one where it is always written out, and nothing else may change. When a meaning changes, a new tag `….v2` comes
with an upcaster, and the file of `….v1` stays.
"""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs

from contracts.approval import ApprovalEvent
from contracts.breaker import BreakerEvent
from contracts.codec import CommitCodec
from contracts.commit import Commit
from contracts.epic import EpicEvent
from contracts.identity import UserEvent
from contracts.ledger import LedgerEvent
from contracts.policy import AuditEvent, CallEvent, PolicyEvent
from contracts.run import RunEvent
from contracts.strategy import StrategyEvent
from scripts.generators.shapes import name_of, public_shapes, tagged_types
from tests.contracts.additive import without_later_fields

GOLDEN = Path(__file__).parent / "golden"
MESSAGES: list[type[Any]] = [*tagged_types(), *public_shapes()]
EVENTS: list[Any] = [
    EpicEvent,
    RunEvent,
    StrategyEvent,
    PolicyEvent,
    AuditEvent,
    CallEvent,
    UserEvent,
    ApprovalEvent,
    BreakerEvent,
    LedgerEvent,
]
CODECS: list[CommitCodec[Any]] = [CommitCodec(events) for events in EVENTS]


def golden_files(name: str) -> list[Path]:
    return sorted([*GOLDEN.glob(f"{name}.json"), *GOLDEN.glob(f"{name}+*.json")])


def name_in(path: Path) -> str:
    return path.stem.split("+")[0]


@pytest.mark.parametrize("message", MESSAGES, ids=name_of)
def test_every_message_has_golden_bytes(message: type[Any]) -> None:
    files = golden_files(name_of(message))
    assert files, (
        f"add tests/contracts/golden/{name_of(message)}.json: one line of JSON as msgspec encodes it, "
        "every field set to something else than its default"
    )


@pytest.mark.parametrize("message", MESSAGES, ids=name_of)
def test_golden_bytes_are_read_and_written_as_ever(message: type[Any]) -> None:
    for path in golden_files(name_of(message)):
        data = path.read_bytes().rstrip(b"\n")
        written = msgspec.json.encode(msgspec.json.decode(data, type=message))
        assert without_later_fields(written, message, data) == data, path.name


@pytest.mark.parametrize("message", MESSAGES, ids=name_of)
def test_golden_bytes_show_every_field(message: type[Any]) -> None:
    shown: set[str] = set()
    for path in golden_files(name_of(message)):
        shown |= set(msgspec.json.decode(path.read_bytes()))
    missing = {field.encode_name for field in structs.fields(message)} - shown
    assert not missing, (
        f"{sorted(missing)} of {name_of(message)} stand in no golden file: keep the old one, add "
        f"tests/contracts/golden/{name_of(message)}+{len(golden_files(name_of(message)))}.json"
    )


def test_no_golden_bytes_without_a_reader() -> None:
    """A tag that is gone from the structs must still be lifted by an upcaster of some codec."""
    known = {name_of(message) for message in MESSAGES} | {"Commit"}
    for path in sorted(GOLDEN.iterdir()):
        if name_in(path) in known:
            continue
        event = path.read_text().strip()
        commit = b'{"at":"","by":"","cause":"","corr":"","events":[' + event.encode() + b"]}"
        readers = [codec for codec in CODECS if codec.decode(commit, skip_unknown=True).events]
        assert readers, f"{path.name}: nothing reads this old message any more"


@pytest.mark.parametrize("message", MESSAGES, ids=name_of)
def test_a_message_of_tomorrow_is_read_today(message: type[Any]) -> None:
    """A newer writer adds fields; an older reader ignores them."""
    path = golden_files(name_of(message))[0]
    newer = {**msgspec.json.decode(path.read_bytes()), "a_field_of_tomorrow": {"x": [1]}}
    known = msgspec.json.decode(path.read_bytes(), type=message)
    assert msgspec.json.decode(msgspec.json.encode(newer), type=message) == known


def test_the_envelope_of_a_commit_is_frozen() -> None:
    data = (GOLDEN / "Commit.json").read_bytes().rstrip(b"\n")
    codec: CommitCodec[RunEvent] = CommitCodec(RunEvent)
    commit = codec.decode(data)
    assert isinstance(commit, Commit)
    assert codec.encode(commit) == data
    assert codec.types_header(commit.events) == "task.started.v1,task.completed.v1"
