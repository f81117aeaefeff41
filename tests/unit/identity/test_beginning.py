"""Identity makes an owner once: a log that was emptied makes nobody the next one."""

import asyncio
import shutil
from pathlib import Path

import msgspec
import pytest

from contracts.errors import Rejected
from contracts.streams import EVENTS_IDENTITY
from services.identity.beginning import Beginning, Mark, check_log
from tests.support.eventually import eventually
from tests.support.service_process import ServiceProcess
from tests.unit.identity.desk import Hall

BEGIN_ANEW = "identity-begin-anew"


@pytest.mark.parametrize(
    ("accounts", "first_seq", "mark"),
    [(False, 0, None), (False, 1, None), (True, 1, None), (True, 1, Mark()), (True, 7, Mark(7))],
    ids=["nothing yet", "only gates yet", "an older version's", "as it was left", "begun anew"],
)
def test_a_log_as_it_was_left_is_taken(accounts: bool, first_seq: int, mark: Mark | None) -> None:
    check_log(accounts=accounts, first_seq=first_seq, mark=mark)


@pytest.mark.parametrize(
    ("accounts", "first_seq", "mark"),
    [(False, 0, Mark()), (False, 9, None), (True, 9, Mark()), (True, 9, Mark(7)), (True, 2, None)],
    ids=["gone", "emptied", "cut", "cut again", "cut before there was a mark"],
)
def test_a_log_that_holds_less_is_refused(accounts: bool, first_seq: int, mark: Mark | None) -> None:
    with pytest.raises(Rejected, match="accounts_lost"):
        check_log(accounts=accounts, first_seq=first_seq, mark=mark)


async def refused_start(hall: Hall) -> ServiceProcess:
    process = ServiceProcess(
        "identity", hall.server, hall.home, HTDAG_IDENTITY__TEST_CLOCK=str(hall.clock), HTDAG_IDENTITY__OWNER="Mallory"
    )
    process.start()
    hall.processes.append(process)
    await eventually(lambda: process.dead, timeout_s=30)
    assert (process.exit_code, "accounts_lost" in process.tail()) == (78, True), process.tail()
    return process


async def test_an_emptied_log_makes_no_new_owner(hall: Hall) -> None:
    await hall.enrol()
    hall.processes[0].kill()
    config = (await hall.bus.api(f"STREAM.INFO.{EVENTS_IDENTITY}"))["config"]
    # What the operator's password could once do; whoever has the key of the streams still can.
    forgetful = {**config, "discard": "old", "max_age": 200_000_000, "duplicate_window": 200_000_000}
    await hall.bus.api(f"STREAM.UPDATE.{EVENTS_IDENTITY}", forgetful)

    async def empty() -> bool:
        return (await hall.bus.api(f"STREAM.INFO.{EVENTS_IDENTITY}"))["state"]["messages"] == 0

    await eventually(empty)
    await refused_start(hall)
    (hall.home / "keys" / "identity-began").unlink()
    await refused_start(hall)


async def test_a_broker_without_its_store_makes_no_new_owner_until_a_person_begins_anew(hall: Hall) -> None:
    hall.processes[0].kill()
    hall.server.kill()
    await asyncio.to_thread(shutil.rmtree, hall.server.store_dir)
    await asyncio.to_thread(hall.server.start)
    await refused_start(hall)
    assert not list((hall.home / "keys" / "set-up-links").glob("mallory"))
    (hall.home / "keys" / BEGIN_ANEW).touch(0o600)
    again = await hall.start()
    assert [one["name"] for one in await hall.ask("user.list")] == ["Aka"]
    assert not (hall.home / "keys" / BEGIN_ANEW).exists(), "a wish is used once"
    again.kill()
    await hall.start()


def test_the_mark_is_private(tmp_path: Path) -> None:
    beginning = Beginning(tmp_path, accounts=False, first_seq=0)
    beginning.check()
    beginning.done("k1", "n1")
    assert (tmp_path / "identity-began").stat().st_mode & 0o777 == 0o600


def test_a_new_key_is_noted_without_using_up_the_wish_to_begin_anew(tmp_path: Path) -> None:
    beginning = Beginning(tmp_path, accounts=True, first_seq=7)
    beginning.done("k1", "n1")
    (tmp_path / BEGIN_ANEW).touch(0o600)
    beginning.takes("n2")
    noted = msgspec.json.decode((tmp_path / "identity-began").read_bytes(), type=Mark)
    assert noted == Mark(first_seq=7, public_key="k1", newest="n2")
    assert (tmp_path / BEGIN_ANEW).exists()
