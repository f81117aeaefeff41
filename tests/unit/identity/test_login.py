"""The conversation over NATS, on a real broker, with a clock that the test moves."""

import asyncio
from hashlib import sha256

import pytest

from contracts.identity import REFUSAL
from contracts.streams import CONVERSATIONS, SNAPSHOTS
from contracts.subjects import conversation, snapshot
from contracts.verbs import verbs_of
from tests.unit.identity.desk import Hall


async def test_the_two_turns_are_said_exactly_so(hall: Hall):
    await hall.enrol()
    first = await hall.ask("login.converse", session="s", text="")
    second = await hall.ask("login.converse", session="s", text=" aKa ")
    third = await hall.ask("login.converse", session="s", text=hall.code())
    assert [(said["state"], said["say"]) for said in (first, second, third)] == [
        ("await_name", "Who are you?"),
        ("await_code", "Enter your code."),
        ("confirmed", "confirmed, this is Aka"),
    ]
    assert (third["user"], third["kind"], third["code"]) == ("Aka", "human", None)


async def test_codes_of_now_and_the_step_before_and_no_other(hall: Hall):
    await hall.enrol()
    assert (await hall.login("Aka", hall.code(1)))["code"] == "invalid_code"
    assert (await hall.login("Aka", hall.code(-2)))["code"] == "invalid_code"
    assert (await hall.login("Aka", hall.code(-1)))["state"] == "confirmed"
    assert (await hall.login("Aka", hall.code(-1)))["code"] == "code_reused"
    assert (await hall.login("Aka", hall.code()))["state"] == "confirmed"


async def test_names_that_nobody_has_and_names_without_proof_behave_like_wrong_codes(hall: Hall):
    await hall.enrol()
    await hall.ask("user.create", name="Bo")
    for name in ("Aka", "Bo", "ghost", "483291", "..", "x" * 500):
        said = [await hall.login(name, hall.wrong()) for _ in range(6)]
        assert [one["code"] for one in said] == ["invalid_code"] * 5 + ["rate_limited"], name
        assert {one["say"] for one in said} == {REFUSAL}
        assert said[-1]["retry_after"] == 60
    hall.later(60)
    for name in ("Aka", "ghost"):
        assert [(await hall.login(name, hall.wrong()))["code"] for _ in range(5)] == ["invalid_code"] * 5
    for name in ("Aka", "ghost"):
        locked = await hall.login(name, hall.code())
        assert (locked["code"], locked["retry_after"], locked["say"]) == ("locked", 900, REFUSAL)
        assert locked["until"] == (await hall.login("ghost", "1"))["until"]


async def test_a_session_is_forgotten_after_its_answer(hall: Hall):
    await hall.enrol()
    await hall.ask("login.converse", session="s", text="Aka")
    assert (await hall.ask("login.converse", session="s", text=hall.wrong()))["state"] == "refused"
    again = await hall.ask("login.converse", session="s", text=hall.code())
    assert again["state"] == "await_code", "the next text is a name"


@pytest.mark.parametrize(
    "kept", [b"", b'{"account":"aka"}', b'{"account":"aka","gates":[{"approval_id":"apr-1"}]}'], ids=len
)
@pytest.mark.parametrize("purpose", ["login", "approval"])
async def test_a_session_that_an_older_identity_kept_begins_with_a_name(hall: Hall, purpose: str, kept: bytes):
    await hall.enrol()
    digest = await hall.request("apr-1")
    subject = conversation(sha256(f"{purpose}\ns".encode()).hexdigest())
    await hall.bus.store(subject, kept, stream=CONVERSATIONS, msg_id="old")
    gate = {} if purpose == "login" else {"approval_id": "apr-1", "digest": digest}
    for text, state in (("Aka", "await_code"), (hall.code(), "confirmed")):
        assert (await hall.ask(f"{purpose}.converse", session="s", text=text, **gate))["state"] == state


async def test_two_replicas_under_two_hundred_attempts_judge_five_and_accept_one(hall: Hall, tmp_path):
    await hall.enrol()
    await hall.start(home=tmp_path / "other")
    good, bad = hall.code(), hall.wrong()
    for number in range(200):
        first = await hall.ask("login.converse", session=f"m{number}", text="Aka")
        assert first["state"] == "await_code"
    said = await asyncio.gather(
        *(hall.ask("login.converse", session=f"m{number}", text=good if number % 2 else bad) for number in range(200))
    )
    verdicts = [one["code"] or one["state"] for one in said]
    assert len([one for one in verdicts if one != "rate_limited"]) == 5
    assert verdicts.count("confirmed") <= 1


async def test_one_code_is_accepted_once_by_two_replicas(hall: Hall, tmp_path):
    await hall.enrol()
    await hall.start(home=tmp_path / "other")
    for number in range(5):
        await hall.ask("login.converse", session=f"m{number}", text="Aka")
    code = hall.code()
    said = await asyncio.gather(*(hall.ask("login.converse", session=f"m{n}", text=code) for n in range(5)))
    assert sorted(one["code"] or one["state"] for one in said) == ["code_reused"] * 4 + ["confirmed"]


async def test_an_account_with_a_long_log_is_read_from_its_snapshot_and_remembers_everything(hall: Hall, tmp_path):
    await hall.enrol()
    other = await hall.start(home=tmp_path / "other")
    for _ in range(9):
        for _ in range(4):
            assert (await hall.login("Aka", hall.wrong()))["code"] == "invalid_code"
        hall.later(60)
        code = hall.code()
        assert (await hall.login("Aka", code))["state"] == "confirmed"
    assert await hall.bus.subjects(SNAPSHOTS, snapshot("identity", "user", "aka")) == {
        snapshot("identity", "user", "aka"): 1
    }
    for process in (hall.processes[0], other):
        process.kill()
    await hall.start()
    assert (await hall.login("Aka", code))["code"] == "code_reused"
    assert (await hall.ask("user.status", name="aka"))["failures"] == 1


async def test_a_failure_and_an_acceptance_survive_a_kill_between_judgement_and_answer(hall: Hall):
    await hall.enrol()
    hall.processes[0].kill()
    process = await hall.start(fault="actor.after_commit:1")
    await hall.ask("login.converse", session="s", text="Aka")
    hall.bus.publish("htdag.v1.identity.login.converse", b'{"session":"s","text":"%s"}' % hall.code().encode())
    await process.ended()
    await hall.start()
    assert (await hall.login("Aka", hall.code()))["code"] == "code_reused"
    status = await hall.ask("user.status", name="aka")
    assert status["failures"] == 1


async def test_agents_read_their_own_code_and_prove_themselves_to_each_other(hall: Hall):
    await hall.enrol()
    one, two = [await hall.ask("agent.create", name=name) for name in ("planner-1", "worker-2")]
    assert (one["kind"], one["mfa_enabled"]) == ("agent", True)
    shown = await hall.ask("agent.code", credential=one["credential"])
    for field in ("user", "username", "name", "agent"):
        refused = await hall.refused("agent.code", credential=one["credential"], **{field: "aka"})
        assert refused["code"] == "own_code_only"
    assert (await hall.refused("agent.code", credential="planner-1.guess"))["code"] == "bad_credential"
    presented = {"agent": "planner-1", "code": shown["code"], "credential": two["credential"]}
    assert await hall.ask("agent.challenge", **presented) == {
        "agent": "planner-1", "kind": "agent", "verified": True, "by": "worker-2",
    }  # fmt: skip
    reused = await hall.refused("agent.challenge", **presented)
    assert (reused["code"], {"retry_after", "until"} & set(reused)) == ("code_reused", set())
    for _ in range(10):  # no agent can use up or lock a human's attempts
        await hall.refused("agent.challenge", **{**presented, "agent": "aka", "code": hall.code()})
    assert (await hall.ask("user.status", name="aka"))["failures"] == 0
    assert (await hall.login("Aka", hall.code()))["state"] == "confirmed"


async def test_no_verb_on_the_bus_sets_up_resets_or_unlocks(hall: Hall):
    verbs = {(one.noun, one.verb) for one in verbs_of("identity")}
    assert not {verb for _, verb in verbs} & {"setup", "verify", "disable", "reset", "unlock", "password"}
