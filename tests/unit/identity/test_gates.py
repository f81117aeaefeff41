"""Approval gates on a real broker: requested by the durable mailbox, released by a fresh code, answered once."""

from hashlib import sha256
from typing import Any

import msgspec
import pytest

from contracts.approval import APPROVAL_TIMEOUT_MAX_MS, RequestApproval, action_digest
from contracts.streams import COMMANDS, CONVERSATIONS, DEAD_LETTERS
from contracts.subjects import command, dead_letter
from contracts.taint import READ_FROM_LISTED_MAX, READ_FROM_MAX, WHAT_CHARS_MAX, Reading
from services.runtime.signatures import signature_ok
from tests.support.eventually import eventually
from tests.unit.identity.desk import ACTION, Hall


async def answered(hall: Hall, count: int = 1) -> list[dict]:
    async def enough() -> list[dict]:
        found = await hall.answers()
        return found if len(found) >= count else []

    found: list[dict] = await eventually(enough)
    assert len(found) == count
    return found


async def test_a_human_releases_a_gate_and_the_run_is_told(hall: Hall):
    await hall.enrol()
    digest = await hall.request("apr-7", title="read the docs")
    (listed,) = await hall.ask("approval.list")
    assert (listed["approval_id"], listed["action"], listed["digest"]) == ("apr-7", ACTION, digest)
    said = await hall.converse("approval.converse", "aka", hall.code(), approval_id="apr-7", digest=digest)
    assert (said["state"], said["say"]) == ("confirmed", "confirmed, this is Aka. deploy released")
    (answer,) = await answered(hall)
    assert (answer["outcome"], answer["user"], answer["kind"], answer["digest"]) == ("granted", "aka", "human", digest)
    shown = await hall.ask("approval.show", approval_id="apr-7")
    assert (shown["status"], shown["step"], shown["signature_ok"]) == ("granted", int(hall.now_s) // 30, True)
    assert not signature_ok(answer["key"], answer["signature"], b"something else")
    assert await hall.ask("approval.list") == []


async def test_who_is_asked_is_told_what_was_read_before(hall: Hall):
    read = [Reading("fs", f"/code/{number}", "read") for number in range(READ_FROM_LISTED_MAX + 1)]
    await hall.request("apr-7", read_from=read, read_more=2)
    shown = await hall.ask("approval.show", approval_id="apr-7")
    assert (shown["read_from"], shown["read_more"]) == (msgspec.to_builtins(read), 2)
    said = await hall.ask("approval.converse", session="s", approval_id="apr-7")
    [gate] = said["gates"]
    assert (gate["read_from"], gate["read_more"]) == (msgspec.to_builtins(read[:READ_FROM_LISTED_MAX]), 3)


async def test_an_agent_is_refused_before_its_code_is_looked_at(hall: Hall):
    await hall.enrol()
    agent = await hall.ask("agent.create", name="planner-1")
    await hall.request("apr-7")
    code = (await hall.ask("agent.code", credential=agent["credential"]))["code"]
    for verb in ("approval.converse", "approval.deny"):
        for _ in range(7):
            said = await hall.converse(verb, "planner-1", code, approval_id="apr-7")
            assert (said["state"], said["code"]) == ("refused", "agent_cannot_approve")
    assert await hall.status("apr-7") == "open"
    for name in ("aka", "planner-1"):
        assert (await hall.ask("user.status", name=name))["failures"] == 0
    two = await hall.ask("agent.create", name="worker-2")
    presented = {"agent": "planner-1", "code": code, "credential": two["credential"]}
    assert (await hall.ask("agent.challenge", **presented))["verified"], "its code was not used up"


async def test_wrong_and_used_codes_leave_the_gate_open(hall: Hall):
    await hall.enrol()
    await hall.request("apr-7")
    await hall.login("Aka", hall.code())
    for code, verdict in ((hall.code(), "code_reused"), (hall.wrong(), "invalid_code")):
        assert (await hall.converse("approval.converse", "Aka", code, approval_id="apr-7"))["code"] == verdict
    assert await hall.status("apr-7") == "open"


async def test_one_code_releases_the_gates_that_were_shown_and_no_other(hall: Hall):
    await hall.enrol()
    for name in ("apr-1", "apr-2", "apr-3"):
        await hall.request(name)
    gates = [{"approval_id": "apr-1"}, {"approval_id": "apr-2"}]
    code = hall.code()
    said = await hall.converse("approval.converse", "Aka", code, gates=gates)
    assert [gate["status"] for gate in said["gates"]] == ["granted", "granted"]
    refused = await hall.converse("approval.converse", "Aka", code, approval_id="apr-3")
    assert refused["code"] == "code_reused"
    assert [await hall.status(name) for name in ("apr-1", "apr-2", "apr-3")] == ["granted", "granted", "open"]
    assert {answer["step"] for answer in await answered(hall, 2)} == {int(hall.now_s) // 30}


async def test_stale_expired_and_denied_have_their_codes_and_use_no_code_up(hall: Hall):
    await hall.enrol()
    await hall.request("changed")
    await hall.request("changed", {"tool": "shell", "cmd": ["rm"]})
    await hall.request("late", timeout_ms=1_000)
    await hall.request("refused")
    await eventually(lambda: _is(hall, "changed", "stale"))
    hall.later(1)
    await eventually(lambda: _is(hall, "late", "expired"))
    said = await hall.converse("approval.deny", "Aka", hall.code(), approval_id="refused", reason="no")
    assert said["say"] == "confirmed, this is Aka. deploy denied"
    hall.later(30)
    for name, code in (("changed", "stale"), ("late", "expired"), ("refused", "denied")):
        told = await hall.converse("approval.converse", "Aka", hall.code(), approval_id=name)
        assert (told["state"], told["code"]) == ("refused", f"approval_{code}")
    assert (await hall.login("Aka", hall.code()))["state"] == "confirmed"
    outcomes = {answer["approval_id"]: answer["outcome"] for answer in await answered(hall, 3)}
    assert outcomes == {"changed": "stale", "late": "expired", "refused": "denied"}


async def test_another_digest_than_the_gates_is_stale(hall: Hall):
    await hall.enrol()
    await hall.request("apr-7")
    said = await hall.converse("approval.converse", "Aka", hall.code(), approval_id="apr-7", digest="beef")
    assert said["code"] == "approval_stale"
    assert await hall.status("apr-7") == "open"


async def test_what_can_be_no_digest_is_refused_and_kept_nowhere(hall: Hall):
    await hall.request("apr-7")
    for verb, gates in (
        ("approval.converse", {"approval_id": "apr-7", "digest": "x" * 65}),
        ("approval.converse", {"gates": [{"approval_id": "apr-7", "digest": "x" * 100_000}]}),
        ("approval.deny", {"gates": [{"approval_id": "apr-7", "digest": "x" * 100_000}]}),
    ):
        refused = await hall.refused(verb, session="s", text="Aka", **gates)
        assert (refused["code"], refused["field"], refused["max"]) == ("too_large", "digest", 64)
    kept = [record.data async for record in hall.bus.history(CONVERSATIONS, ">")]
    assert max(map(len, kept), default=0) < 1_000


@pytest.mark.parametrize("verb", ["approval.converse", "approval.deny"])
async def test_a_code_in_the_place_of_a_gates_id_or_digest_is_kept_nowhere(hall: Hall, verb: str):
    """One field too early. It is still good then, and a digest of it would be one of a million."""
    await hall.enrol()
    digest = await hall.request("apr-7")
    code = hall.code()
    typed: list[dict[str, Any]] = [
        {"approval_id": code},
        {"gates": [{"approval_id": "apr-7"}, {"approval_id": code}]},
        {"gates": [{"approval_id": "apr-7", "digest": code}]},
    ]
    kept: list[bytes] = []
    for session, gates in enumerate(typed):
        for text, state in (("Aka", "await_code"), ("", "refused")):
            said = await hall.ask(verb, session=f"e{session}", text=text, **gates)
            assert said["state"] == state
            kept += [record.data async for record in hall.bus.history(CONVERSATIONS, ">")]
    hidden = [code, *(sha256(text.encode()).hexdigest() for text in (code, f"{code}\napr-7", f"apr-7\n{code}"))]
    assert not [data for data in kept if any(text.encode() in data for text in hidden)]
    assert any(digest.encode() in data for data in kept), "what was found is kept as it was found"
    assert (await hall.converse(verb, "Aka", code, approval_id="apr-7"))["state"] == "confirmed"


async def test_a_gate_that_nobody_knows_is_said_with_the_code_and_no_code_is_looked_at(hall: Hall):
    await hall.enrol()
    await hall.request("apr-7")
    for gates in ([{"approval_id": "apr-8"}], [{"approval_id": "apr-7"}, {"approval_id": "apr-8"}]):
        said = await hall.converse("approval.converse", "Aka", hall.code(), gates=gates)
        assert (said["state"], said["code"]) == ("refused", "approval_not_found")
    assert (await hall.login("Aka", hall.code()))["state"] == "confirmed"


async def test_only_those_who_are_named_may_answer(hall: Hall):
    await hall.enrol()
    await hall.request("apr-7", approvers=["Bo"])
    for name in ("Aka", "ghost"):
        said = await hall.converse("approval.converse", name, hall.code(), approval_id="apr-7")
        assert said["code"] == "not_an_approver"
    assert (await hall.ask("user.status", name="aka"))["failures"] == 0


async def test_an_acceptance_that_was_not_carried_out_is_carried_out_at_the_next_start(hall: Hall):
    await hall.enrol()
    digest = await hall.request("apr-7")
    hall.processes[0].kill()
    process = await hall.start(fault="actor.after_commit:1")
    await hall.ask("approval.converse", session="s", text="Aka", approval_id="apr-7")
    body = msgspec.json.encode({"session": "s", "text": hall.code(), "approval_id": "apr-7"})
    hall.bus.publish("htdag.v1.identity.approval.converse", body)
    await process.ended()
    hall.later(3600)  # it was proved in time, however long we were away
    await hall.start()
    await eventually(lambda: _is(hall, "apr-7", "granted"))
    (answer,) = await answered(hall)
    assert (answer["outcome"], answer["digest"]) == ("granted", digest)


async def test_an_answer_that_was_not_stored_is_stored_at_the_next_start(hall: Hall):
    await hall.enrol()
    await hall.request("apr-7", timeout_ms=1_000)
    hall.processes[0].kill()
    hall.later(2)
    process = hall.processes[0]
    process.start(fault="actor.after_commit:1")
    await process.ended()
    assert await hall.answers() == []
    await hall.start()
    assert [answer["outcome"] for answer in await answered(hall)] == ["expired"]


async def test_gates_wait_through_restarts_and_the_same_request_opens_no_second_one(hall: Hall):
    await hall.enrol()
    await hall.request("apr-7")
    hall.processes[0].kill()
    await hall.start()
    await hall.request("apr-7")
    assert [gate["approval_id"] for gate in await hall.ask("approval.list")] == ["apr-7"]


async def test_a_request_whose_digest_is_not_that_of_its_action_is_put_aside(hall: Hall):
    lie = RequestApproval(run_id="r1", task_id="t", digest="beef", action=ACTION)
    subject = command("identity", "approval", "apr-7", "request")
    await hall.bus.store(subject, msgspec.json.encode(lie), stream=COMMANDS, msg_id="lie")

    async def aside() -> bool:
        return await hall.bus.last(DEAD_LETTERS, dead_letter(COMMANDS)) is not None

    await eventually(aside)
    assert await hall.status("apr-7") == ""


@pytest.mark.parametrize(
    "read", [[Reading("fs")] * (READ_FROM_MAX + 1), [Reading("fs", "x" * (WHAT_CHARS_MAX + 1))], [Reading("x" * 999)]]
)
async def test_a_request_that_tells_too_much_of_what_was_read_is_put_aside(hall: Hall, read: list[Reading]):
    digest = action_digest(ACTION)
    long = RequestApproval(run_id="r1", task_id="t", digest=digest, action=ACTION, read_from=read)
    subject = command("identity", "approval", "apr-7", "request")
    await hall.bus.store(subject, msgspec.json.encode(long), stream=COMMANDS, msg_id="long")

    async def aside() -> bool:
        return await hall.bus.last(DEAD_LETTERS, dead_letter(COMMANDS)) is not None

    await eventually(aside)
    assert await hall.status("apr-7") == ""


@pytest.mark.parametrize("beyond_ms", [1, 10**18, 10**40, -(10**13), -(10**18)])
async def test_a_request_with_an_end_out_of_bounds_is_put_aside_and_hides_no_gate(hall: Hall, beyond_ms: int):
    await hall.request("apr-7")
    end_ms = int(hall.now_s * 1000) + APPROVAL_TIMEOUT_MAX_MS + beyond_ms
    lie = RequestApproval(run_id="r1", task_id="t", digest=action_digest(ACTION), action=ACTION, expires_at_ms=end_ms)
    subject = command("identity", "approval", "apr-8", "request")
    await hall.bus.store(subject, msgspec.json.encode(lie), stream=COMMANDS, msg_id="lie")

    async def aside() -> bool:
        return await hall.bus.last(DEAD_LETTERS, dead_letter(COMMANDS)) is not None

    await eventually(aside)
    assert [gate["approval_id"] for gate in await hall.ask("approval.list")] == ["apr-7"]


async def _is(hall: Hall, approval_id: str, status: str) -> bool:
    return await hall.status(approval_id) == status
