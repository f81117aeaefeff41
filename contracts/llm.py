"""LLM requests, answers, tokens and heartbeats: the public edge of llm-worker, frozen as version 1.

These four are spoken by people and by foreign languages, so they carry no type tag: the subject says what they are.
"""

from typing import Any, Final, Literal

import msgspec

from contracts.limits import LLM_OUTPUT_TOKENS_DEFAULT, LLM_TEMPERATURE_DEFAULT, LLM_TIMEOUT_DEFAULT_MS

HEADER_ANSWER_TO: Final = "Htdag-Answer-To"
"""On a durable request: the mailbox subject of a run that takes the answer as `run.answer.v1`."""
HEADER_DEADLINE: Final = "Htdag-Deadline"
"""On a durable request: UTC epoch milliseconds after which nobody wants the answer; the call is not begun then."""
HEADER_MODEL: Final = "Htdag-Model"
"""On a journaled answer: the model that answered."""
HEADER_OUTCOME: Final = "Htdag-Outcome"
"""On a journaled answer: `ok`, or the code of the error."""
HEADER_REQUEST: Final = "Htdag-Request"
"""On a journaled answer: the stream sequence of the durable request it answers."""


class LlmParams(msgspec.Struct, frozen=True, omit_defaults=True):
    """Parameters of one call. `timeout_ms` bounds the call at the provider, from the moment it has a slot there.

    `complexity` guides `auto`; `mock` commands the mock models, like what stands behind `mock:` in a model id.
    `allow_unpriced` lets a model without a known price answer although money is limited: only its tokens are counted.
    """

    stream: bool = False
    temperature: float = LLM_TEMPERATURE_DEFAULT
    max_tokens: int = LLM_OUTPUT_TOKENS_DEFAULT
    timeout_ms: int = LLM_TIMEOUT_DEFAULT_MS
    seed: int | None = None
    top_p: float | None = None
    stop: list[str] | None = None
    response_schema: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    complexity: float | None = None
    mock: dict[str, Any] | None = None
    allow_unpriced: bool = False


class LlmInput(msgspec.Struct, frozen=True, omit_defaults=True):
    """The conversation: at least one `{"role": …, "content": …}`.

    After tool calls it goes on with the assistant's message, which repeats its `tool_calls`, and one
    `{"role": "tool", "tool_call_id": …, "content": …}` for each of them.
    """

    messages: list[dict[str, Any]]
    type: str = "chat"


class LlmRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One completion request. The same `corr_id` is the same paid call; without one a new id is given."""

    input: LlmInput
    run_id: str = ""
    node_id: str = ""
    corr_id: str = ""
    model_id: str = ""
    params: LlmParams = LlmParams()


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


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one call, as the provider counted them. `total_tokens` is the sum of the other two."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class LlmAnswer(msgspec.Struct, frozen=True):
    """The final answer: first thing a caller's inbox gets, and one message of the journal.

    `model_id` is what was asked for, `model_used` what answered. `cost_usd_micros` is None when the price is unknown.
    `tool_calls` are `{"id", "name", "arguments": {…}}`, whatever the provider's own shape is.
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


class LlmError(msgspec.Struct, frozen=True):
    """The final answer of a call that failed."""

    run_id: str
    node_id: str
    corr_id: str
    model_id: str
    error: dict[str, Any]


class LlmToken(msgspec.Struct, frozen=True):
    """One piece of a streamed answer; `seq` counts from 1 without gap, the last has an empty chunk and `done`."""

    chunk: str
    seq: int
    done: bool


class LlmClaim(msgspec.Struct, frozen=True):
    """The question of one worker to all others, before a call that may be under way already: does anybody have it?"""

    corr_id: str
    worker_id: str


class LlmHealth(msgspec.Struct, frozen=True):
    """Heartbeat of a worker on `llm.health`, every 30 s and at start and stop."""

    worker_id: str
    at: str
    status: Literal["up", "draining", "down"]
    models: list[str]
    in_flight: int


class ModelView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model of the table: what it resolves to and whether it can answer now."""

    id: str
    provider: str
    resolves_to: str = ""
    note: str = ""
    available: bool = True
    price_in_usd_per_mtok: float | None = None
    price_out_usd_per_mtok: float | None = None


class WorkerView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A worker of the pool as its heartbeats show it; `dead` after 3 missed beats."""

    worker_id: str
    status: Literal["up", "draining", "down", "dead"]
    last_beat_at: str
    models: list[str] = []
    in_flight: int = 0
