"""NKeys as the NATS documentation shows them, and a login with one at a real broker."""

import asyncio
import base64
import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from contracts.errors import Rejected
from services.runtime import nats_client, nkeys
from services.runtime.nkeys import KeyPair
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer

# The pair in the documentation of NATS, "NKeys".
SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"


def test_the_public_key_of_the_documented_seed() -> None:
    assert KeyPair(SEED).public == PUBLIC


def test_a_new_key_is_a_users_and_never_the_same_twice() -> None:
    one, two = KeyPair.make(), KeyPair.make()
    assert one.seed != two.seed
    assert (one.seed[:2], one.public[0], len(one.public)) == ("SU", "U", 56)
    assert KeyPair(one.seed).public == one.public


def test_a_signature_can_be_checked_with_the_public_key() -> None:
    signature = base64.urlsafe_b64decode(KeyPair(SEED).sign("nonce") + b"==")
    raw = base64.b32decode(PUBLIC)[1:33]
    Ed25519PublicKey.from_public_bytes(raw).verify(signature, b"nonce")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        PUBLIC,
        SEED[:-1],
        SEED[:-1] + "A",
        SEED.lower(),
        "SAAFMSQM3SDGN3GUWDFIOGMFXRF3YCNF2J7G4C4DS6PXVPQEUYTJCXO3RA",
        SEED + "\nX",
        "é" * 58,
    ],
)
def test_what_is_no_seed_of_a_user_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        KeyPair(text)


def test_a_key_is_read_from_its_file_or_from_the_folder_of_all(tmp_path: Path) -> None:
    (tmp_path / "planner.nk").write_text(SEED + "\n")
    for place in (tmp_path, tmp_path / "planner.nk"):
        assert nkeys.load(place, "planner").public == PUBLIC


def test_a_key_that_is_missing_or_broken_says_which_and_not_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "executor.nk").write_text("secret, but no seed")
    for user in ("planner", "executor"):
        with pytest.raises(Rejected, match=f"{user}.nk") as refused:
            nkeys.load(tmp_path, user)
        assert refused.value.code == "bad_config"
        assert "secret" not in str(refused.value.to_wire())


async def answer_to(port: int, key: KeyPair) -> bytes:
    """What the broker says to somebody with this key."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    nonce = json.loads((await reader.readline()).partition(b" ")[2])["nonce"]
    options = {"nkey": key.public, "sig": key.sign(nonce).decode(), "verbose": False}
    writer.write(f"CONNECT {json.dumps(options)}\r\nPING\r\n".encode())
    said = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return said.strip()


async def test_the_broker_takes_a_login_by_key_and_refuses_another_key(
    start_nats_server: Callable[..., NatsServer],
) -> None:
    server = start_nats_server(extra=f"authorization {{ users: [ {{ nkey: {PUBLIC} }} ] }}")
    client = await nats_client.connect(server.url, name="planner", key=KeyPair(SEED), inbox="_INBOX_planner")
    assert client.new_inbox().startswith("_INBOX_planner.")
    await client.flush(5)
    # A login outlives the broker's restart: the nonce is a new one each time.
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
    await eventually(lambda: client.stats["reconnects"] == 1 and client.is_connected)
    await client.flush(5)
    await client.close()
    assert await answer_to(server.port, KeyPair(SEED)) == b"PONG"
    assert await answer_to(server.port, KeyPair.make()) == b"-ERR 'Authorization Violation'"


async def test_a_broker_without_users_takes_whoever_has_a_key(nats_server: NatsServer) -> None:
    client = await nats_client.connect(nats_server.url, name="planner", key=KeyPair(SEED))
    await client.flush(5)
    await client.close()


def test_seeds_are_written_for_their_owner_only(tmp_path: Path) -> None:
    written = nkeys.keep(tmp_path, "planner")
    path = tmp_path / "planner.nk"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert nkeys.keep(tmp_path, "planner").public == written.public == nkeys.load(path, "planner").public
