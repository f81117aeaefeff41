"""Streams and durable consumers as data, in the broker's own JSON words. Durations are nanoseconds.

`services.runtime.provision` creates what is missing and shows what differs; nothing else makes streams.
"""

from typing import Any, Final

import msgspec

from contracts.limits import DEAD_LETTER_DELIVERIES_MAX, GONE_REMEMBERED_S, PARTITIONS
from contracts.subjects import LLM_RESPONSE_EDGE, LLM_TOKENS_EDGE, LLM_WITHDRAWN, ROOT

S: Final = 1_000_000_000
DAY: Final = 86_400 * S
MB: Final = 1 << 20
GROUP: Final = "own"
"""The one priority group of every partitioned consumer."""


class StreamSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One stream: its name, who writes it, why it exists, and its broker configuration."""

    name: str
    owner: str
    meaning: str
    config: dict[str, Any]


class ConsumerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One durable consumer: the stream, the durable name, who pulls it, and its broker configuration."""

    stream: str
    name: str
    owner: str
    meaning: str
    config: dict[str, Any]


def _file(**config: Any) -> dict[str, Any]:
    return {"storage": "file", "discard": "new", "allow_direct": True, "retention": "limits", **config}


def _events(service: str) -> dict[str, Any]:
    return _file(
        subjects=[f"{ROOT}.evt.{service}.*.*"],
        compression="s2",
        deny_delete=True,
        deny_purge=True,
        # Said, so that a stream which was made to forget is brought back: what is not said here is the operator's.
        max_age=0,
        max_msgs_per_subject=-1,
        allow_atomic=True,
        duplicate_window=120 * S,
    )


EVENTS_PLANNER: Final = "HTDAG_EVT_PLANNER"
EVENTS_EXECUTOR: Final = "HTDAG_EVT_EXECUTOR"
EVENTS_POLICY_GATEWAY: Final = "HTDAG_EVT_POLICY_GATEWAY"
EVENTS_LLM_WORKER: Final = "HTDAG_EVT_LLM_WORKER"
TOOL_CALLS: Final = "HTDAG_TOOL_CALLS"
EVENTS_IDENTITY: Final = "HTDAG_EVT_IDENTITY"
IDENTITY_SHADOWS: Final = "HTDAG_EVT_IDENTITY_SHADOW"
CONVERSATIONS: Final = "HTDAG_CONVERSATIONS"
COMMANDS: Final = "HTDAG_CMD"
TIMERS: Final = "HTDAG_TIMERS"
SNAPSHOTS: Final = "HTDAG_SNAPSHOTS"
LLM_REQUESTS: Final = "HTDAG_LLM_REQ"
LLM_RESPONSES: Final = "HTDAG_LLM_RESP"
LLM_UNJUDGED: Final = "HTDAG_LLM_UNJUDGED"
LLM_CACHE: Final = "HTDAG_LLM_CACHE"
ANSWER_BUCKET: Final = "htdag-answers"
"""The object store of outputs that are too big for one message."""
LLM_TOKENS: Final = "HTDAG_LLM_TOKENS"
LLM_WORKERS: Final = "HTDAG_LLM_WORKERS"
LLM_WITHDRAWALS: Final = "HTDAG_LLM_WITHDRAWN"
DEAD_LETTERS: Final = "HTDAG_DLQ"


def bucket_stream(bucket: str) -> str:
    """The stream behind an object store, as NATS names it."""
    return f"OBJ_{bucket}"


STREAMS: Final[tuple[StreamSpec, ...]] = (
    StreamSpec(
        name=EVENTS_PLANNER,
        owner="planner",
        meaning="commits of epics and strategies",
        config=_events("planner"),
    ),
    StreamSpec(name=EVENTS_EXECUTOR, owner="executor", meaning="commits of runs", config=_events("executor")),
    StreamSpec(
        name=EVENTS_POLICY_GATEWAY,
        owner="policy-gateway",
        meaning="the audit chain, and every version of the policy",
        config={
            **_events("policy-gateway"),
            "subjects": [f"{ROOT}.evt.policy-gateway.audit.*", f"{ROOT}.evt.policy-gateway.policy.*"],
        },
    ),
    StreamSpec(
        name=EVENTS_LLM_WORKER,
        owner="llm-worker",
        meaning="commits of the ledger, every reservation and every paid LLM call, and of the breakers of models",
        config=_events("llm-worker"),
    ),
    StreamSpec(
        name=TOOL_CALLS,
        owner="policy-gateway",
        # Apart from the audit, because answers are large and need not be kept for ever.
        meaning="calls of tasks: who took each of them, and its answer, for 30 days",
        config={
            **_events("policy-gateway"),
            "subjects": [f"{ROOT}.evt.policy-gateway.call.*"],
            "max_age": 30 * DAY,
        },
    ),
    StreamSpec(
        name=EVENTS_IDENTITY,
        owner="identity",
        meaning="commits of accounts (attempts, locks) and of approval gates; no code, and secrets only sealed",
        config={
            **_events("identity"),
            "subjects": [f"{ROOT}.evt.identity.user.*", f"{ROOT}.evt.identity.approval.*"],
        },
    ),
    StreamSpec(
        name=IDENTITY_SHADOWS,
        owner="identity",
        # A week is longer than the longest lock, so that a name nobody has is limited like any other.
        meaning="attempts on names that nobody has, in a fixed number of buckets, for a week",
        config=_file(
            subjects=[f"{ROOT}.evt.identity.shadow.*"],
            deny_delete=True,
            deny_purge=True,
            allow_atomic=True,
            duplicate_window=120 * S,
            max_age=7 * DAY,
            max_msgs=500_000,
            discard="old",
        ),
    ),
    StreamSpec(
        name=CONVERSATIONS,
        owner="identity",
        meaning="who is about to prove being whom, between two turns, and of which gates a session spoke; never a code",
        config={
            "subjects": [f"{ROOT}.conversation.*"],
            # Like tokens: a stream in memory would be gone when the broker is started anew, and nobody may make it.
            "storage": "file",
            "persist_mode": "async",
            "retention": "limits",
            "discard": "old",
            "allow_direct": True,
            # Longer than anybody holds a code back: see `services.identity.conversations`.
            "max_age": DAY,
            "max_msgs": 100_000,
            "max_msgs_per_subject": 1,
        },
    ),
    StreamSpec(
        name=COMMANDS,
        owner="everyone",
        # No work queue: removing each settled message would cost one more fsync.
        meaning="durable mailbox messages of a week, stored by partition; consumers know which are not settled yet",
        config=_file(
            subjects=[f"{ROOT}.cmd.*.*.*.*"],
            allow_atomic=True,
            subject_transform={
                "src": f"{ROOT}.cmd.*.*.*.*",
                "dest": f"{ROOT}.in.{{{{partition({PARTITIONS},3)}}}}"
                ".{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}.{{wildcard(4)}}",
            },
            duplicate_window=3600 * S,
            max_age=7 * DAY,
        ),
    ),
    StreamSpec(
        name=TIMERS,
        owner="executor, planner",
        meaning="armed and fired timers (message schedules); schedules demand discard old",
        config=_file(
            subjects=[f"{ROOT}.timer.armed.>", f"{ROOT}.timer.fired.>"],
            discard="old",
            allow_msg_schedules=True,
            allow_msg_ttl=True,
            max_msgs=1_000_000,
        ),
    ),
    StreamSpec(
        name=SNAPSHOTS,
        owner="executor, identity, llm-worker",
        meaning="newest snapshot per aggregate; losing it loses nothing",
        config=_file(
            subjects=[f"{ROOT}.snapshot.*.*.*"],
            discard="old",
            max_msgs_per_subject=1,
            max_age=30 * DAY,
            max_msgs=200_000,
        ),
    ),
    StreamSpec(
        name=LLM_REQUESTS,
        owner="executor, llm-worker",
        # No work queue: removing each answered request would cost one more fsync, and that is half of the speed.
        meaning="LLM requests of a day; its consumer knows which are not answered yet",
        config=_file(
            subjects=[f"{ROOT}.llm.req.>"],
            allow_atomic=True,
            duplicate_window=3600 * S,
            max_age=DAY,
        ),
    ),
    StreamSpec(
        name=LLM_RESPONSES,
        owner="llm-worker",
        meaning="the journal: final LLM answers, each paid once",
        config=_file(
            subjects=[f"{ROOT}.llm.resp.*.*"],
            compression="s2",
            allow_atomic=True,
            duplicate_window=3600 * S,
            max_age=30 * DAY,
            republish={"src": f"{ROOT}.llm.resp.>", "dest": f"{LLM_RESPONSE_EDGE}.>"},
        ),
    ),
    StreamSpec(
        name=LLM_UNJUDGED,
        owner="llm-worker",
        # As long as the requests: whoever is given one of them again judges what its first worker heard.
        meaning="what a provider answered, until it is judged by response_schema and journaled; for a day",
        config=_file(
            subjects=[f"{ROOT}.llm.unjudged.*"],
            compression="s2",
            discard="old",
            max_msgs_per_subject=1,
            max_age=DAY,
            duplicate_window=3600 * S,
        ),
    ),
    StreamSpec(
        name=LLM_CACHE,
        owner="llm-worker",
        meaning="where the journal has the answer of a question, by content; used where a request allows it",
        config=_file(
            subjects=[f"{ROOT}.llm.cache.*"],
            discard="old",
            max_msgs_per_subject=1,
            max_age=30 * DAY,
            duplicate_window=120 * S,
        ),
    ),
    StreamSpec(
        name=bucket_stream(ANSWER_BUCKET),
        owner="llm-worker",
        meaning="object store of outputs over 1 MiB, kept as long as the journal that refers to them",
        config=_file(
            subjects=[f"$O.{ANSWER_BUCKET}.C.>", f"$O.{ANSWER_BUCKET}.M.>"],
            allow_rollup_hdrs=True,
            max_age=30 * DAY,
            duplicate_window=120 * S,
        ),
    ),
    StreamSpec(
        name=LLM_TOKENS,
        owner="llm-worker",
        meaning="tokens as they come, for 15 minutes",
        config={
            "subjects": [f"{ROOT}.llm.tokens.*.*"],
            # Written to the disk behind the acknowledgement: nobody waits for a token, but the stream itself, which
            # feeds the public edge, must be there again when the broker is.
            "storage": "file",
            "persist_mode": "async",
            "retention": "limits",
            "discard": "old",
            "allow_direct": True,
            "max_age": 900 * S,
            "max_bytes": 64 * MB,
            "republish": {"src": f"{ROOT}.llm.tokens.>", "dest": f"{LLM_TOKENS_EDGE}.>"},
        },
    ),
    StreamSpec(
        name=LLM_WORKERS,
        owner="llm-worker",
        meaning="newest beat of each llm-worker, so that one that died is known to those that came later, for an hour",
        config={
            "subjects": [f"{ROOT}.llm.worker.*"],
            "storage": "file",
            "persist_mode": "async",
            "retention": "limits",
            "discard": "old",
            "allow_direct": True,
            "max_msgs_per_subject": 1,
            "max_msgs": 1_000,
            "max_age": GONE_REMEMBERED_S * S,
        },
    ),
    StreamSpec(
        name=LLM_WITHDRAWALS,
        owner="executor, llm-worker",
        # As long as the requests: no older one can be taken over.
        meaning="wishes of a day that calls be stopped, one for each call, for workers that did not hear them said",
        config=_file(
            subjects=[f"{LLM_WITHDRAWN}.*"],
            discard="old",
            max_msgs_per_subject=1,
            max_msgs=100_000,
            max_age=DAY,
            duplicate_window=120 * S,
        ),
    ),
    StreamSpec(
        name=DEAD_LETTERS,
        owner="runtime",
        meaning="messages that could not be read or were tried too often, with the reason",
        config=_file(subjects=[f"{ROOT}.dlq.*"], max_age=90 * DAY, max_msgs=100_000, discard="old"),
    ),
)
FACTS: Final = tuple(spec.name for spec in STREAMS if spec.config.get("deny_purge"))
"""The streams of facts: their owners alone write them, and nobody cuts or removes them."""

_PULL: Final[dict[str, Any]] = {
    "ack_policy": "explicit",
    "deliver_policy": "all",
    "replay_policy": "instant",
}


def _mailbox(service: str, number: int) -> ConsumerSpec:
    return ConsumerSpec(
        stream=COMMANDS,
        name=f"{service}-{number}",
        owner=service,
        meaning=f"mailbox partition {number} of {service}",
        config={
            **_PULL,
            "filter_subject": f"{ROOT}.in.{number}.{service}.>",
            "ack_wait": 5 * S,
            "max_deliver": -1,
            "max_ack_pending": 4096,
            "priority_policy": "prioritized",
            "priority_groups": [GROUP],
        },
    )


CONSUMERS: Final[tuple[ConsumerSpec, ...]] = (
    *(_mailbox("executor", number) for number in range(PARTITIONS)),
    ConsumerSpec(
        stream=TIMERS,
        name="executor-timers",
        owner="executor",
        meaning="fired timers of runs",
        config={
            **_PULL,
            "filter_subject": f"{ROOT}.timer.fired.executor.>",
            "ack_wait": 5 * S,
            "max_deliver": -1,
            "max_ack_pending": 1024,
        },
    ),
    ConsumerSpec(
        stream=COMMANDS,
        name="identity",
        owner="identity",
        meaning="requests for approval, shared by all replicas",
        config={
            **_PULL,
            "filter_subject": f"{ROOT}.in.*.identity.>",
            "ack_wait": 10 * S,
            "max_deliver": -1,
            "max_ack_pending": 1024,
        },
    ),
    ConsumerSpec(
        stream=LLM_REQUESTS,
        name="llm-worker",
        owner="llm-worker",
        meaning="LLM requests, shared by all workers",
        config={
            **_PULL,
            "ack_wait": 10 * S,
            "max_deliver": -1,
            # Requests that a worker put off because their model is busy count too.
            "max_ack_pending": 8192,
        },
    ),
)

POISON_DELIVERIES_MAX: Final = DEAD_LETTER_DELIVERIES_MAX
