"""The local listener: set-up, verification, disabling, reset and unlock, for callers on this host only."""

import asyncio
import contextlib
import json
import socket
from pathlib import Path

from services.identity.key_file import KeyFile
from services.identity.own_files import write_private
from tests.support.eventually import eventually
from tests.unit.identity.desk import PASSWORD, Hall, Told


async def test_a_secret_is_on_only_when_a_code_confirmed_it(hall: Hall):
    bearer = await hall.set_password()
    made = await hall.post("/auth/mfa/setup/", None, bearer)
    assert made.body["provisioning_uri"].startswith("otpauth://totp/htdag:Aka?secret=")
    assert made.body["qr_svg"].startswith("<svg")
    assert not (await hall.ask("user.status", name="aka"))["mfa_enabled"]
    secret = made.body["secret"]
    assert (await hall.post("/auth/mfa/verify/", {"code": hall.code(1, secret)}, bearer)).body["code"] == "invalid_code"
    assert not (await hall.ask("user.status", name="aka"))["mfa_enabled"]
    confirmed = await hall.post("/auth/mfa/verify/", {"code": hall.code(0, secret)}, bearer)
    assert confirmed == Told(200, {"mfa_enabled": True})
    assert (await hall.login("Aka", hall.code(0, secret)))["code"] == "code_reused"
    assert (await hall.post("/auth/mfa/setup/", None, bearer)).body["code"] == "mfa_already_enabled"


async def test_a_code_confirms_nothing_where_no_set_up_is_under_way(hall: Hall):
    bearer = await hall.set_password()
    told = await hall.post("/auth/mfa/verify/", {"code": "123456"}, bearer)
    assert (told.status, told.body["code"]) == (409, "mfa_not_set_up")


async def test_nothing_is_done_for_who_is_not_signed_in(hall: Hall):
    await hall.enrol()
    for path in ("/auth/mfa/setup/", "/auth/mfa/verify/"):
        told = await hall.post(path, {"code": hall.code()})
        assert (told.status, told.body["code"]) == (401, "not_signed_in")
        assert (await hall.post(path, {}, "guess")).status == 401


async def test_the_set_up_link_works_once(hall: Hall):
    token = hall.token()
    await hall.set_password()
    again = await hall.post("/auth/password/", {"user": "aka", "token": token, "password": "another password"})
    assert (again.status, again.body["code"]) == (403, "bad_link")
    assert not (hall.home / "keys" / "set-up-links" / "aka").exists()


async def test_disabling_needs_a_valid_code_and_erases_the_secret(hall: Hall):
    bearer = await hall.enrol()
    assert (await hall.post("/auth/mfa/disable/", {}, bearer)).body["code"] == "invalid_code"
    assert (await hall.post("/auth/mfa/disable/", {"code": hall.code()}, bearer)).body == {"mfa_enabled": False}
    assert not (await hall.ask("user.status", name="aka"))["mfa_enabled"]
    assert (await hall.post("/auth/mfa/disable/", {"code": hall.code(1)}, bearer)).body["code"] == "mfa_not_enabled"


async def test_who_is_named_is_meant_also_by_somebody_who_is_signed_in(hall: Hall):
    bearer = await hall.enrol()
    secret, code = hall.secret, hall.code()
    await hall.ask("user.create", name="Bea")
    await hall.enrol("bea")
    for nobody in ("483291", "ghost"):
        assert (await hall.post("/auth/mfa/disable/", {"user": nobody, "code": "1"})).body["code"] == "invalid_code"
    told = await hall.post("/auth/mfa/disable/", {"user": "bea", "code": hall.code(secret=secret)}, bearer)
    assert (told.status, told.body["code"]) == (403, "invalid_code")
    assert [(await hall.ask("user.status", name=name))["mfa_enabled"] for name in ("aka", "bea")] == [True, True]
    assert (await hall.post("/auth/mfa/disable/", {"user": "Aka", "code": code}, bearer)).body["code"] == "invalid_code"
    fresh = hall.code(secret=secret)
    assert (await hall.post("/auth/mfa/disable/", {"user": "Aka", "code": fresh}, bearer)).status == 200


async def test_reset_needs_the_password_and_this_host(hall: Hall):
    await hall.enrol()
    assert (await hall.post("/auth/mfa/reset/", {})).status == 403
    assert (await hall.post("/auth/mfa/reset/", {"password": "wrong password"})).body["code"] == "wrong_password"
    for headers in ({"X_Forwarded_For": "127.0.0.1"}, {"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        told = await hall.post("/auth/mfa/reset/", {"password": PASSWORD}, **headers)
        assert (told.status, told.body["code"]) == (403, "not_local")
    assert (await hall.ask("user.status", name="aka"))["mfa_enabled"]
    assert (await hall.post("/auth/mfa/reset/", {"password": PASSWORD})).status == 200
    assert not (await hall.ask("user.status", name="aka"))["mfa_enabled"]


async def test_a_lock_ends_early_by_password_and_only_so(hall: Hall):
    await hall.enrol()
    for _ in range(2):
        for _ in range(5):
            await hall.login("Aka", hall.wrong())
        hall.later(60)
    assert (await hall.login("Aka", hall.code()))["code"] == "locked"
    assert (await hall.ask("user.status", name="aka"))["locked"]
    assert (await hall.post("/auth/mfa/unlock/", {})).status == 403
    assert (await hall.login("Aka", hall.code()))["code"] == "locked"
    assert (await hall.post("/auth/mfa/unlock/", {"password": PASSWORD})).body == {"locked": False}
    assert (await hall.login("Aka", hall.code()))["state"] == "confirmed"


async def test_agents_may_not_reset_unlock_or_disable(hall: Hall):
    await hall.enrol()
    await hall.ask("agent.create", name="planner-1")
    for path in ("reset", "unlock", "disable"):
        told = await hall.post(f"/auth/mfa/{path}/", {"user": "planner-1", "password": PASSWORD, "code": "123456"})
        assert (told.status, told.body["code"]) == (403, "not_for_agents")


async def test_guessing_passwords_is_limited_and_leaves_codes_alone(hall: Hall):
    await hall.enrol()
    told = [await hall.post("/auth/session/", {"user": "aka", "password": f"guess number {n}"}) for n in range(6)]
    assert [one.body["code"] for one in told] == ["wrong_password"] * 5 + ["rate_limited"]
    assert told[-1].status == 429
    assert (await hall.login("Aka", hall.code()))["state"] == "confirmed"


async def test_a_wrong_body_is_refused_and_not_repeated(hall: Hall):
    told = await hall.post("/auth/mfa/reset/", {"pasword": "my secret"})
    assert (told.status, told.body["code"]) == (400, "bad_request")
    assert "my secret" not in str(told.body)
    assert (await hall.post("/auth/mfa/reset/", {"password": "x" * 20_000})).status == 413


async def test_it_listens_on_loopback_only(hall: Hall):
    port = int(hall.url.rpartition(":")[2])
    other = socket.gethostbyname(socket.gethostname())
    with socket.socket() as probe:
        probe.settimeout(1)
        # 127.0.0.2 is loopback too, but it is not what is listened on.
        for address in {"127.0.0.2", *([other] if not other.startswith("127.") else [])}:
            assert probe.connect_ex((address, port)) != 0


async def test_connections_that_say_nothing_keep_nobody_out_and_end(hall: Hall):
    """A hundred of them, and one that never ends its request, of some other user of this host."""
    host, _, port = hall.url.removeprefix("http://").partition(":")
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(100)]
        opened[-1].sendall(b"POST /auth/session/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\n{")
        assert (await hall.post("/auth/mfa/setup/", {})).body["code"] == "not_signed_in"
        for one in opened:
            one.settimeout(20)
            assert await asyncio.to_thread(ended, one)
        assert (await hall.post("/auth/mfa/setup/", {})).body["code"] == "not_signed_in"
    log = hall.processes[0].log_path.read_text()
    assert "no whole request within 3 s" in log
    assert "Traceback" not in log


def ended(one: socket.socket) -> bool:
    """Whether the other side closes the connection in time."""
    try:
        return one.recv(1) == b""
    except ConnectionResetError:
        return True


async def test_a_lost_key_file_is_not_replaced(hall: Hall):
    await hall.enrol()
    hall.processes[0].kill()
    (hall.home / "keys" / "identity").unlink()
    process = hall.processes[0]
    process.start()
    assert await process.ended() == 78
    assert "is lost" in process.tail()


async def test_the_key_file_of_another_home_is_refused(hall: Hall, tmp_path: Path):
    """Well formed, private, and useless: the wrong copy was put back."""
    await hall.enrol()
    hall.processes[0].kill()
    other = KeyFile(tmp_path / "other")
    other.create()
    write_private(hall.home / "keys" / "identity", other.path.read_text())
    process = hall.processes[0]
    process.start()
    await eventually(lambda: process.dead, timeout_s=30)
    assert process.exit_code == 78, process.tail()
    assert "not the one that its accounts are sealed with" in process.tail()


async def test_a_soft_stop_ends_well_and_takes_the_address_away(hall: Hall):
    await hall.enrol()
    assert hall.processes[0].terminate() == 0
    assert list(hall.home.glob("run/*")) == []


async def test_a_set_up_link_runs_out_and_says_when(hall: Hall):
    link = (hall.home / "keys" / "set-up-links" / "aka").read_text()
    assert "&until=2026-09-28T14:13:20" in link, link
    token = hall.token()
    hall.later(7 * 86_400)
    told = await hall.post("/auth/password/", {"user": "aka", "token": token, "password": PASSWORD})
    assert (told.status, told.body["code"]) == (403, "bad_link")
    assert "htdag users setup" in told.body["hint"]
    hall.processes[0].kill()
    await hall.start()
    assert hall.token() != token, "the file holds a good one again"
    await hall.set_password()


async def test_who_loses_the_page_between_password_and_code_goes_on_with_the_same_secret(hall: Hall):
    first = (await hall.post("/auth/mfa/setup/", None, await hall.set_password())).body["secret"]
    again = await hall.post("/auth/session/", {"user": "aka", "password": PASSWORD})
    made = await hall.post("/auth/mfa/setup/", None, again.body["session"])
    assert made.body["secret"] == first
    told = await hall.post("/auth/mfa/verify/", {"code": hall.code(secret=first)}, again.body["session"])
    assert told == Told(200, {"mfa_enabled": True})


async def test_a_name_that_nobody_has_is_limited_like_any_other(hall: Hall):
    await hall.enrol()
    for name in ("aka", "nobody-here"):
        told = [await hall.post("/auth/mfa/reset/", {"user": name, "password": f"guess no {n}"}) for n in range(6)]
        assert [(one.status, one.body["code"]) for one in told] == [(403, "wrong_password")] * 5 + [
            (429, "rate_limited")
        ]
        assert told[-1].body["retry_after"] > 0


async def test_a_stranger_who_guesses_does_not_keep_the_owner_out(hall: Hall):
    await hall.enrol()
    for _ in range(2):
        for number in range(5):
            await hall.post("/auth/mfa/unlock/", {"user": "aka", "password": f"guess number {number}"})
        hall.later(60)
    barred = await hall.post("/auth/mfa/reset/", {"user": "aka", "password": PASSWORD})
    assert barred.body["code"] == "locked"
    assert (await hall.post("/auth/mfa/reset/", {"user": "aka", "password": PASSWORD, "presence": "x"})).status == 403
    [place] = hall.home.glob("run/*.local")
    assert place.stat().st_mode & 0o777 == 0o600
    presence = json.loads(place.read_text())["presence"]
    told = [
        await hall.post("/auth/mfa/reset/", {"user": "aka", "password": "guess", "presence": presence})
        for _ in range(4)
    ]
    assert {one.body["code"] for one in told} == {"wrong_password"}
    assert (
        await hall.post("/auth/mfa/reset/", {"user": "aka", "password": PASSWORD, "presence": presence})
    ).status == 200
    limited = await hall.post("/auth/mfa/reset/", {"user": "aka", "password": PASSWORD, "presence": presence})
    assert limited.status == 429, "five a minute, there too"


async def test_a_password_is_changed_with_the_old_one_and_a_code(hall: Hall):
    bearer = await hall.enrol()
    new = "another horse, another battery"
    path, body = "/auth/password/change/", {"user": "aka", "password": PASSWORD, "new_password": new}
    assert (await hall.post(path, {**body, "password": "wrong password"})).body["code"] == "wrong_password"
    assert (await hall.post(path, {**body, "code": hall.wrong()})).body["code"] == "invalid_code"
    assert (await hall.post(path, {**body, "new_password": "short"})).body["code"] == "weak_password"
    assert (await hall.post(path, {**body, "code": hall.code()})) == Told(200, {"password_changed": True})
    assert (await hall.post("/auth/mfa/setup/", None, bearer)).status == 401, "whoever was signed in is so no more"
    hall.later(61)
    assert (await hall.post("/auth/session/", {"user": "aka", "password": PASSWORD})).body["code"] == "wrong_password"
    assert (await hall.post("/auth/session/", {"user": "aka", "password": new})).status == 200
    assert (await hall.login("Aka", hall.code()))["state"] == "confirmed"
