"""What is said where, as data: every subject that carries messages beside the request verbs.

`subjects.md` and `contracts/asyncapi.json` are made from this table together with `contracts.verbs`; a parameter of
an address stands in braces and is one token, except `{model_id}`, which takes the rest of the subject.
"""

from types import UnionType
from typing import Any, Final, Literal, get_args

import msgspec

from contracts import approval, epic, identity, llm, policy, requests, run, strategy, streams
from contracts.subjects import (
    LLM_CANCEL,
    LLM_CLAIM,
    LLM_HEALTH,
    LLM_LEGACY,
    LLM_REQUEST_EDGE,
    LLM_RESPONSE_EDGE,
    LLM_TOKENS_EDGE,
    command,
    conversation,
    dead_letter,
    events,
    llm_request,
    llm_response,
    llm_tokens,
    snapshot,
    timer_armed,
    timer_fired,
    tool_call,
    tool_call_of_task,
    tool_owner,
)

ChannelKind = Literal["message", "commit", "request"]


class ChannelSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One address: which messages it carries, who says them, who listens, and the stream that keeps them.

    `kind` is "commit" when the messages are the events inside a commit, and "request" when the publisher gets `reply`.
    """

    name: str
    address: str
    messages: tuple[Any, ...]
    publishers: str
    consumers: str
    meaning: str
    kind: ChannelKind = "message"
    reply: tuple[Any, ...] = ()
    stream: str | None = None
    example: str = ""


PARAMETERS: Final = {
    "epic_id": "id of an epic, one token",
    "name": "name of a strategy, one token",
    "run_id": "id of a run, one token",
    "user_id": "key of an account: its name in lower case",
    "approval_id": "id of a gate, one token",
    "bucket": "bucket of a name that nobody has",
    "session": "digest of a conversation's session",
    "node_id": "id of a task or node of that run, one token",
    "verb": "the command's verb, one token",
    "service": "name of the service that owns the aggregate",
    "aggregate": "kind of aggregate",
    "id": "id of the aggregate, one token",
    "model_id": "id of a model; it may hold dots and takes the rest of the subject",
    "role": "name of a role, one token",
    "tool": "name of a tool: fs, shell, git, http, docker or lua",
    "instance": "one process of a service",
    "stream": "name of the stream the message came from",
}

_TASK = {"run_id": "{run_id}", "node_id": "{node_id}"}
_ANSWERS: Final = (llm.LlmAnswer, llm.LlmError)
_REQUEST_EXAMPLE: Final = (
    '{"run_id":"run-123","node_id":"task-1","corr_id":"c1","model_id":"smollm2",'
    '"input":{"messages":[{"role":"user","content":"Hello"}]},"params":{"stream":true,"max_tokens":64}}'
)
_ANSWER_EXAMPLE: Final = (
    '{"run_id":"run-123","node_id":"task-1","corr_id":"c1","model_id":"smollm2","model_used":"smollm2",'
    '"output":"Hello!","tool_calls":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11},'
    '"cost_usd_micros":0,"finish_reason":"stop","latency_ms":180.5}'
)
_TOKEN_EXAMPLE: Final = '{"chunk":"Hel","seq":1,"done":false}'


def members(union: UnionType) -> tuple[Any, ...]:
    """The structs of a union, in the order they are written."""
    return get_args(union)


CHANNELS: Final[tuple[ChannelSpec, ...]] = (
    ChannelSpec(
        name="llmRequest",
        address=f"{LLM_REQUEST_EDGE}.{{model_id}}",
        messages=(llm.LlmRequest,),
        kind="request",
        reply=_ANSWERS,
        publishers="anybody",
        consumers="llm-worker (queue group)",
        meaning="public edge: ask a model; the first reply is the answer",
        example=_REQUEST_EXAMPLE,
    ),
    ChannelSpec(
        name="llmLegacyRequest",
        address=LLM_LEGACY,
        messages=(llm.LegacyLlmRequest,),
        kind="request",
        reply=_ANSWERS,
        publishers="anybody",
        consumers="llm-worker (queue group)",
        meaning="public edge: the old path; the model stands in the body",
        example='{"model":"smollm2","messages":[{"role":"user","content":"Hello"}]}',
    ),
    ChannelSpec(
        name="llmResponse",
        address=f"{LLM_RESPONSE_EDGE}.{{run_id}}.{{node_id}}",
        messages=_ANSWERS,
        publishers="the broker (republished from the journal)",
        consumers="anybody",
        meaning="public edge: final answers, after they are stored",
        example=_ANSWER_EXAMPLE,
    ),
    ChannelSpec(
        name="llmTokens",
        address=f"{LLM_TOKENS_EDGE}.{{run_id}}.{{node_id}}",
        messages=(llm.LlmToken,),
        publishers="the broker (republished)",
        consumers="anybody",
        meaning="public edge: tokens as they come, seq from 1; the last one is empty and done",
        example=_TOKEN_EXAMPLE,
    ),
    ChannelSpec(
        name="llmHealth",
        address=LLM_HEALTH,
        messages=(llm.LlmHealth,),
        publishers="llm-worker",
        consumers="executor, anybody",
        meaning="public edge: heartbeat, every 30 s and at start and stop",
        example='{"worker_id":"w1","at":"2026-11-20T17:00:00.000Z","status":"up","models":["smollm2"],"in_flight":0}',
    ),
    ChannelSpec(
        name="llmRequestStored",
        address=llm_request("{model_id}"),
        messages=(llm.LlmRequest,),
        stream=streams.LLM_REQUESTS,
        publishers="executor, llm-worker, batch users",
        consumers="llm-worker",
        meaning="durable request; acknowledged means accepted; Nats-Msg-Id is the corr_id",
        example=_REQUEST_EXAMPLE,
    ),
    ChannelSpec(
        name="llmCancel",
        address=LLM_CANCEL,
        messages=(requests.CorrRef,),
        publishers="llm-worker, executor",
        consumers="every llm-worker",
        meaning="stop this call wherever it runs; the worker that runs it replies",
        example='{"corr_id":"c1"}',
    ),
    ChannelSpec(
        name="llmClaim",
        address=LLM_CLAIM,
        messages=(llm.LlmClaim,),
        publishers="llm-worker",
        consumers="every llm-worker",
        meaning="is this call under way anywhere? the worker that has it replies; silence means no",
        example='{"corr_id":"c1","worker_id":"llm-worker-1"}',
    ),
    ChannelSpec(
        name="llmResponseStored",
        address=llm_response(**_TASK),
        messages=_ANSWERS,
        stream=streams.LLM_RESPONSES,
        publishers="llm-worker",
        consumers="executor, llm-worker",
        meaning="the journal: each corr_id is answered, and paid, once",
        example=_ANSWER_EXAMPLE,
    ),
    ChannelSpec(
        name="llmTokensStored",
        address=llm_tokens(**_TASK),
        messages=(llm.LlmToken,),
        stream=streams.LLM_TOKENS,
        publishers="llm-worker",
        consumers="console, anybody",
        meaning="tokens, kept 15 minutes to resume from a seq",
        example=_TOKEN_EXAMPLE,
    ),
    ChannelSpec(
        name="epicCommits",
        address=events("planner", "epic", "{epic_id}"),
        messages=members(epic.EpicEvent),
        kind="commit",
        stream=streams.EVENTS_PLANNER,
        publishers="planner",
        consumers="planner (projections), anybody",
        meaning="everything that ever happened to one epic",
    ),
    ChannelSpec(
        name="strategyCommits",
        address=events("planner", "strategy", "{name}"),
        messages=members(strategy.StrategyEvent),
        kind="commit",
        stream=streams.EVENTS_PLANNER,
        publishers="planner",
        consumers="planner, executor (projections), anybody",
        meaning="every version of one strategy",
    ),
    ChannelSpec(
        name="runCommits",
        address=events("executor", "run", "{run_id}"),
        messages=members(run.RunEvent),
        kind="commit",
        stream=streams.EVENTS_EXECUTOR,
        publishers="executor",
        consumers="planner (projections), console, anybody",
        meaning="everything that ever happened in one run; replay folds exactly this",
    ),
    ChannelSpec(
        name="toolCall",
        address=tool_call("{role}", "{tool}"),
        messages=(policy.ToolCall,),
        kind="request",
        publishers="executor, anybody who may publish to this role",
        consumers="policy-gateway (queue group)",
        meaning="one tool call; answered in the envelope of requests, to an inbox",
        example='{"args":{"cmd":["mix","test"]},"opts":{"timeout":60000},'
        '"task":{"run_id":"r1","task_id":"a","attempt":1,"call":1}}',
    ),
    ChannelSpec(
        name="toolCallOfTask",
        address=tool_call_of_task("{role}", "{tool}"),
        messages=(policy.ToolCall,),
        kind="request",
        publishers="executor",
        consumers="policy-gateway (queue group)",
        meaning="one tool call that must name its task: calls of admin tasks, whose plain subject is for people only",
        example='{"args":{"cmd":["push"]},"task":{"run_id":"r1","task_id":"deploy","attempt":1,"call":1}}',
    ),
    ChannelSpec(
        name="callOwner",
        address=tool_owner("{instance}"),
        messages=(policy.CallAsk,),
        kind="request",
        reply=(policy.CallStanding,),
        publishers="policy-gateway",
        consumers="one policy-gateway",
        meaning="is this call under way with you? Nobody answers for a gateway that is dead",
        example='{"id":"0f6f1c7cf8f2f7b1","wait_s":5.0}',
    ),
    ChannelSpec(
        name="policyCommits",
        address=events("policy-gateway", "policy", policy.POLICY_ID),
        messages=(policy.PolicyStored,),
        kind="commit",
        stream=streams.EVENTS_POLICY_GATEWAY,
        publishers="policy-gateway",
        consumers="policy-gateway, anybody",
        meaning="every version of the policy",
    ),
    ChannelSpec(
        name="auditCommits",
        address=events("policy-gateway", "audit", policy.AUDIT_ID),
        messages=members(policy.AuditEvent),
        kind="commit",
        stream=streams.EVENTS_POLICY_GATEWAY,
        publishers="policy-gateway",
        consumers="anybody",
        meaning="every decision and its end, chained and signed",
    ),
    ChannelSpec(
        name="callCommits",
        address=events("policy-gateway", "call", "{id}"),
        messages=members(policy.CallEvent),
        kind="commit",
        stream=streams.TOOL_CALLS,
        publishers="policy-gateway",
        consumers="policy-gateway",
        meaning="one call of a task: who took it, and its answer",
    ),
    ChannelSpec(
        name="runCommands",
        address=command("executor", "run", "{run_id}", "{verb}"),
        messages=members(run.RunCommand),
        stream=streams.COMMANDS,
        publishers="planner, llm-worker, console, executor",
        consumers="executor (one consumer per partition)",
        meaning="durable mailbox of a run; stored under htdag.v1.in.<partition>.…",
        example='{"type":"run.cancel.v1","reason":"not needed"}',
    ),
    ChannelSpec(
        name="userCommits",
        address=events("identity", "user", "{user_id}"),
        messages=members(identity.UserEvent),
        kind="commit",
        stream=streams.EVENTS_IDENTITY,
        publishers="identity",
        consumers="identity, channels that notify people (user.notified.v1)",
        meaning="everything that ever happened to one account: attempts with step and verdict, locks, resets",
    ),
    ChannelSpec(
        name="shadowCommits",
        address=events("identity", "shadow", "{bucket}"),
        messages=members(identity.UserEvent),
        kind="commit",
        stream=streams.IDENTITY_SHADOWS,
        publishers="identity",
        consumers="identity",
        meaning="attempts on names that nobody has, so that they are limited like any other",
    ),
    ChannelSpec(
        name="approvalCommits",
        address=events("identity", "approval", "{approval_id}"),
        messages=members(approval.ApprovalEvent),
        kind="commit",
        stream=streams.EVENTS_IDENTITY,
        publishers="identity",
        consumers="identity (projection), console, anybody",
        meaning="everything that ever happened to one gate: the request, who answered, with which step and digest",
    ),
    ChannelSpec(
        name="approvalCommands",
        address=command("identity", "approval", "{approval_id}", "{verb}"),
        messages=members(approval.ApprovalMessage),
        stream=streams.COMMANDS,
        publishers="executor",
        consumers="identity",
        meaning="durable mailbox of a gate: verbs request and withdraw",
        example='{"type":"approval.request.v1","run_id":"r1","task_id":"deploy","title":"deploy",'
        '"digest":"b9828f36474acdfa8cedd5afce06cbbe15d8f2ac1197c438a9e7fa5c11d7ccc8","action":{"cmd":["deploy.sh"]}}',
    ),
    ChannelSpec(
        name="approvalAnswers",
        address=command("executor", "run", "{run_id}", "approval"),
        messages=(approval.TakeApproval,),
        stream=streams.COMMANDS,
        publishers="identity",
        consumers="executor",
        meaning="what became of a gate, in the durable mailbox of its run; Nats-Msg-Id approval:<id>:<outcome>",
    ),
    ChannelSpec(
        name="conversations",
        address=conversation("{session}"),
        messages=(),
        stream=streams.CONVERSATIONS,
        publishers="identity",
        consumers="identity",
        meaning="a conversation between two turns: which account and which gates; private, forgotten after 10 minutes",
    ),
    ChannelSpec(
        name="timersArmed",
        address=timer_armed("{service}", "{aggregate}", "{id}"),
        messages=(),
        stream=streams.TIMERS,
        publishers="executor, planner",
        consumers="the broker (message schedules)",
        meaning="the one armed timer of an aggregate; publishing again moves it",
    ),
    ChannelSpec(
        name="timersFired",
        address=timer_fired("{service}", "{aggregate}", "{id}"),
        messages=(),
        stream=streams.TIMERS,
        publishers="the broker (message schedules)",
        consumers="executor, planner",
        meaning="a timer is due; its body is empty, the owner judges its own deadlines",
    ),
    ChannelSpec(
        name="snapshots",
        address=snapshot("{service}", "{aggregate}", "{id}"),
        messages=(),
        stream=streams.SNAPSHOTS,
        publishers="executor",
        consumers="executor",
        meaning="newest folded state of an aggregate; private, losing it loses nothing",
    ),
    ChannelSpec(
        name="deadLetters",
        address=dead_letter("{stream}"),
        messages=(),
        stream=streams.DEAD_LETTERS,
        publishers="every service",
        consumers="people (`htdag bus dlq`)",
        meaning="the message as it was, its reason in the header Htdag-Reason",
    ),
)
