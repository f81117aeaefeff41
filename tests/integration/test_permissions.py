"""The rights of every user at a real broker: exactly what the table says, and enough to do one's work."""

import asyncio
import json
from collections.abc import Callable

import pytest

from contracts.channels import CHANNELS
from contracts.permissions import BY_NAME, USERS
from contracts.rights import NODES, OPERATOR, User, inbox, may_publish, may_subscribe
from contracts.streams import CONSUMERS, CONVERSATIONS, DEAD_LETTERS, FACTS, LLM_TOKENS, STREAMS
from contracts.subjects import ROOT, SERVICES
from contracts.task import ROLES
from contracts.verbs import VERBS
from services.runtime import provision
from services.runtime.nats_client import settle
from tests.support.eventually import eventually
from tests.support.guarded import Guarded

API = "$JS.API"
NAMES = [user.name for user in USERS]


def subjects() -> list[str]:
    """Every subject of the contracts with its parameters filled in, and what an attacker would try."""
    found = [verb.subject for verb in VERBS]
    for channel in CHANNELS:
        for service in ("planner", "executor"):
            address = channel.address.replace("{service}", service)
            found.append(".".join("x" if token.startswith("{") else token for token in address.split(".")))
    found += [f"{ROOT}.evt.{service}.thing.x" for service in SERVICES]
    found += [f"{ROOT}.evt.policy-gateway.audit.x", f"{ROOT}.beat.executor", f"{ROOT}.in.0.executor.run.x.start"]
    found += [f"{ROOT}.tool.{role}.{tool}" for role in ROLES for tool in ("shell", "fs")]
    found += [f"{ROOT}.policy-gateway.policy.{verb}" for verb in ("decide", "roles", "put", "verify")]
    found += [f"{inbox(user.name)}.abc.1" for user in USERS]
    for spec in STREAMS:
        verbs = ("INFO", "CREATE", "UPDATE", "DELETE", "PURGE", "MSG.GET", "MSG.DELETE", "SNAPSHOT", "RESTORE")
        found += [f"{API}.STREAM.{verb}.{spec.name}" for verb in ("PEER.REMOVE", "LEADER.STEPDOWN")]
        found += [f"{API}.STREAM.{verb}.{spec.name}" for verb in verbs]
        found += [f"{API}.DIRECT.GET.{spec.name}", f"{API}.DIRECT.GET.{spec.name}.{ROOT}.x", f"$JS.FC.{spec.name}.c.1"]
        found += [f"{API}.CONSUMER.{verb}.{spec.name}" for verb in ("CREATE", "LIST", "NAMES")]
        found += [f"{API}.CONSUMER.CREATE.{spec.name}.mine", f"{API}.CONSUMER.DURABLE.CREATE.{spec.name}.mine"]
    for consumer in CONSUMERS:
        place = f"{consumer.stream}.{consumer.name}"
        asked = ("INFO", "MSG.NEXT", "DELETE", "PAUSE")
        found += [*(f"{API}.CONSUMER.{verb}.{place}" for verb in asked), f"$JS.ACK.{place}.1.1.1.1.1"]
    found += [f"{API}.INFO", f"{API}.STREAM.NAMES", f"{API}.STREAM.LIST", f"{API}.STREAM.CREATE.MINE"]
    found += ["$SYS.REQ.SERVER.PING", "$SYS.ACCOUNT.x.CONNECT", "$SRV.PING", "$SRV.INFO.planner", "bench.body", "x"]
    return list(dict.fromkeys(found))


WILD = [
    ">",
    "*",
    "*.>",
    "htdag.>",
    f"{ROOT}.>",
    f"{ROOT}.*.*.*",
    f"{ROOT}.evt.>",
    f"{ROOT}.tool.>",
    f"{ROOT}.tool.*.*",
    f"{ROOT}.tool.coder.*",
    "$JS.>",
    "$JS.API.>",
    "$JS.ACK.>",
    "$SYS.>",
    "$SRV.>",
    "llm.>",
    "llm.resp.*.*",
    *(f"{inbox(user.name)}.>" for user in USERS),
    *(f"{inbox(user.name)}.*" for user in USERS),
]


async def refused(guarded: Guarded, name: str, verb: str, wanted: list[str]) -> set[str]:
    """The subjects that the broker refuses to this user."""
    said: list[str] = []
    client = await guarded.connect(name, said)
    for subject in wanted:
        if verb == "publish":
            await client.publish(subject, b"")
        else:
            await client.subscribe(subject)
    await settle(client)
    violation = f'permissions violation for {"publish to" if verb == "publish" else "subscription to"} "'
    denied = {text.lower().partition(violation)[2].partition('"')[0] for text in said if violation in text.lower()}
    found = {subject for subject in wanted if subject.lower() in denied}
    assert len(found) == len(denied), "a refusal that nobody asked for"
    return found


@pytest.mark.parametrize("name", NAMES)
async def test_the_broker_refuses_exactly_what_the_table_does_not_allow(guarded: Guarded, name: str) -> None:
    user, everything = BY_NAME[name], subjects()
    assert await refused(guarded, name, "publish", everything) == {
        subject for subject in everything if not may_publish(user, subject)
    }
    heard = [*everything, *WILD]
    assert await refused(guarded, name, "subscribe", heard) == {
        subject for subject in heard if not may_subscribe(user, subject)
    }


def who(may: Callable[[User, str], bool], subject: str) -> set[str]:
    return {user.name for user in USERS if may(user, subject)}


def test_facts_of_a_service_are_stated_by_that_service_only() -> None:
    for service in SERVICES:
        assert who(may_publish, f"{ROOT}.evt.{service}.thing.x") == {service}
    assert who(may_publish, f"{ROOT}.evt.policy-gateway.audit.x") == {"policy-gateway"}
    assert who(may_publish, f"{ROOT}.llm.resp.r.n") == {"llm-worker"}
    assert who(may_publish, f"{ROOT}.snapshot.executor.run.x") == {"executor"}
    assert who(may_publish, f"{ROOT}.conversation.x") == {"identity"}


def test_gates_are_asked_for_by_the_executor_and_answered_by_identity_alone() -> None:
    assert who(may_publish, f"{ROOT}.cmd.executor.run.x.approval") == {"identity"}
    for verb in ("request", "withdraw"):
        assert who(may_publish, f"{ROOT}.cmd.identity.approval.x.{verb}") == {"executor"}
    assert "planner" in who(may_publish, f"{ROOT}.cmd.executor.run.x.cancel")


@pytest.mark.parametrize("role", ROLES)
def test_a_role_is_called_by_its_agents_the_executor_and_people(role: str) -> None:
    """In the role admin the executor only calls for tasks."""
    others = {"executor", f"agent-{role}"} if role != "admin" else set()
    assert who(may_publish, f"{ROOT}.tool.{role}.shell") == {OPERATOR} | others
    assert who(may_publish, f"{ROOT}.tool.{role}.shell.task") == {"executor", OPERATOR}
    assert who(may_subscribe, f"{ROOT}.tool.{role}.shell") == {"policy-gateway", OPERATOR}


def test_nobody_hears_the_replies_of_others_and_people_do_not_forge_them() -> None:
    for user in USERS:
        if user.name != OPERATOR:
            assert who(may_subscribe, f"{inbox(user.name)}.x.1") == {user.name}
            assert who(may_subscribe, f"{inbox(user.name)}.>") == {user.name}
            if user.name != NODES:
                assert OPERATOR not in who(may_publish, f"{inbox(user.name)}.x.1")
    assert who(may_subscribe, "_INBOX.>") == {OPERATOR}


def test_the_log_of_what_was_is_cut_by_nobody_and_changed_by_one_key() -> None:
    """A stream that forgets (`max_msgs`, `max_age`) loses what it holds as surely as one that is purged."""
    for spec in STREAMS:
        guarded_stream = bool(spec.config.get("deny_purge"))
        for verb in ("CREATE", "UPDATE"):
            assert who(may_publish, f"{API}.STREAM.{verb}.{spec.name}") == {"bootstrap"}
        for verb in ("DELETE", "PURGE", "MSG.DELETE", "RESTORE", "PEER.REMOVE") if guarded_stream else ():
            assert who(may_publish, f"{API}.STREAM.{verb}.{spec.name}") == set()
        assert who(may_publish, f"{API}.STREAM.DELETE.{spec.name}") <= {OPERATOR, "bootstrap"}
    assert who(may_publish, "$SYS.REQ.SERVER.PING") == who(may_subscribe, "$SYS.>") == set()


def test_what_sessions_spoke_of_is_forgotten_by_itself_only() -> None:
    """Whoever could have a session forgotten could have a bare code counted for another gate."""
    for verb in ("PURGE", "MSG.DELETE", "RESTORE", "PEER.REMOVE"):
        assert who(may_publish, f"{API}.STREAM.{verb}.{CONVERSATIONS}") == set()
    assert who(may_publish, f"{API}.STREAM.DELETE.{CONVERSATIONS}") == {"bootstrap"}


HEARD_BY_A_STREAM = [f"{ROOT}.identity.>", "_INBOX.>", "_INBOX_agent-coder.>", f"{ROOT}.tool.>", "$JS.API.>", "$SRV.>"]


async def test_nobody_but_the_key_of_the_streams_makes_one_that_keeps_what_others_say(guarded: Guarded) -> None:
    await provision.apply(await guarded.bus("bootstrap"))
    for name in (name for name in NAMES if name != "bootstrap"):
        client = await guarded.connect(name)
        for number, subject in enumerate(HEARD_BY_A_STREAM):
            body = {"name": f"S{number}", "subjects": [subject], "no_ack": True}
            await client.publish(f"{API}.STREAM.CREATE.S{number}", json.dumps(body).encode())
        wide = {"name": DEAD_LETTERS, "subjects": [f"{ROOT}.dlq.>", f"{ROOT}.identity.>"]}
        await client.publish(f"{API}.STREAM.UPDATE.{DEAD_LETTERS}", json.dumps(wide).encode())
        await settle(client)
    bus = await guarded.bus(OPERATOR)
    streams = (await bus.api("STREAM.LIST"))["streams"]
    assert {one["config"]["name"] for one in streams} == {spec.name for spec in STREAMS}
    assert {change.action for change in await provision.apply(bus, dry=True)} == {"same"}


async def test_the_operator_cannot_make_the_broker_forget_what_was(guarded: Guarded) -> None:
    await provision.apply(await guarded.bus("bootstrap"))
    said: list[str] = []
    operator = await guarded.connect(OPERATOR, said)
    for name in FACTS:
        spec = next(one for one in STREAMS if one.name == name)
        forgetful = {"name": name, **spec.config, "discard": "old", "max_msgs": 1}
        for verb, body in (("UPDATE", forgetful), ("CREATE", forgetful), ("DELETE", {}), ("PURGE", {})):
            await operator.publish(f"{API}.STREAM.{verb}.{name}", json.dumps(body).encode())
    await settle(operator)
    assert len([text for text in said if "permissions violation" in text.lower()]) == 4 * len(FACTS)
    assert {change.action for change in await provision.apply(await guarded.bus(OPERATOR), dry=True)} == {"same"}


async def test_the_key_of_the_streams_brings_a_guarded_stream_up_to_date(guarded: Guarded) -> None:
    bus = await guarded.bus("bootstrap")
    spec = next(one for one in STREAMS if one.name == FACTS[0])
    older = {key: value for key, value in spec.config.items() if key != "allow_atomic"}
    await bus.api(f"STREAM.CREATE.{spec.name}", {"name": spec.name, **older})
    changes = {change.name: change.action for change in await provision.apply(bus)}
    assert changes[spec.name] == "update"
    assert {change.action for change in await provision.apply(bus)} == {"same"}


async def test_the_key_of_the_streams_moves_one_that_was_kept_in_memory(guarded: Guarded) -> None:
    bus = await guarded.bus("bootstrap")
    spec = next(one for one in STREAMS if one.name == LLM_TOKENS)
    older = {key: value for key, value in spec.config.items() if key != "persist_mode"}
    await bus.api(f"STREAM.CREATE.{spec.name}", {"name": spec.name, **older, "storage": "memory"})
    await provision.apply(bus)
    assert {change.action for change in await provision.apply(bus)} == {"same"}


def test_no_service_has_a_wildcard_over_the_brokers_own_subjects() -> None:
    for user in USERS:
        if user.name in (OPERATOR, NODES):
            continue
        for subject in user.rights.publish:
            words = subject.split(".")
            if words[0] == "$JS":
                assert words[1] in ("API", "ACK", "FC")
                assert not {"*", ">"} & set(words[:3])
                assert any(spec.name in words for spec in STREAMS) or subject == f"{API}.INFO"


def test_nodes_of_runs_speak_to_the_world_and_not_to_htdag() -> None:
    nodes = BY_NAME[NODES]
    assert all(may_publish(nodes, subject) for subject in ("bench.body", "weather.today", "a.b.c.d.e"))
    assert not [
        subject
        for subject in subjects()
        if may_publish(nodes, subject) and subject.startswith(("htdag", "$", "llm", "ai"))
    ]


async def test_bootstrap_makes_all_streams_and_services_find_them(guarded: Guarded) -> None:
    bus = await guarded.bus("bootstrap")
    planner = await guarded.bus("planner")
    assert await provision.missing(planner, "planner") == ["HTDAG_EVT_PLANNER"]
    made = await provision.apply(bus)
    assert {change.action for change in made} == {"create"}
    assert {change.action for change in await provision.apply(bus)} == {"same"}
    for service in ("planner", "executor", "llm-worker", "policy-gateway"):
        assert await provision.missing(await guarded.bus(service), service) == []


async def test_an_agent_calls_tools_of_its_role_and_gets_the_answer(guarded: Guarded) -> None:
    gateway = await guarded.bus("policy-gateway")
    await gateway.subscribe(f"{ROOT}.tool.*.*", lambda message: gateway.publish(message.reply, b"done"))
    await gateway.flush()
    said: list[str] = []
    agent = await guarded.connect("agent-coder", said)
    assert (await agent.request(f"{ROOT}.tool.coder.shell", b"{}", timeout=5)).data == b"done"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await agent.request(f"{ROOT}.tool.tester.shell", b"{}", timeout=5)
    assert await eventually(lambda: [text for text in said if f"{ROOT}.tool.tester.shell" in text])


async def test_an_agent_proves_itself_and_does_nothing_else_at_identity(guarded: Guarded) -> None:
    identity = await guarded.bus("identity")
    await identity.subscribe(f"{ROOT}.identity.agent.*", lambda message: identity.publish(message.reply, b"done"))
    await identity.flush()
    said: list[str] = []
    agent = await guarded.connect("agent-coder", said)
    for verb in ("code", "challenge"):
        assert (await agent.request(f"{ROOT}.identity.agent.{verb}", b"{}", timeout=5)).data == b"done"
    for subject in ("agent.create", "user.list", "login.converse", "approval.converse", "approval.list"):
        await agent.publish(f"{ROOT}.identity.{subject}", b"{}")
        assert await eventually(lambda subject=subject: [text for text in said if f"{ROOT}.identity.{subject}" in text])
