"""LLM requests, answers, tokens and heartbeats: the public edge of llm-worker, frozen as version 1.

These four are spoken by people and by foreign languages, so they carry no type tag: the subject says what they are.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from contracts.limits import (
    HEARTBEAT_INTERVAL_S,
    LLM_OUTPUT_TOKENS_DEFAULT,
    LLM_TEMPERATURE_DEFAULT,
    LLM_TIMEOUT_DEFAULT_MS,
)

HEADER_ANSWER_TO: Final = "Htdag-Answer-To"
"""On a durable request: the mailbox subject of a run that takes the answer as `run.answer.v1`."""
HEADER_DEADLINE: Final = "Htdag-Deadline"
"""On a request, durable or of the edge: UTC epoch milliseconds after which the call is not begun any more."""
HEADER_MODEL: Final = "Htdag-Model"
"""On a journaled answer: the model that answered."""
HEADER_OUTCOME: Final = "Htdag-Outcome"
"""On a journaled answer: `ok`, or the code of the error."""
HEADER_REQUEST: Final = "Htdag-Request"
"""On a journaled answer: the stream sequence of the durable request it answers."""


def shown(default: Any) -> Any:
    """A default that is written out: in what is stored nobody has to know which one was meant."""
    return msgspec.field(default_factory=lambda: default)


class LlmParams(msgspec.Struct, frozen=True, omit_defaults=True):
    """Parameters of one call. `timeout_ms` bounds the call at the provider, from the moment it has a slot there.

    With `cache`, the recorded answer of the same question to the same model will do: it costs nothing, and
    no limit or budget keeps it back.
    `complexity` guides `auto`; `mock` commands the mock models, like what stands behind `mock:` in a model id.
    `allow_unpriced` lets a model without a known price answer although money is limited: only its tokens are counted.
    `tools` are `{"name", "description", "parameters"}` each, or `{"type": "function", "function"}` around that.
    """

    stream: bool = shown(False)
    temperature: float = shown(LLM_TEMPERATURE_DEFAULT)
    max_tokens: int = shown(LLM_OUTPUT_TOKENS_DEFAULT)
    timeout_ms: int = shown(LLM_TIMEOUT_DEFAULT_MS)
    seed: int | None = None
    top_p: float | None = None
    stop: list[str] | None = None
    response_schema: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    complexity: float | None = None
    mock: dict[str, Any] | None = None
    cache: bool = False
    allow_unpriced: bool = False


class LlmInput(msgspec.Struct, frozen=True, omit_defaults=True):
    """The conversation: at least one `{"role": …, "content": …}`.

    After tool calls it goes on with the assistant's message, which repeats its `tool_calls`, and one
    `{"role": "tool", "tool_call_id": …, "content": …}` for each of them.
    """

    messages: list[dict[str, Any]]
    type: str = "chat"


class LlmRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One completion request. The same `corr_id` is the same paid call; without one a new id is given.

    `attempt` says which attempt of its node asks, and comes back with the answer. It makes no call another one: asked
    again under the same `corr_id` the recorded answer comes byte for byte, with the attempt that was answered then.
    """

    input: LlmInput
    run_id: str = ""
    node_id: str = ""
    corr_id: str = ""
    model_id: str = ""
    params: LlmParams = shown(LlmParams())
    replay_of: str = ""
    attempt: int = 1


class LegacyLlmRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The old path `ai.llm.request`: model and messages, everything else optional."""

    messages: list[dict[str, Any]]
    model: str = ""
    run_id: str = ""
    node_id: str = ""
    corr_id: str = ""
    stream: bool = False
    temperature: float = LLM_TEMPERATURE_DEFAULT
    max_tokens: int = LLM_OUTPUT_TOKENS_DEFAULT
    timeout_ms: int = LLM_TIMEOUT_DEFAULT_MS
    attempt: int = 1


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one call, as the provider counted them. `total_tokens` is the sum of the other two."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Disputed(msgspec.Struct, frozen=True):
    """What a provider reported beyond the worst case of a call: told, and not spent. `usd_micros` None: no price."""

    tokens: int
    usd_micros: int | None = None


class OutputRef(msgspec.Struct, frozen=True):
    """Where all of an output is that was too big to travel: an object store of the broker (`nats object get`)."""

    bucket: str
    name: str
    bytes: int
    sha256: str


class LlmAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The final answer: first thing a caller's inbox gets, and one message of the journal.

    `model_id` is what was asked for, `model_used` what answered. `cost_usd_micros` is None when the price is unknown.
    `tool_calls` are `{"id", "name", "arguments": {…}}`, whatever the provider's own shape is.
    With `output_ref`, `output` is only the beginning of it. `cached` says that the answer of the call `cached_from` was
    taken; `replay_of` names the call that this one repeats, at its own price. `disputed` is what the provider reported
    and could not have used: it stands in no sum. `attempt` is that of the request that was called for. `abandoned_*` is
    what askings of the same call may have cost whose answer nobody heard, because their worker was gone: a part of the
    cost, and no part of `usage`.
    """

    run_id: str
    node_id: str
    corr_id: str
    model_id: str
    model_used: str
    output: str
    tool_calls: list[Any]
    usage: Usage
    cost_usd_micros: int | None
    finish_reason: str
    latency_ms: float
    output_ref: OutputRef | None = None
    cached: bool = False
    cached_from: str = ""
    replay_of: str = ""
    disputed: Disputed | None = None
    attempt: int = shown(1)
    abandoned_tokens: int = 0
    abandoned_usd_micros: int | None = 0


class LlmUnjudged(msgspec.Struct, frozen=True, omit_defaults=True):
    """An answer as its provider gave it, before it is paid and judged: from then on nobody has to ask again.

    `request_seq` is where the request stands that it was asked for, `estimated` whether its tokens are only a guess.
    """

    answer: LlmAnswer
    request_seq: int
    estimated: bool = False


class LlmAnswerPlace(msgspec.Struct, frozen=True):
    """Where the journal has the answer of a question: the call that it was asked by."""

    run_id: str
    node_id: str
    corr_id: str


class LlmError(msgspec.Struct, frozen=True):
    """The final answer of a call that failed; `error` has `usage` and the cost when it was paid all the same."""

    run_id: str
    node_id: str
    corr_id: str
    model_id: str
    error: dict[str, Any]
    attempt: int = 1


class LlmAsked(msgspec.Struct, frozen=True):
    """A call that is stored to be made: its answer comes into the journal, and to `llm.resp` of its run and node."""

    run_id: str
    node_id: str
    corr_id: str
    model_id: str
    replay_of: str


class LlmToken(msgspec.Struct, frozen=True):
    """One piece of a streamed answer; `seq` counts from 1 without gap, the last has an empty chunk and `done`."""

    chunk: str
    seq: int
    done: bool


class LlmClaim(msgspec.Struct, frozen=True):
    """The question of one worker to all others, before a call that may be under way already: does anybody have it?"""

    corr_id: str
    worker_id: str


class LlmHealth(msgspec.Struct, frozen=True, omit_defaults=True):
    """Heartbeat of a worker on `llm.health`, every 30 s and at start and stop.

    Of the calls `in_flight`, `waiting` have no place at their model yet; the oldest of them waits for `wait_ms`.
    `limited` have one and wait for a limit of all workers together: more workers would not help them.
    The next beat comes after `every_s` at the latest.
    """

    worker_id: str
    at: str
    status: Literal["up", "draining", "down"]
    models: list[str]
    in_flight: int
    waiting: int = 0
    wait_ms: int = 0
    limited: int = 0
    every_s: float = HEARTBEAT_INTERVAL_S


class LlmDrain(msgspec.Struct, frozen=True):
    """The wish that one worker takes no more calls, and ends those it has; somebody else stops it then."""

    worker_id: str


class ModelView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model of the table: what it resolves to and whether it can answer now."""

    id: str
    provider: str
    resolves_to: str = ""
    note: str = ""
    available: bool = True
    price_in_usd_per_mtok: float | None = None
    price_out_usd_per_mtok: float | None = None
    breaker: Literal["closed", "half_open", "open"] = "closed"
    retry_after_ms: int = 0
    fallback: list[str] = []


class WorkerView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A worker of the pool; it is `dead` after three missed beats, and all workers agree on that.

    The load is what it says now; of one that is `silent`, what its last beat said.
    """

    worker_id: str
    status: Literal["up", "draining", "down", "dead"]
    last_beat_at: str
    models: list[str] = []
    in_flight: int = 0
    waiting: int = 0
    wait_ms: int = 0
    limited: int = 0
    silent: bool = False


def was_paid(answer: Mapping[str, Any]) -> bool:
    """Whether a call was paid, by its answer: also one that failed after its provider had begun to answer."""
    error = answer.get("error")
    return error is None or "usage" in error
