"""What is said to, by and between llm-workers: the public edge, calls, tokens, the pool and its log, as data."""

from typing import Final

from contracts import breaker, foreign, ledger, llm, requests, streams
from contracts.channel import ChannelSpec, members
from contracts.subjects import (
    LLM_CANCEL,
    LLM_CLAIM,
    LLM_DRAIN,
    LLM_HEALTH,
    LLM_LEGACY,
    LLM_QUEUE,
    LLM_REQUEST_EDGE,
    LLM_RESPONSE_EDGE,
    LLM_ROLL,
    LLM_TOKENS_EDGE,
    LLM_WITHDRAWN,
    events,
    llm_cache,
    llm_request,
    llm_response,
    llm_serve,
    llm_served,
    llm_stop,
    llm_tokens,
    llm_worker,
)

_TASK = {"run_id": "{run_id}", "node_id": "{node_id}"}
_ANSWERS: Final = (llm.LlmAnswer, llm.LlmError)
_REQUEST_EXAMPLE: Final = (
    '{"run_id":"run-123","node_id":"task-1","corr_id":"c1","model_id":"smollm2",'
    '"input":{"messages":[{"role":"user","content":"Hello"}]},"params":{"stream":true,"max_tokens":64}}'
)
_ANSWER_EXAMPLE: Final = (
    '{"run_id":"run-123","node_id":"task-1","corr_id":"c1","model_id":"smollm2","model_used":"smollm2",'
    '"output":"Hello!","tool_calls":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11},'
    '"cost_usd_micros":0,"finish_reason":"stop","latency_ms":180.5,"attempt":1}'
)
_HEALTH_EXAMPLE: Final = (
    '{"worker_id":"w1","at":"2026-11-20T17:00:00.000Z","status":"up","models":["smollm2"],"in_flight":0}'
)
_TOKEN_EXAMPLE: Final = '{"chunk":"Hel","seq":1,"done":false}'

LLM_CHANNELS: Final[tuple[ChannelSpec, ...]] = (
    ChannelSpec(
        name="llmRequest",
        address=f"{LLM_REQUEST_EDGE}.{{model_id}}",
        messages=(llm.LlmRequest,),
        kind="request",
        reply=_ANSWERS,
        publishers="anybody",
        consumers="llm-worker (queue group)",
        meaning="public edge: ask a model; the first reply is the answer. Nothing keeps it until a worker stored it: "
        "while none is up a request hears `no responders`, and a plain publish is lost; what must wait for a worker "
        "goes to the stored subject",
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
        example=_HEALTH_EXAMPLE,
    ),
    ChannelSpec(
        name="llmWorkerStored",
        address=llm_worker("{instance}"),
        messages=(llm.LlmHealth,),
        stream=streams.LLM_WORKERS,
        publishers="llm-worker",
        consumers="llm-worker",
        meaning="the newest heartbeat of each worker, for workers that come later",
        example=_HEALTH_EXAMPLE,
    ),
    ChannelSpec(
        name="llmCache",
        address=llm_cache("{digest}"),
        messages=(llm.LlmAnswerPlace,),
        stream=streams.LLM_CACHE,
        publishers="llm-worker",
        consumers="llm-worker",
        meaning="where the journal has the answer of a question, by the digest of model, conversation and parameters",
        example='{"run_id":"auth-1","node_id":"draft","corr_id":"c1"}',
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
        meaning="stop this call wherever it runs; the worker that has it replies whether it could",
        example='{"corr_id":"c1"}',
    ),
    ChannelSpec(
        name="llmWithdrawn",
        address=f"{LLM_WITHDRAWN}.{{digest}}",
        messages=(requests.CorrRef,),
        stream=streams.LLM_WITHDRAWALS,
        publishers="executor, llm-worker",
        consumers="llm-worker",
        meaning="nobody wants this call any more: kept when it is said, looked for by whoever takes the call over. "
        "By the first 32 digits of the SHA-256 of its corr_id",
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
        name="llmServe",
        address=llm_serve("{model_id}"),
        messages=(foreign.ForeignAsk,),
        kind="request",
        reply=(foreign.ForeignAnswer,),
        publishers="llm-worker",
        consumers="a foreign worker in any language (queue group)",
        meaning="one call of a model that a foreign worker serves; provider `nats` in the model table, or `nats/NAME`",
        example='{"corr_id":"c1","model":"echo","messages":[{"role":"user","content":"Hello"}],"max_tokens":64}',
    ),
    ChannelSpec(
        name="llmServed",
        address=llm_served("{instance}", "{call}"),
        messages=(foreign.ForeignAnswer, foreign.ForeignToken),
        publishers="a foreign worker",
        consumers="llm-worker",
        meaning="the reply subject of such a call; tokens, where they are wanted, go to the same with `-tokens` behind",
        example='{"output":"Hello","usage":{"prompt_tokens":2,"completion_tokens":1},"finish_reason":"stop"}',
    ),
    ChannelSpec(
        name="llmStop",
        address=llm_stop("{model_id}"),
        messages=(foreign.ForeignStop,),
        publishers="llm-worker",
        consumers="every foreign worker of the model",
        meaning="a call that nobody wants any more",
        example='{"corr_id":"c1"}',
    ),
    ChannelSpec(
        name="llmRoll",
        address=LLM_ROLL,
        messages=(),
        kind="request",
        reply=(llm.LlmHealth,),
        publishers="llm-worker, anybody",
        consumers="every llm-worker",
        meaning="who is there? every worker replies with its beat at once; the body is empty",
    ),
    ChannelSpec(
        name="llmDrain",
        address=LLM_DRAIN,
        messages=(llm.LlmDrain,),
        publishers="console, anybody",
        consumers="every llm-worker",
        meaning="this worker takes no more calls and ends those it has, however long they take",
        example='{"worker_id":"llm-worker-1"}',
    ),
    ChannelSpec(
        name="llmQueue",
        address=LLM_QUEUE,
        messages=(ledger.QueueAsk,),
        kind="request",
        reply=(ledger.QueueTold,),
        publishers="llm-worker",
        consumers="every llm-worker",
        meaning="how many calls wait at your limiter? Every worker replies",
        example='{"worker_id":"llm-worker-1"}',
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
        name="breakerCommits",
        address=events("llm-worker", "breaker", "{id}"),
        messages=members(breaker.BreakerEvent),
        kind="commit",
        stream=streams.EVENTS_LLM_WORKER,
        publishers="llm-worker",
        consumers="llm-worker, anybody",
        meaning="counted failures and transitions of one model's circuit breaker",
    ),
    ChannelSpec(
        name="ledgerCommits",
        address=events("llm-worker", "ledger", ledger.LEDGER_ID),
        messages=members(ledger.LedgerEvent),
        kind="commit",
        stream=streams.EVENTS_LLM_WORKER,
        publishers="llm-worker",
        consumers="llm-worker, planner, anybody",
        meaning="every LLM call that may begin, and what it cost",
    ),
)
