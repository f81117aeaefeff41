"""No secret, code, password, credential or link is stored, logged or counted in the clear; keys can be rotated."""

import asyncio
import json
import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from contracts.reply import RemoteRejected
from contracts.streams import EVENTS_IDENTITY
from contracts.subjects import events
from services.console.doctor import identity as doctor
from services.console.home import Home
from services.identity.key_file import KeyFile
from services.identity.own_files import write_private
from services.runtime.jetstream import JetStreamEventStore
from tests.support.eventually import eventually
from tests.unit.identity.desk import PASSWORD, Hall


async def everything_stored(hall: Hall) -> bytes:
    """Every message of every stream, with subjects and headers."""
    found = []
    for name in (await hall.bus.api("STREAM.NAMES"))["streams"]:
        async for record in hall.bus.history(name, ">"):
            found.append(f"{record.subject} {dict(record.headers)} ".encode() + record.data)
    return b"\n".join(found)


@pytest.mark.law("I13")
async def test_nothing_secret_is_stored_logged_or_counted(hall: Hall):
    token = hall.token()
    bearer = await hall.enrol()
    agent = await hall.ask("agent.create", name="planner-1")
    two = await hall.ask("agent.create", name="worker-2")
    shown = await hall.ask("agent.code", credential=agent["credential"])
    presented = {"agent": "planner-1", "code": shown["code"], "credential": two["credential"]}
    await hall.ask("agent.challenge", **presented)
    secrets = {hall.secret, PASSWORD, bearer, token, agent["credential"], two["credential"], shown["code"]}
    await hall.request("apr-7")
    for _ in range(3):
        for code in (hall.wrong(), hall.code()):
            secrets.add(code)
            await hall.login("Aka", code)
        hall.later(60)
    secrets.add(hall.code())
    await hall.converse("approval.converse", "Aka", hall.code(), approval_id="apr-7")
    await hall.ask("login.converse", session="mistyped", text="483291")
    secrets |= {"483291"}
    await hall.post("/auth/mfa/reset/", {"password": "a password that is wrong"})
    secrets.add("a password that is wrong")
    stored = await everything_stored(hall)
    assert b"user.attempt_accepted.v1" in stored
    assert b"approval.granted.v1" in stored
    base = await hall.processes[0].ready()
    with urllib.request.urlopen(f"{base}/metrics") as answer:
        metrics = answer.read()
    assert b'htdag_totp_attempts_total{purpose="approval",result="accepted"} 1.0' in metrics
    logs = b"".join(process.log_path.read_bytes() for process in hall.processes)
    for secret in secrets:
        # Six digits stand inside many a time or digest by chance: a code would stand by itself.
        alone = re.compile(rb"(?<![0-9A-Za-z])" + re.escape(secret.encode()) + rb"(?![0-9A-Za-z])")
        for place in (stored, logs, metrics):
            assert not alone.search(place), secret


async def test_a_code_that_is_typed_a_field_too_early_is_stored_nowhere(hall: Hall):
    """Whoever speaks to the listener unproven is nobody yet: what they call themselves stands in no log."""
    await hall.enrol()
    code = hall.code()
    for path in ("disable", "reset", "unlock"):
        await hall.post(f"/auth/mfa/{path}/", {"user": code, "code": "1", "password": "1"})
    await hall.post("/auth/session/", {"user": code, "password": "1"})
    await hall.post("/auth/password/", {"user": code, "token": code, "password": PASSWORD})
    await hall.post("/auth/password/change/", {"user": code, "password": code, "new_password": "1", "code": "1"})
    await hall.ask("login.converse", session="early", text=code)
    await hall.ask("login.converse", session=code, text="Aka")
    await hall.refused("user.status", name=code)
    await hall.post("/auth/mfa/disable/", {"user": "aka", "code": "1"})
    stored = await everything_stored(hall)
    logs = b"".join(process.log_path.read_bytes() for process in hall.processes)
    assert not re.search(rb"(?<![0-9A-Za-z])" + code.encode() + rb"(?![0-9A-Za-z])", stored + logs)
    judged = [json.loads(line[line.index(b'{"at') :]) for line in stored.split(b"\n") if b'"purpose":"disable"' in line]
    assert [commit["by"] for commit in judged] == ["local", "local"]


async def test_a_rotation_seals_everything_anew_and_old_keys_can_be_dropped(hall: Hall):
    await hall.enrol()
    file = KeyFile(hall.home / "keys" / "identity")
    file.rotate()

    async def rewrapped() -> bool:
        return b"user.secret_rewrapped.v1" in await everything_stored(hall)

    await eventually(rewrapped, timeout_s=10)
    file.drop_old()
    assert (await hall.login("Aka", hall.code()))["state"] == "confirmed"
    assert (await hall.post("/auth/session/", {"user": "aka", "password": PASSWORD})).status == 200


async def test_a_secret_that_no_key_opens_keeps_no_other_on_an_old_key(hall: Hall):
    """One that was lost, or that belongs to somebody else: whatever becomes of it, the others are sealed anew."""
    await hall.enrol()
    await hall.ask("agent.create", name="worker-2")
    store = JetStreamEventStore(hall.bus, EVENTS_IDENTITY)
    first = await store.last(events("identity", "user", "worker-2"))
    assert first is not None
    stranger = first.data.replace(b'"user_id":"worker-2"', b'"user_id":"a-stray"')
    headers = {name: text for name, text in first.headers.items() if not name.startswith("Nats-")}
    await store.append(events("identity", "user", "a-stray"), [stranger], expect=0, msg_id="stray", headers=headers)
    assert len(await hall.ask("user.list")) == 3
    file = KeyFile(hall.home / "keys" / "identity")
    file.rotate()

    async def none_left() -> bool:
        told = await hall.post("/auth/keys/", {})
        return told.body == {"keys": 2, "accounts_on_old_keys": 0}

    await eventually(none_left, timeout_s=10)
    file.drop_old()
    assert (await hall.login("Aka", hall.code()))["state"] == "confirmed"


async def test_nobody_can_be_told_from_somebody_after_a_rotation(hall: Hall):
    """Whoever was about to say a code when the keys changed says it all the same, known or not."""
    await hall.enrol()
    await hall.ask("user.create", name="Bo")
    for name in ("Aka", "ghost"):
        await hall.ask("login.converse", session=name, text=name)
    file = KeyFile(hall.home / "keys" / "identity")
    file.rotate()

    async def rewrapped() -> bool:
        return b"user.secret_rewrapped.v1" in await everything_stored(hall)

    await eventually(rewrapped, timeout_s=10)
    file.drop_old()
    said = [await hall.ask("login.converse", session=name, text=hall.wrong()) for name in ("ghost", "Aka")]
    assert [(one["state"], one["code"]) for one in said] == [("refused", "invalid_code")] * 2
    for name in ("Aka", "Bo", "ghost"):
        assert (await hall.login(name, hall.wrong()))["code"] == "invalid_code"
        assert (await hall.post("/auth/mfa/disable/", {"user": name, "code": "1"})).body["code"] == "invalid_code"


async def test_an_older_copy_of_the_key_file_is_said_on_readyz_and_tells_nobody_from_somebody(hall: Hall):
    await hall.enrol()
    base = await hall.processes[0].ready()
    file = KeyFile(hall.home / "keys" / "identity")
    older = file.path.read_text()
    file.rotate()

    async def rewrapped() -> bool:
        return b"user.secret_rewrapped.v1" in await everything_stored(hall)

    await eventually(rewrapped, timeout_s=10)
    file.drop_old()
    write_private(file.path, older)
    with pytest.raises(urllib.error.HTTPError) as not_ready:
        await asyncio.to_thread(urllib.request.urlopen, f"{base}/readyz", timeout=5)
    assert not_ready.value.code == 503
    assert "another key file" in not_ready.value.read().decode()
    said = []
    for name in ("Aka", "ghost"):
        with pytest.raises(RemoteRejected) as refused:
            await hall.login(name, hall.wrong())
        said.append(refused.value.code)
    assert said == ["bad_config"] * 2
    hall.processes[0].kill()
    found = doctor.keys(Home(hall.home))
    assert (found.status, found.message) == (
        "fail",
        "the key file of identity is an older copy: it lacks the key in use",
    )


@pytest.mark.parametrize("kept", ["foreign", "garbage", "lost"])
async def test_without_the_right_key_file_the_listener_answers_all_names_alike_and_judges_nobody(
    hall: Hall, tmp_path: Path, kept: str
):
    await hall.enrol()
    await hall.ask("user.create", name="Bea")
    await hall.ask("agent.create", name="planner-1")
    path = hall.home / "keys" / "identity"
    good = path.read_text()
    other = KeyFile(tmp_path / "other")
    other.create()
    if kept == "lost":
        path.unlink()
    else:
        write_private(path, other.path.read_text() if kept == "foreign" else "x")
    asked: dict[str, dict[str, str]] = {
        "/auth/session/": {"password": PASSWORD},
        "/auth/mfa/reset/": {"password": "not the one"},
        "/auth/mfa/unlock/": {"password": "not the one"},
        "/auth/password/change/": {"password": "not the one", "new_password": "another one", "code": "1"},
        "/auth/mfa/disable/": {"code": hall.wrong()},
    }
    for route, body in asked.items():
        told = [await hall.post(route, {"user": name, **body}) for name in ("aka", "bea", "ghost", "planner-1", "")]
        assert [(one.status, one.body["code"]) for one in told] == [(500, "bad_config")] * 5, route
        assert all(one == told[0] for one in told)
    write_private(path, good)
    told = [await hall.post("/auth/session/", {"user": "ghost", "password": "no"}) for _ in range(5)]
    assert {one.body["code"] for one in told} == {"wrong_password"}
    assert (await hall.post("/auth/session/", {"user": "aka", "password": PASSWORD})).status == 200


async def test_an_agents_channel_uses_up_no_humans_attempts(hall: Hall):
    await hall.enrol()
    await hall.request("apr-7")
    said = []
    for number in range(6):
        for text in ("Aka", hall.wrong()):
            body = {"session": f"a{number}", "text": text}
            said.append(
                await hall.bus.call("htdag.v1.identity.login.converse", body, headers={"Htdag-By": "agent:planner-1"})
            )
    assert [one["code"] for one in said[1::2]] == ["invalid_code"] * 5 + ["rate_limited"]
    for text in ("Aka", hall.code()):
        body = {"session": "g", "text": text, "approval_id": "apr-7"}
        gate = await hall.bus.call("htdag.v1.identity.approval.converse", body, headers={"Htdag-By": "agent:planner-1"})
    assert gate["code"] == "agent_cannot_approve"
    assert (await hall.ask("user.status", name="aka"))["failures"] == 0
    assert (await hall.login("Aka", hall.code()))["state"] == "confirmed"
