"""Sessions have names that others may know: whatever they do with one, a code goes to no gate but the one shown."""

from collections.abc import AsyncIterator, Awaitable, Callable
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from nats.aio.msg import Msg

from contracts.reply import RemoteRejected
from contracts.streams import CONVERSATIONS
from contracts.subjects import conversation, rpc
from services.identity.conversations import MESSAGES_MAX
from services.runtime import nats_client
from services.runtime.bus import Bus
from services.runtime.genuine import HEADER_STREAM
from tests.support.eventually import eventually
from tests.support.listening import listen
from tests.unit.identity.desk import Hall


@pytest.fixture
async def mallory(hall: Hall) -> AsyncIterator[Bus]:
    """Somebody else at the broker, who knows how others name their sessions."""
    bus = Bus(await nats_client.connect(hall.server.url, name="mallory"))
    await bus.start()
    yield bus
    await bus.close()


VERBS = pytest.mark.parametrize("verb", ["approval.converse", "approval.deny"])


def saying(bus: Bus, verb: str) -> Callable[..., Awaitable[Any]]:
    async def say(text: str, gate: str = "", session: str = "vic") -> Any:
        body = {"session": session, "text": text, **({"approval_id": gate} if gate else {})}
        return await bus.call(rpc("identity", *verb.split(".")), body, timeout_s=15)

    return say


def state_said(message: Msg) -> Any:
    return msgspec.json.decode(message.data)["value"]["state"]


@VERBS
async def test_who_knows_a_sessions_name_gives_no_code_another_gate(hall: Hall, mallory: Bus, verb: str):
    """The victim names the gate in the first turn only; somebody else spoils the conversation and begins another."""
    await hall.enrol()
    for gate in ("apr-good", "apr-evil"):
        await hall.request(gate, task_id=gate)
    victim, other = saying(hall.bus, verb), saying(mallory, verb)
    assert (await victim("aka", "apr-good"))["state"] == "await_code"
    assert (await other("", "apr-evil"))["code"] == "approval_stale"
    assert (await other("aka", "apr-evil"))["state"] == "await_code"
    said = await victim(hall.code())
    assert (said["state"], said["code"]) == ("refused", "approval_stale")
    assert "say them with the code" in said["say"]
    assert [await hall.status(gate) for gate in ("apr-good", "apr-evil")] == ["open", "open"]
    # No code was looked at: whoever says which gate it is for goes on with the same one, over any connection.
    await victim("aka", "apr-good")
    assert (await other(hall.code(), "apr-good"))["state"] == "confirmed"
    assert await hall.status("apr-evil") == "open"


@VERBS
async def test_no_conversation_of_others_that_ended_well_makes_a_session_theirs(hall: Hall, mallory: Bus, verb: str):
    await hall.enrol()
    for gate in ("apr-good", "apr-own", "apr-evil"):
        await hall.request(gate, task_id=gate)
    victim, other = saying(hall.bus, verb), saying(mallory, verb)
    await victim("aka", "apr-good")
    await other("", "apr-own")
    await other("aka", "apr-own")
    assert (await other(hall.code(-1), "apr-own"))["state"] == "confirmed"
    assert (await other("aka", "apr-evil"))["state"] == "await_code"
    assert (await victim(hall.code()))["code"] == "approval_stale"
    assert [await hall.status(gate) for gate in ("apr-good", "apr-evil")] == ["open", "open"]


@VERBS
async def test_a_session_that_spoke_of_a_gate_that_nobody_knew_gives_a_bare_code_no_other(
    hall: Hall, mallory: Bus, verb: str
):
    """Its name was said before the gate was there: somebody else may have begun another conversation since."""
    await hall.enrol()
    await hall.request("apr-evil")
    victim = saying(hall.bus, verb)
    assert (await victim("aka", "apr-good"))["state"] == "await_code"
    await hall.request("apr-good")
    assert (await saying(mallory, verb)("", "apr-evil"))["state"] == "refused"
    assert (await victim("aka", "apr-evil"))["state"] == "await_code"
    said = await victim(hall.code())
    assert (said["state"], said["code"]) == ("refused", "approval_stale")
    assert [await hall.status(gate) for gate in ("apr-good", "apr-evil")] == ["open", "open"]


async def test_a_code_is_for_all_of_the_gates_that_are_said_with_it_and_no_more(hall: Hall):
    await hall.enrol()
    for gate in ("apr-good", "apr-evil"):
        await hall.request(gate, task_id=gate)
    both = [{"approval_id": "apr-good"}, {"approval_id": "apr-evil"}]
    await hall.ask("approval.converse", session="vic", text="aka", gates=both)
    said = await hall.ask("approval.converse", session="vic", text=hall.code(), approval_id="apr-good")
    assert (said["state"], said["code"]) == ("refused", "approval_stale")
    assert [await hall.status(gate) for gate in ("apr-good", "apr-evil")] == ["open", "open"]


async def test_a_session_may_speak_of_one_gate_after_another(hall: Hall):
    """The name of a chat is its session's: a wrong code is said again, and a second gate is said with its code."""
    await hall.enrol()
    for gate in ("apr-1", "apr-2"):
        await hall.request(gate, task_id=gate)
    for code, gate, state in (
        (hall.wrong(), "apr-1", "refused"),
        (hall.code(-1), "apr-1", "confirmed"),
        (hall.code(), "apr-2", "refused"),
    ):
        await hall.ask("approval.converse", session="chat-7", text="aka", approval_id=gate)
        said = await hall.ask("approval.converse", session="chat-7", text=code)
        assert said["state"] == state
    assert (said["code"], "say them with the code" in said["say"]) == ("approval_stale", True)
    await hall.ask("approval.converse", session="chat-7", text="aka", approval_id="apr-2")
    said = await hall.ask("approval.converse", session="chat-7", text=hall.code(), approval_id="apr-2")
    assert said["state"] == "confirmed"


@VERBS
@pytest.mark.parametrize("spoilt_by", ["apr-evil", "apr-good"])
async def test_who_has_the_answers_sent_to_the_victims_inbox_gives_its_code_no_other_gate(
    hall: Hall, mallory: Bus, verb: str, spoilt_by: str
):
    """A reply subject is what the sender says it is: nobody's word for a connection."""
    await hall.enrol()
    for gate in ("apr-good", "apr-evil"):
        await hall.request(gate, task_id=gate)
    inboxes: list[str] = []
    await listen(mallory.client, rpc("identity", *verb.split(".")), lambda message: inboxes.append(message.reply))
    victim = saying(hall.bus, verb)
    assert (await victim("aka", "apr-good"))["state"] == "await_code"
    await eventually(lambda: bool(inboxes))
    there = inboxes[0].rpartition(".")[0] + ".m"
    heard: list[Any] = []
    await listen(mallory.client, there, lambda message: heard.append(state_said(message)))
    for text, gate, states in (("", spoilt_by, ["refused"]), ("aka", "apr-evil", ["refused", "await_code"])):
        body = msgspec.json.encode({"session": "vic", "text": text, "approval_id": gate})
        mallory.publish(rpc("identity", *verb.split(".")), body, reply=there)
        await eventually(lambda states=states: heard == states)
    said = await victim(hall.code())
    assert (said["state"], said["code"]) == ("refused", "approval_stale")
    assert [await hall.status(gate) for gate in ("apr-good", "apr-evil")] == ["open", "open"]


class Impostor:
    """Somebody who has their own requests answered in the victim's inbox, as any name of a connection can be given."""

    def __init__(self, hall: Hall, mallory: Bus, verb: str) -> None:
        self._hall, self._mallory, self._subject = hall, mallory, rpc("identity", *verb.split("."))
        self._purpose = "deny" if verb.endswith("deny") else "approval"
        self._inboxes: list[str] = []

    async def listen(self) -> None:
        await listen(self._mallory.client, self._subject, lambda message: self._inboxes.append(message.reply))

    async def begin(self, gate: str, session: str = "vic") -> None:
        """Say a name and a gate in somebody's session, in the name of their connection."""
        await eventually(lambda: bool(self._inboxes))
        there = self._inboxes[0].rpartition(".")[0] + ".m"
        heard: list[Any] = []
        subscription = await listen(self._mallory.client, there, lambda message: heard.append(state_said(message)))
        body = msgspec.json.encode({"session": session, "text": "aka", "approval_id": gate})
        self._mallory.publish(self._subject, body, reply=there)
        await eventually(lambda: heard == ["await_code"])
        await subscription.unsubscribe()

    def memory(self, session: str = "vic") -> str:
        """Where identity remembers a session."""
        return conversation(sha256(f"{self._purpose}\n{session}".encode()).hexdigest())

    async def kept(self, session: str = "vic") -> Any:
        return await self._hall.bus.last_stored(CONVERSATIONS, self.memory(session))


@VERBS
async def test_an_answer_of_the_broker_in_the_place_of_a_sessions_memory_gives_a_code_no_other_gate(
    hall: Hall, mallory: Bus, verb: str
) -> None:
    """What was remembered is gone then: of which gates the session spoke nobody knows any more."""
    await hall.enrol()
    for gate in ("apr-good", "apr-evil"):
        await hall.request(gate, task_id=gate)
    impostor, victim = Impostor(hall, mallory, verb), saying(hall.bus, verb)
    await impostor.listen()
    assert (await victim("aka", "apr-good"))["state"] == "await_code"
    before = (await impostor.kept()).seq
    mallory.publish("$JS.API.INFO", b"", reply=impostor.memory())

    async def replaced() -> bool:
        return bool((await impostor.kept()).seq > before)

    await eventually(replaced)
    await impostor.begin("apr-evil")
    said = await victim(hall.code())
    assert (said["state"], said["code"]) == ("refused", "approval_stale")
    assert [await hall.status(gate) for gate in ("apr-good", "apr-evil")] == ["open", "open"]


@VERBS
async def test_a_copy_of_another_sessions_memory_is_no_conversation(hall: Hall, mallory: Bus, verb: str) -> None:
    await hall.enrol()
    config = (await hall.bus.api(f"STREAM.INFO.{CONVERSATIONS}"))["config"]
    await hall.bus.api(f"STREAM.UPDATE.{CONVERSATIONS}", {**config, "duplicate_window": 100_000_000})
    for gate in ("apr-good", "apr-evil"):
        await hall.request(gate, task_id=gate)
    impostor, victim = Impostor(hall, mallory, verb), saying(hall.bus, verb)
    await impostor.listen()
    await victim("", "apr-good", "elsewhere")
    await impostor.begin("apr-evil", session="own")
    asked = msgspec.json.encode({"last_by_subj": impostor.memory("own")})

    async def copied() -> bool:
        mallory.publish(f"$JS.API.DIRECT.GET.{CONVERSATIONS}", asked, reply=impostor.memory())
        await mallory.flush()
        return await impostor.kept() is not None

    await eventually(copied)
    assert (await victim("aka", "apr-good"))["state"] == "await_code", "nobody's name was said here before"
    said = await victim(hall.code())
    assert (said["state"], said["code"]) == ("refused", "approval_stale")
    assert [await hall.status(gate) for gate in ("apr-good", "apr-evil")] == ["open", "open"]


async def test_a_record_of_another_session_is_believed_by_none(hall: Hall, mallory: Bus) -> None:
    """Whoever may write to this stream at all may write each session's own memory only."""
    await hall.enrol()
    await hall.request("apr-evil")
    impostor, victim = Impostor(hall, mallory, "approval.converse"), saying(hall.bus, "approval.converse")
    await impostor.listen()
    await victim("aka", "apr-evil", "own")
    copied = (await impostor.kept("own")).data
    await hall.bus.client.request(impostor.memory(), copied, headers={HEADER_STREAM: CONVERSATIONS})
    with pytest.raises(RemoteRejected, match="name a gate"):
        await victim(hall.code())
    assert await hall.status("apr-evil") == "open"


async def test_a_bare_code_counts_only_while_every_session_is_remembered(hall: Hall, mallory: Bus) -> None:
    """Of a session that was forgotten nobody can say which gates were spoken of in it."""
    await hall.enrol()
    for gate in ("apr-good", "apr-evil"):
        await hall.request(gate, task_id=gate)
    impostor, victim = Impostor(hall, mallory, "approval.converse"), saying(hall.bus, "approval.converse")
    await impostor.listen()
    assert (await victim("aka", "apr-good"))["state"] == "await_code"
    for number in range(MESSAGES_MAX):
        mallory.publish(conversation(f"{number:064x}"), b"x")
        if number % 1_000 == 0:
            await mallory.flush()

    async def forgotten() -> bool:
        return await impostor.kept() is None

    assert await eventually(forgotten, timeout_s=60)
    await impostor.begin("apr-evil")
    said = await victim(hall.code())
    assert (said["state"], said["code"]) == ("refused", "approval_stale")
    await victim("aka", "apr-good")
    said = await victim(hall.code(), "apr-good")
    assert said["state"] == "confirmed", "whoever says the gate with the code goes on"
    assert await hall.status("apr-evil") == "open"


async def test_a_code_in_the_place_of_a_gate_is_asked_of_nobody(hall: Hall):
    """What the broker is asked for, the operator may hear."""
    await hall.enrol()
    code, heard = hall.code(), []
    await hall.bus.subscribe("$JS.API.>", lambda message: heard.append(message.subject + message.data.decode()))
    await hall.bus.flush()
    for gates in ({"approval_id": code}, {"gates": [{"approval_id": code}]}):
        said = await hall.converse("approval.converse", "aka", hall.wrong(), **gates)
        assert said["code"] == "approval_not_found"
    assert (await hall.refused("approval.show", approval_id=code))["code"] == "approval_not_found"
    await hall.bus.flush()
    assert heard
    assert not any(code in one for one in heard)
