"""Who may say what at the broker, and who may hear it: every user of htdag with its rights, as data.

The rights follow from the streams, consumers, verbs and channels of the contracts; `USES` adds what those do not say.
A service may publish what it is the publisher of, ask the broker about the streams it reads and no others, settle the
messages of its own consumers, answer its callers, and hear its own inbox. What is not named here is refused.

`infra/nats/permissions.conf` is made from this table, and `htdag up` starts its broker with it.
"""

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from contracts.channel import ChannelSpec
from contracts.channels import CHANNELS
from contracts.rights import AGENT_PREFIX, BOOTSTRAP, FOREIGN, INBOX, NODES, OPERATOR, Rights, User, covers, inbox
from contracts.streams import (
    ANSWER_BUCKET,
    COMMANDS,
    CONSUMERS,
    CONVERSATIONS,
    EVENTS_EXECUTOR,
    EVENTS_LLM_WORKER,
    EVENTS_PLANNER,
    FACTS,
    LLM_REQUESTS,
    LLM_TOKENS,
    LLM_WITHDRAWALS,
    SNAPSHOTS,
    STREAMS,
    TIMERS,
    ConsumerSpec,
)
from contracts.subjects import (
    LLM_HEALTH,
    LLM_RESPONSE_EDGE,
    LLM_SERVE,
    LLM_SERVED,
    LLM_STOP,
    LLM_WITHDRAWN,
    ROOT,
    SERVICES,
    TOOL_CALLS,
    TOOL_CALLS_OF_TASKS,
    rpc,
)
from contracts.task import ADMIN, ROLES
from contracts.verbs import VERBS

TOOLS: Final = f"{ROOT}.tool"
API: Final = "$JS.API"
AGENT_ROLES: Final = tuple(role for role in ROLES if role != ADMIN)
"""Roles that an agent outside of htdag may have a key for: an admin waits for a human, a key waits for none."""
AGENT_VERBS: Final = (rpc("identity", "agent", "code"), rpc("identity", "agent", "challenge"))
"""How agents prove themselves to each other: the credential in the request says which agent speaks."""
_MAKES: Final = ("CREATE", "UPDATE", "RESTORE")
"""What makes a stream, or another of one: then it may forget, or keep what it should not hear."""
_LOSSES: Final = ("DELETE", "PURGE", "MSG.DELETE", "PEER.REMOVE")
"""What could lose a part of a stream."""
_DISCOVERY: Final = ("PING", "INFO", "STATS")
_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_WORD: Final = re.compile(r"[a-z][a-z-]+")


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """What a service needs beside what streams, consumers and channels say of it.

    `calls` are verbs whose answer it waits for; `says` and `hears` are subjects; it reads the streams `reads` by
    sequence and subject, asks `newest` of them, and `follows` them live.
    With the streams that it alone writes it may do all three. `never` takes away what others of these would give.
    """

    calls: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    hears: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    newest: tuple[str, ...] = ()
    follows: tuple[str, ...] = ()
    purges: tuple[str, ...] = ()
    never: tuple[str, ...] = ()


_EVENTS: Final = tuple(spec.name for spec in STREAMS if spec.config["subjects"][0].startswith(f"{ROOT}.evt."))

USES: Final[dict[str, Use]] = {
    "planner": Use(newest=(EVENTS_EXECUTOR, EVENTS_LLM_WORKER), follows=(EVENTS_EXECUTOR, EVENTS_LLM_WORKER)),
    "executor": Use(
        calls=(
            rpc("planner", "strategy", "choose"),
            rpc("policy-gateway", "policy", "decide"),
            rpc("policy-gateway", "policy", "roles"),
            rpc("policy-gateway", "call", "withdraw"),
            rpc("identity", "approval", "key"),
            f"{TOOLS}.*.*",
        ),
        # What an admin does outside of a task, a person does: calls of admin tasks have a subject of their own.
        never=(f"{TOOLS}.{ADMIN}.*",),
        reads=(TIMERS,),
        follows=(EVENTS_PLANNER,),
        purges=(TIMERS,),
    ),
    "llm-worker": Use(
        # A request that is refused was never stored: its answer cannot come from the journal.
        says=(f"{LLM_RESPONSE_EDGE}.*.*", f"$O.{ANSWER_BUCKET}.>"),
        hears=(LLM_HEALTH, f"{LLM_RESPONSE_EDGE}.*.*"),
        reads=(LLM_REQUESTS, LLM_WITHDRAWALS),
    ),
    "policy-gateway": Use(
        calls=(rpc("identity", "approval", "key"),),
        hears=(TOOL_CALLS, TOOL_CALLS_OF_TASKS),
        newest=(EVENTS_EXECUTOR,),
        follows=(EVENTS_EXECUTOR,),
    ),
    "identity": Use(),
    "evolution": Use(),
    "console": Use(
        calls=tuple(sorted({f"{ROOT}.{verb.service}.*.*" for verb in VERBS})),
        says=("$SRV.>",),
        newest=(LLM_TOKENS,),
        follows=(*_EVENTS, LLM_TOKENS),
    ),
}


def parties(text: str) -> frozenset[str]:
    """The services that the words of a channel or a stream name; "anybody" and "everyone" are people."""
    words = set(_WORD.findall(text))
    return frozenset(SERVICES) & words


def owned(service: str) -> tuple[str, ...]:
    """The streams that one service alone writes."""
    return tuple(spec.name for spec in STREAMS if parties(spec.owner) == {service})


def _unique(*groups: Iterable[str]) -> tuple[str, ...]:
    """All of them once, without those that another one covers."""
    found = dict.fromkeys(subject for group in groups for subject in group)
    wide = [one for one in found if one.endswith(">") or "*" in one]
    return tuple(one for one in found if not any(other != one and covers(other, one) for other in wide))


def _pattern(channel: ChannelSpec, service: str) -> str:
    """A channel's address as one service may use it: its own aggregates, all ids."""

    def wildcard(found: "re.Match[str]") -> str:
        return {"service": service, "model_id": ">"}.get(found[1], "*")

    return _PARAMETER.sub(wildcard, channel.address)


def _alone() -> dict[str, str]:
    """What one service alone may put into a mailbox, by whom: others' rights to that mailbox leave it out."""
    named = [(_pattern(one, ""), parties(one.publishers)) for one in CHANNELS if one.stream == COMMANDS]
    return {subject: next(iter(who)) for subject, who in named if len(who) == 1}


ALONE: Final = _alone()


def _read(stream: str) -> tuple[str, ...]:
    return f"{API}.STREAM.INFO.{stream}", f"{API}.DIRECT.GET.{stream}", f"{API}.DIRECT.GET.{stream}.>"


def _follow(stream: str) -> tuple[str, ...]:
    # An ordered consumer lives in the broker's memory, under a name that the broker chooses.
    return f"{API}.CONSUMER.CREATE.{stream}", f"{API}.CONSUMER.INFO.{stream}.*", f"$JS.FC.{stream}.>"


def _pull(consumer: ConsumerSpec) -> tuple[str, ...]:
    return (
        f"{API}.CONSUMER.INFO.{consumer.stream}.{consumer.name}",
        f"{API}.CONSUMER.MSG.NEXT.{consumer.stream}.{consumer.name}",
        f"$JS.ACK.{consumer.stream}.{consumer.name}.>",
    )


def _answers(service: str) -> bool:
    return any(verb.service == service for verb in VERBS) or bool(USES[service].hears)


def callers(service: str) -> tuple[str, ...]:
    """The users whose inboxes a service may write to: who asks it for something."""
    if not _answers(service):
        return ()
    asking = [name for name, use in USES.items() if any(_asks(call, service) for call in use.calls)]
    # Workers of one service ask each other.
    asks_itself = (one.kind == "request" and one.stream is None and service in _both(one) for one in CHANNELS)
    asking += [service] if any(asks_itself) else []
    asked_by_agents = service == "policy-gateway" or any(one.startswith(f"{ROOT}.{service}.") for one in AGENT_VERBS)
    agents = [f"{AGENT_PREFIX}{role}" for role in AGENT_ROLES] if asked_by_agents else []
    return tuple(dict.fromkeys([OPERATOR, *asking, *agents]))


def _both(channel: ChannelSpec) -> frozenset[str]:
    return parties(channel.publishers) & parties(channel.consumers)


def _asks(call: str, service: str) -> bool:
    return call.startswith((f"{ROOT}.{service}.",)) or (service == "policy-gateway" and call.startswith(f"{TOOLS}."))


def _service(name: str) -> User:
    use = USES[name]
    pulled = [one for one in CONSUMERS if one.owner == name]
    put_aside = {one.stream for one in pulled}
    newest, follows = (_unique(owned(name), streams) for streams in (use.newest, use.follows))
    reads = _unique(use.reads, newest, follows)
    publish = _unique(
        [f"{ROOT}.evt.{name}.>"],
        [_pattern(one, name) for one in CHANNELS if name in parties(one.publishers)],
        [f"{ROOT}.dlq.{stream}" for stream in sorted(put_aside)],
        (*use.says, *use.calls),
        [f"{inbox(caller)}.>" for caller in callers(name)],
        [f"{API}.INFO"],
        # Whoever writes into a stream asks whether it still takes anything: a full disk answers nobody.
        [f"{API}.STREAM.INFO.{one.stream}" for one in CHANNELS if one.stream and name in parties(one.publishers)],
        *(_read(stream) for stream in reads),
        [f"{API}.STREAM.MSG.GET.{stream}" for stream in newest],
        # One's own snapshots and nobody else's: those of accounts hold sealed secrets.
        [
            f"{API}.DIRECT.GET.{SNAPSHOTS}.{_pattern(one, name)}"
            for one in CHANNELS
            if one.stream == SNAPSHOTS and name in parties(one.consumers)
        ],
        *(_follow(stream) for stream in follows),
        *(_pull(consumer) for consumer in pulled),
        [f"{API}.STREAM.PURGE.{stream}" for stream in use.purges],
    )
    verbs = sorted({f"{ROOT}.{name}.{verb.noun}.*" for verb in VERBS if verb.service == name})
    discovery = [
        subject for word in _DISCOVERY for subject in (f"$SRV.{word}", f"$SRV.{word}.{name}", f"$SRV.{word}.{name}.*")
    ]
    hears = _unique(
        [f"{inbox(name)}.>"],
        verbs,
        [_pattern(one, name) for one in CHANNELS if one.stream is None and name in parties(one.consumers)],
        use.hears,
        discovery,
    )
    # Grants are identity's to send, whoever else may write to a run.
    others = [one for one, who in ALONE.items() if who != name and any(covers(mine, one) for mine in publish)]
    rights = Rights(publish=publish, publish_not=(*others, *use.never), subscribe=hears)
    return User(name=name, meaning=f"htdag's {name}", rights=rights)


def _bootstrap() -> User:
    publish = [f"{API}.INFO"]
    for spec in STREAMS:
        publish += [f"{API}.STREAM.{verb}.{spec.name}" for verb in ("INFO", "CREATE", "UPDATE")]
        if spec.name not in FACTS:
            # A stream that an older version kept in memory moves to the disk by being made anew.
            publish.append(f"{API}.STREAM.DELETE.{spec.name}")
    for one in CONSUMERS:
        publish.append(f"{API}.CONSUMER.INFO.{one.stream}.{one.name}")
        tail = f".{one.config['filter_subject']}" if "filter_subject" in one.config else ""
        publish.append(f"{API}.CONSUMER.CREATE.{one.stream}.{one.name}{tail}")
    return User(
        name=BOOTSTRAP,
        meaning="makes streams and consumers, before any service starts",
        rights=Rights(publish=tuple(publish), subscribe=(f"{inbox(BOOTSTRAP)}.>",)),
    )


def _agents() -> list[User]:
    return [
        User(
            name=f"{AGENT_PREFIX}{role}",
            meaning=f"an agent outside of htdag that calls tools in the role {role} and proves who it is",
            rights=Rights(publish=(f"{TOOLS}.{role}.*", *AGENT_VERBS), subscribe=(f"{inbox(AGENT_PREFIX + role)}.>",)),
        )
        for role in AGENT_ROLES
    ]


def _foreign() -> User:
    return User(
        name=FOREIGN,
        meaning="a worker in any language that serves models: it answers llm-worker, and nobody else",
        rights=Rights(
            publish=(f"{LLM_SERVED}.*.*",), subscribe=(f"{LLM_SERVE}.>", f"{LLM_STOP}.>", f"{inbox(FOREIGN)}.>")
        ),
    )


def _nodes(private: Iterable[str]) -> User:
    closed = (f"{ROOT.partition('.')[0]}.>", "llm.>", "ai.>", "$JS.>", "$SYS.>", "$SRV.>", "$KV.>", "$O.>", "_R_.>")
    return User(
        name=NODES,
        meaning="nats nodes of runs: everything that is not htdag's or the broker's own",
        rights=Rights(
            publish=(">",),
            publish_not=(*closed, f"{INBOX}.>", *private),
            subscribe=(f"{inbox(NODES)}.>",),
        ),
    )


def _operator(private: Iterable[str]) -> User:
    """Everything but what would be a lie, a loss, or heard in secret.

    Facts that only a service may state, the log of what was and of what sessions spoke of, and streams of any kind.
    """
    written_by_one = _unique(
        [f"{ROOT}.evt.>", f"{ROOT}.in.>", f"{ROOT}.snapshot.>", f"{ROOT}.timer.>", f"{ROOT}.beat.>"],
        [f"{ROOT}.llm.resp.>", f"{ROOT}.llm.unjudged.>", f"{ROOT}.llm.tokens.>", f"{ROOT}.llm.cache.>"],
        [f"$O.{ANSWER_BUCKET}.>"],
        [f"{ROOT}.conversation.>", *ALONE],
        [f"{LLM_WITHDRAWN}.>"],
    )
    # The broker cannot judge which subjects a stream takes: one over inboxes, or over what is said to identity, would
    # keep every code and every credential.
    makes = [f"{API}.STREAM.{verb}.>" for verb in _MAKES]
    losses = [f"{API}.STREAM.{verb}.{name}" for name in (*FACTS, CONVERSATIONS) for verb in _LOSSES]
    heard = tuple(private)
    # Who answers a nats node of a run is the operator, too.
    forged = [subject for subject in heard if subject != f"{inbox(NODES)}.>"]
    return User(
        name=OPERATOR,
        meaning="people, and programs that are not htdag's own",
        password=True,
        rights=Rights(
            publish=(">",),
            publish_not=(*written_by_one, *forged, *makes, *losses, "$SYS.>"),
            subscribe=(">",),
            # Names and codes are said to identity alone: who hears them, or takes them in its place, can use them.
            subscribe_not=(*heard, f"{ROOT}.identity.>", "$SYS.>"),
        ),
    )


def _users() -> tuple[User, ...]:
    services = [_service(name) for name in SERVICES]
    keyed = [*services, _bootstrap(), *_agents(), _foreign()]
    private = [f"{inbox(user.name)}.>" for user in keyed]
    nodes = _nodes(private)
    return (_operator([*private, f"{inbox(NODES)}.>"]), *services, nodes, *keyed[len(services) :])


USERS: Final[tuple[User, ...]] = _users()
BY_NAME: Final[dict[str, User]] = {user.name: user for user in USERS}
