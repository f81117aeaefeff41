"""The grammar of subjects: build, parse, validate. Subjects are public and versioned by their root.

An id is one token of `[A-Za-z0-9_-]{1,64}`. A model id may hold dots and takes the rest of the subject.
"""

import hashlib
import re
from typing import Final, NamedTuple

from contracts.errors import Rejected
from contracts.limits import ID_CHARS_MAX, PARTITIONS

ROOT: Final = "htdag.v1"
ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
MODEL_ID: Final = re.compile(r"[A-Za-z0-9_:/=,@+-]+(\.[A-Za-z0-9_:/=,@+-]+)*\Z")
MODEL_ID_CHARS_MAX: Final = 200
SERVICES: Final = (
    "planner",
    "executor",
    "llm-worker",
    "policy-gateway",
    "identity",
    "evolution",
    "console",
)

EPIC_RUN_PREFIX: Final = "epic-"
"""Begins the id of an epic's open run; no other run may be called so."""

LLM_REQUEST_EDGE: Final = "llm.req"
LLM_RESPONSE_EDGE: Final = "llm.resp"
LLM_TOKENS_EDGE: Final = "llm.tokens"
LLM_HEALTH: Final = "llm.health"
LLM_LEGACY: Final = "ai.llm.request"
LLM_CANCEL: Final = f"{ROOT}.llm.cancel"
"""Heard by every llm-worker at once; the one that runs the call stops it and replies."""
LLM_WITHDRAWN: Final = f"{ROOT}.llm.withdrawn"
"""Below it, call by call, the same wish is kept for whoever takes the call over when all that heard it are gone."""
LLM_CLAIM: Final = f"{ROOT}.llm.claim"
"""Heard by every llm-worker at once; the one that has the call under way replies, so that it is not paid twice."""
LLM_SERVE: Final = f"{ROOT}.llm.serve"
"""Below it, by model id, foreign workers answer calls."""
LLM_SERVED: Final = f"{ROOT}.llm.served"
"""Below it, by worker and call, foreign workers answer: no inbox, so that their user may write to nothing else."""
LLM_STOP: Final = f"{ROOT}.llm.stop"
"""Below it, by model id, every foreign worker of the model hears of a call that nobody wants any more."""
LLM_ROLL: Final = f"{ROOT}.llm.roll"
"""Heard by every llm-worker at once; each replies with its beat, so that nobody waits 30 s to know the others."""
LLM_DRAIN: Final = f"{ROOT}.llm.drain"
"""Heard by every llm-worker at once; the one that is meant takes nothing more and finishes what it has."""
LLM_QUEUE: Final = f"{ROOT}.llm.queue"
"""Heard by every llm-worker at once; each says how many calls wait at its limiter."""

TOOL_CALLS: Final = f"{ROOT}.tool.*.*"
"""Every tool call of every role."""
TASK: Final = "task"
TOOL_CALLS_OF_TASKS: Final = f"{TOOL_CALLS}.{TASK}"
"""The same, by whoever may only call for a task; see `tool_call_of_task`."""

CLOSED: Final = ("htdag", "llm", "ai")
"""First tokens of what is said within htdag and at its LLM edge."""
SUBJECT_SHOWN_CHARS_MAX: Final = 200


def check_id(value: str, what: str = "id") -> str:
    """Return `value` if it is a well-formed id, else raise Rejected("bad_id")."""
    if not isinstance(value, str) or not ID.match(value):
        raise Rejected("bad_id", f"{what} is malformed", field=what, value=str(value)[: ID_CHARS_MAX * 2])
    return value


def check_model_id(value: str) -> str:
    """Return `value` if it can name a model on a subject, else raise Rejected("bad_id")."""
    if not isinstance(value, str) or len(value) > MODEL_ID_CHARS_MAX or not MODEL_ID.match(value):
        raise Rejected("bad_id", "model_id is malformed", field="model_id", value=str(value)[:MODEL_ID_CHARS_MAX])
    return value


def partition(actor_id: str, partitions: int = PARTITIONS) -> int:
    """The partition of an actor: FNV-1a 32 bit of its id, the same as the server's `{{partition(n,…)}}`."""
    digest = 0x811C9DC5
    for byte in actor_id.encode():
        digest = ((digest ^ byte) * 0x01000193) & 0xFFFFFFFF
    return digest % partitions


def rpc(service: str, noun: str, verb: str) -> str:
    """Subject of one request verb."""
    return f"{ROOT}.{service}.{noun}.{verb}"


def events(service: str, aggregate: str, aggregate_id: str) -> str:
    """Subject of all commits of one aggregate, for its whole life."""
    return f"{ROOT}.evt.{service}.{aggregate}.{aggregate_id}"


def command(service: str, aggregate: str, aggregate_id: str, verb: str) -> str:
    """Subject on which a durable mailbox message is published."""
    return f"{ROOT}.cmd.{service}.{aggregate}.{aggregate_id}.{verb}"


def mailbox(partition_no: int | str, service: str, aggregate: str, aggregate_id: str, verb: str) -> str:
    """Subject under which the broker stores a durable mailbox message: `command` with its partition."""
    return f"{ROOT}.in.{partition_no}.{service}.{aggregate}.{aggregate_id}.{verb}"


def timer_armed(service: str, aggregate: str, aggregate_id: str) -> str:
    """Subject of the one armed timer of an aggregate; publishing again moves it."""
    return f"{ROOT}.timer.armed.{service}.{aggregate}.{aggregate_id}"


def timer_fired(service: str, aggregate: str, aggregate_id: str) -> str:
    """Subject under which a timer arrives when it is due."""
    return f"{ROOT}.timer.fired.{service}.{aggregate}.{aggregate_id}"


def snapshot(service: str, aggregate: str, aggregate_id: str) -> str:
    """Subject of the newest snapshot of one aggregate."""
    return f"{ROOT}.snapshot.{service}.{aggregate}.{aggregate_id}"


def conversation(session_digest: str) -> str:
    """Subject under which identity remembers one conversation between two turns."""
    return f"{ROOT}.conversation.{session_digest}"


def llm_request(model_id: str) -> str:
    """Subject of a durable LLM request."""
    return f"{ROOT}.llm.req.{model_id}"


def llm_response(run_id: str, node_id: str) -> str:
    """Subject of the final answers of one node."""
    return f"{ROOT}.llm.resp.{run_id}.{node_id}"


def llm_unjudged(digest: str) -> str:
    """Subject under which an answer is kept before it is judged, by the digest of the call's names."""
    return f"{ROOT}.llm.unjudged.{digest}"


def llm_cache(digest: str) -> str:
    """Subject under which it stands where the answer of a question is, by the digest of its content."""
    return f"{ROOT}.llm.cache.{digest}"


def llm_withdrawn(corr_id: str) -> str:
    """Subject under which it is kept that nobody wants a call any more; a `corr_id` may be no token of a subject."""
    return f"{LLM_WITHDRAWN}.{hashlib.sha256(corr_id.encode()).hexdigest()[:32]}"


def llm_worker(worker_id: str) -> str:
    """Subject under which a worker's newest beat is kept, for whoever comes when it is gone."""
    return f"{ROOT}.llm.worker.{worker_id}"


def llm_serve(model_id: str) -> str:
    """Subject on which foreign workers answer calls of a model, in a queue group."""
    return f"{LLM_SERVE}.{model_id}"


def llm_served(instance: str, call: str) -> str:
    """Subject of the answer of a foreign worker to one call of an llm-worker; its tokens go to `<call>-tokens`."""
    return f"{LLM_SERVED}.{instance}.{call}"


def llm_stop(model_id: str) -> str:
    """Subject on which a foreign worker hears that a call is not wanted any more."""
    return f"{LLM_STOP}.{model_id}"


def llm_tokens(run_id: str, node_id: str) -> str:
    """Subject of the token stream of one node."""
    return f"{ROOT}.llm.tokens.{run_id}.{node_id}"


def tool_call(role: str, tool: str) -> str:
    """Subject of one tool call: who may publish to which role's subject is a permission of the broker."""
    return f"{ROOT}.tool.{role}.{tool}"


def tool_call_of_task(role: str, tool: str) -> str:
    """Subject of a tool call that must belong to a task: without one it is refused.

    Which key sent a message is nowhere to be seen, but by what subjects that key may publish to. The executor may not
    publish to `tool_call("admin", ...)`: what an admin does outside of a task, a person does.
    """
    return f"{tool_call(role, tool)}.{TASK}"


def tool_owner(instance: str) -> str:
    """Subject on which one gateway tells another whether a call is under way with it."""
    return f"{ROOT}.policy-gateway.owner.{instance}"


def beat(service: str) -> str:
    """Subject on which the replicas of a service tell each other that they live, to share its partitions."""
    return f"{ROOT}.beat.{service}"


def dead_letter(stream: str) -> str:
    """Subject of the dead letters of one stream."""
    return f"{ROOT}.dlq.{stream}"


class EventSubject(NamedTuple):
    """The parts of an `evt` subject."""

    service: str
    aggregate: str
    aggregate_id: str


class MailboxSubject(NamedTuple):
    """The parts of a stored mailbox subject."""

    partition: int
    service: str
    aggregate: str
    aggregate_id: str
    verb: str


def parse_events(subject: str) -> EventSubject:
    """Parse `htdag.v1.evt.<service>.<aggregate>.<id>`; raises Rejected("bad_request")."""
    tokens = subject.split(".")
    if len(tokens) != 6 or not subject.startswith(f"{ROOT}.evt."):
        raise Rejected("bad_request", "not an event subject", subject=subject)
    return EventSubject(*tokens[3:])


def parse_mailbox(subject: str) -> MailboxSubject:
    """Parse a stored mailbox subject; raises Rejected("bad_request")."""
    tokens = subject.split(".")
    if len(tokens) != 8 or not subject.startswith(f"{ROOT}.in.") or not tokens[3].isdecimal():
        raise Rejected("bad_request", "not a mailbox subject", subject=subject)
    return MailboxSubject(int(tokens[3]), *tokens[4:])


class ToolSubject(NamedTuple):
    """The parts of a tool call's subject."""

    role: str
    tool: str
    of_task: bool = False


def parse_tool_call(subject: str) -> ToolSubject:
    """Parse `htdag.v1.tool.<role>.<tool>[.task]`; raises Rejected("bad_request")."""
    tokens = subject.split(".")
    of_task = len(tokens) == 6 and tokens[5] == TASK
    if len(tokens) != 5 + of_task or not subject.startswith(f"{ROOT}.tool."):
        raise Rejected("bad_request", "not a subject of a tool call", subject=subject)
    return ToolSubject(tokens[3], tokens[4], of_task)


def model_of(subject: str, prefix: str) -> str:
    """The model id of a request subject: everything behind `prefix.`, dots included."""
    return subject[len(prefix) + 1 :]


def check_open(subject: str, task_id: str) -> None:
    """Refuse a subject that a nats node may not speak to: htdag's own, the broker's, inboxes, the LLM edge, wildcards.

    Raises Rejected: bad_request for what is malformed, forbidden_subject.
    """
    where = {"task_id": task_id, "field": "node.subject"}
    tokens = subject.split(".")
    if not all(tokens) or any(char.isspace() or not char.isprintable() for char in subject):
        raise Rejected("bad_request", f"task {task_id}: the subject is malformed", **where)
    if tokens[0] in CLOSED or subject.startswith(("$", "_INBOX")) or "*" in tokens or ">" in tokens:
        raise Rejected("forbidden_subject", subject=subject[:SUBJECT_SHOWN_CHARS_MAX], **where)
