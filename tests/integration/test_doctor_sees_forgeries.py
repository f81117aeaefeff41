"""The doctor counts what the broker was made to store among snapshots, sessions and requests, as among facts."""

import msgspec
import pytest

from contracts.rights import BOOTSTRAP, OPERATOR
from contracts.streams import COMMANDS, CONVERSATIONS, SNAPSHOTS
from contracts.subjects import command, conversation, snapshot
from services.console.connection import Console
from services.console.doctor import forgeries as doctor
from services.console.doctor.forgeries import forgeries
from services.runtime import provision
from services.runtime.bus import Bus
from services.runtime.genuine import HEADER_STREAM
from tests.support.eventually import eventually
from tests.support.guarded import Guarded


@pytest.fixture
async def operator(guarded: Guarded) -> Bus:
    await provision.apply(await guarded.bus(BOOTSTRAP))
    return await guarded.bus(OPERATOR)


async def send_on(bad: Bus, operator: Bus, stream: str, subject: str, *, whole_block: bool) -> None:
    """Have the broker store what an executor stored as its own snapshot as another's, or as something else."""
    mine = snapshot("executor", "run", "t1")
    end = b"\r\n" if whole_block else b"X: a"
    # A name of another stream the broker would refuse there.
    name = f"{HEADER_STREAM}: {SNAPSHOTS}\r\n" if stream == SNAPSHOTS else "X: b\r\n"
    block = f"NATS/1.0\r\n{name}".encode() + end
    lie = b"a lie"
    await bad.client._send_command(b"HPUB %b %d %d\r\n" % (mine.encode(), len(block), len(block) + len(lie)))
    await bad.client._send_command(block + lie + b"\r\n")
    await bad.flush()
    assert await eventually(lambda: operator.subjects(SNAPSHOTS, mine))
    before = (await operator.api(f"STREAM.INFO.{stream}"))["state"]["last_seq"]
    bad.publish(f"$JS.API.DIRECT.GET.{SNAPSHOTS}.{mine}", b"", reply=subject)
    await bad.flush()

    async def arrived() -> bool:
        return bool((await operator.api(f"STREAM.INFO.{stream}"))["state"]["last_seq"] > before)

    assert await eventually(arrived), "the broker checks replies now: services.runtime.genuine can go"


FORGED = [
    pytest.param(SNAPSHOTS, snapshot("identity", "user", "aka"), id="a snapshot"),
    pytest.param(CONVERSATIONS, conversation("0" * 64), id="a session"),
    pytest.param(COMMANDS, command("identity", "approval", "apr-7", "request"), id="a request"),
]


@pytest.mark.parametrize("whole_block", [True, False], ids=["whole block", "block without an end"])
@pytest.mark.parametrize(("stream", "subject"), FORGED)
async def test_what_the_broker_was_made_to_store_is_counted(
    guarded: Guarded, operator: Bus, stream: str, subject: str, whole_block: bool
) -> None:
    bad, console = await guarded.bus("executor"), Console(operator, 5.0)
    assert (await forgeries(console)).status == "ok"
    await send_on(bad, operator, stream, subject, whole_block=whole_block)
    said = await forgeries(console)
    assert said.status == "warn"
    assert f"1 in {stream} (newest: htdag.v1." in said.message


async def test_what_services_store_themselves_is_no_forgery(guarded: Guarded, operator: Bus) -> None:
    """Nor is what others may write into a mailbox without naming its stream."""
    executor, identity = await guarded.bus("executor"), await guarded.bus("identity")
    await executor.store(snapshot("executor", "run", "t1"), b"state", stream=SNAPSHOTS, msg_id="1")
    await executor.store(command("identity", "approval", "a", "request"), b"{}", stream=COMMANDS, msg_id="2")
    await identity.store(conversation("1" * 64), b"{}", stream=CONVERSATIONS, msg_id="3")
    await operator.client.request(command("executor", "run", "r1", "cancel"), msgspec.json.encode({}))
    said = await forgeries(Console(operator, 5.0))
    assert (said.status, said.message) == ("ok", f"no forged message in {len(doctor.LOOKED_INTO)} streams")


async def test_no_more_than_the_newest_are_looked_at_and_that_is_said(
    guarded: Guarded, operator: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "LOOKED_AT_MAX", 2)
    bad, own = await guarded.bus("executor"), await guarded.bus("planner")
    await send_on(bad, operator, COMMANDS, command("identity", "approval", "apr-7", "request"), whole_block=True)
    for number in range(2):
        await own.store(command("executor", "run", f"r{number}", "start"), b"{}", stream=COMMANDS, msg_id=str(number))
    said = await forgeries(Console(operator, 5.0))
    assert said.message.endswith("; only the newest 2 messages of each stream were looked at")
    assert COMMANDS not in said.message
