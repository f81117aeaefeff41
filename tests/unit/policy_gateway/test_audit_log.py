"""The way into the audit: group commits, lost races, signatures, and a store that says no."""

import asyncio
from collections.abc import Mapping, Sequence

import msgspec
import pytest

from contracts.errors import Rejected
from contracts.policy import AuditCheckpoint, AuditEvent, ToolDecided, ToolFinished
from services.policy_gateway.audit import chain
from services.policy_gateway.audit.chain import Head
from services.policy_gateway.audit.log import AUDIT_CODEC, AUDIT_SUBJECT, AuditLog
from services.policy_gateway.audit.signing import good_signature, load_signer
from services.runtime.clock import FixedClock
from services.runtime.logs import configure
from services.runtime.memory import MemoryEventStore
from services.runtime.metrics import Metrics


class SlowStore(MemoryEventStore):
    """Stores one turn of the loop later, and refuses while told to."""

    def __init__(self) -> None:
        super().__init__()
        self.appends = 0
        self.refusal: Exception | None = None

    async def append(
        self, subject: str, parts: Sequence[bytes], *, expect: int, msg_id: str, headers: Mapping[str, str]
    ) -> int:
        await asyncio.sleep(0)
        self.appends += 1
        if self.refusal is not None:
            raise self.refusal
        return await super().append(subject, parts, expect=expect, msg_id=msg_id, headers=headers)


def decided(call_id: str) -> ToolDecided:
    return ToolDecided(
        n=0, prev="", hash="", at_ms=5, id=call_id, verdict="allow", role="coder", tool="fs", by="x", gateway="g",
        policy_version=1, policy_digest="d", rule="r", args={"read": "/code/a"}, args_sha256="s",
    )  # fmt: skip


def finished(call_id: str, gateway: str = "g") -> ToolFinished:
    return ToolFinished(
        n=0, prev="", hash="", at_ms=6, id=call_id, role="coder", tool="fs", by="x", gateway=gateway, duration_ms=1.5
    )


@pytest.fixture
def store() -> SlowStore:
    return SlowStore()


@pytest.fixture
async def make(store: SlowStore, clock: FixedClock, tmp_path):
    signer = load_signer(tmp_path / "keys")

    async def made(name: str = "g") -> AuditLog:
        log = AuditLog(
            store=store, clock=clock, signer=signer, gateway=name, metrics=Metrics(), log=configure("test"),
            payload_max=1 << 20,
        )  # fmt: skip
        await log.start()
        return log

    return made


async def entries(store: SlowStore) -> list[AuditEvent]:
    found: list[AuditEvent] = []
    head = Head()
    async for record in store.read(AUDIT_SUBJECT):
        for fields in msgspec.json.decode(record.data)["events"]:
            head = chain.check(fields, head)
        found += AUDIT_CODEC.decode(record.data).events
    return found


async def test_what_waits_together_is_stored_together(make, store: SlowStore) -> None:
    log = await make()
    await asyncio.gather(*(log.append(decided(str(n))) for n in range(100)))
    assert [entry.id for entry in await entries(store)] == [str(n) for n in range(100)]
    assert store.appends <= 2
    assert log.head.n == 100


async def test_a_call_has_one_end(make, store: SlowStore) -> None:
    log = await make()
    await log.append(decided("a"))
    await log.append(finished("a"))
    await log.append(finished("a", "recovery"))
    assert [type(entry) for entry in await entries(store)] == [ToolDecided, ToolFinished]


async def test_who_loses_a_race_chains_behind_the_winner(make, store: SlowStore) -> None:
    one, two = await make("one"), await make("two")
    await asyncio.gather(
        *(log.append(decided(f"{name}{n}")) for n in range(20) for name, log in (("a", one), ("b", two)))
    )
    await two.append(decided("last"))
    assert [entry.n for entry in await entries(store)] == list(range(1, 42))


async def test_a_gateway_goes_on_where_the_chain_ends(make, store: SlowStore) -> None:
    await (await make("one")).append(decided("a"), finished("a"))
    log = await make("two")
    assert log.head.n == 2
    await log.append(decided("b"))
    assert [entry.n for entry in await entries(store)] == [1, 2, 3]


async def test_an_end_that_another_gateway_has_told_is_not_told_again(make, store: SlowStore) -> None:
    one = await make("one")
    await one.append(decided("a"))
    two = await make("two")
    await two.append(finished("a", "two"))
    await one.append(finished("a", "one"))
    ends = [entry for entry in await entries(store) if isinstance(entry, ToolFinished)]
    assert [end.gateway for end in ends] == ["two"]


async def test_who_cannot_be_stored_is_told_and_the_next_one_is_tried_again(make, store: SlowStore) -> None:
    log = await make()
    store.refusal = Rejected("storage_full")
    with pytest.raises(Rejected, match="storage_full"):
        await log.append(decided("a"))
    assert log.not_ready() == "the audit cannot be stored: storage_full"
    with pytest.raises(Rejected, match="storage_full"):
        await log.checkpoint_if_due()
    store.refusal = None
    assert await log.checkpoint_if_due()
    assert log.not_ready() is None
    await log.append(decided("b"))
    signature, entry = await entries(store)
    assert (type(signature), entry.id) == (AuditCheckpoint, "b")


async def test_something_strange_in_the_log_does_not_stop_the_audit(make, store: SlowStore) -> None:
    one = await make("one")
    await one.append(decided("a"))
    await store.append(AUDIT_SUBJECT, (b"rubbish",), expect=1, msg_id="x", headers={})
    await one.append(decided("b"))
    two = await make("two")
    await two.append(decided("c"))
    assert (one.head.n, two.head.n) == (2, 3)


async def test_the_chain_is_signed_each_minute_of_activity_and_each_thousand_entries(
    make, store: SlowStore, clock: FixedClock
) -> None:
    log = await make()
    assert not await log.checkpoint_if_due(at_once=True)
    await log.append(decided("a"))
    assert not await log.checkpoint_if_due()
    clock.advance(60_000)
    assert await log.checkpoint_if_due()
    clock.advance(600_000)
    assert not await log.checkpoint_if_due(), "nothing happened since"
    await asyncio.gather(*(log.append(decided(str(n))) for n in range(1_000)))
    assert not await log.checkpoint_if_due(), "a thousand entries bring their signature with them"
    signed = [entry for entry in await entries(store) if isinstance(entry, AuditCheckpoint)]
    first, second = signed
    assert first.n == 2
    assert second.n in range(1_003, 1_260)
    assert all(good_signature(entry) for entry in signed)
    forged = msgspec.structs.replace(signed[0], prev=signed[1].prev)
    assert not good_signature(forged)


def test_the_key_is_private_and_stays_the_same(tmp_path) -> None:
    keys = tmp_path / "keys"
    first, second = load_signer(keys), load_signer(keys)
    assert first.public == second.public == (keys / "audit-ed25519.pub").read_text().strip()
    assert (keys / "audit-ed25519").stat().st_mode & 0o777 == 0o600
    (keys / "audit-ed25519").write_text("rubbish")
    with pytest.raises(Rejected, match="bad_config"):
        load_signer(keys)
