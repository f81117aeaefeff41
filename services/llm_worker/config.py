"""Configuration of llm-worker: its model table, its keys and its bounds. Section `llm_worker` of `htdag.toml`."""

import os
from typing import Annotated, Final, Literal

import msgspec

from contracts.limits import HEARTBEAT_INTERVAL_S, LLM_TIMEOUT_DEFAULT_MS
from services.llm_worker.ledger.limits import Count, Dollars, LimitsConfig, PerMinute
from services.runtime.config import Secret

SECTION: Final = "llm_worker"
AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
FairTime = Annotated[int, msgspec.Meta(ge=1, le=LLM_TIMEOUT_DEFAULT_MS)]
"""Milliseconds. A call that says nothing of its deadline always gives its model a fair time."""
Price = Annotated[float, msgspec.Meta(ge=0, le=1e6)]


class ModelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model of the table, `[llm_worker.models.<id>]`.

    `model` is the provider's own name for it; `api_key_env` names the variable that holds the key (never the key);
    it must end in _KEY, _TOKEN or _SECRET: by that it is kept from the other services (runtime/environment.py);
    prices are dollars per million tokens and win over the price table; `slots` bounds concurrent calls here;
    `usd_per_day`, `requests_per_minute` and `concurrent` limit it over all workers, 0 does not;
    `drop_params` names request parameters this model does not take; `argv` and `pass_env` are for the `cli` provider.
    In `argv`, `{model}` and `{max_tokens}` are filled in, and `{system_file}` with the path of a private file that
    holds the system prompt of the call; without it the system prompt comes on stdin, before the prompt.
    With the provider `nats`, whoever serves `model` on `htdag.v1.llm.serve.<model>` answers.
    `fallback` names the models that are asked instead, in this order, when this one fails or its breaker is open.
    `honours_idempotency_key` says that its provider bills the same `Idempotency-Key` once, however often it is asked:
    then nothing is charged for an asking whose worker died. Without a provider's written word leave it false.
    `breaker_fair_timeout_ms` is what `[llm_worker]` says of all models, for this one.
    """

    provider: Literal["embedded", "openai", "anthropic", "cli", "mock", "nats"]
    model: str = ""
    base_url: str = ""
    api_key_env: str = ""
    max_output_tokens: AtLeastOne | None = None
    price_in_usd_per_mtok: Price | None = None
    price_out_usd_per_mtok: Price | None = None
    slots: AtLeastOne | None = None
    drop_params: tuple[str, ...] = ()
    argv: tuple[str, ...] = ()
    pass_env: tuple[str, ...] = ()
    fallback: tuple[str, ...] = ()
    usd_per_day: Dollars = 0.0
    requests_per_minute: PerMinute = 0
    concurrent: Count = 0
    honours_idempotency_key: bool = False
    breaker_fair_timeout_ms: FairTime | None = None


def _known_as(*names: str) -> msgspec.Meta:
    return msgspec.Meta(extra={"env": names})


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything llm-worker can be told. Times carry their unit in the name.

    `local_model` is the path of a GGUF file that answers as `smollm2` instead of the shipped weights;
    `preload` loads the embedded model at start rather than at its first request. One thread and one slot suit so small
    a model beside other work: two threads on two busy cores fell from 45 to 3 tokens per second, and two slots brought
    no clear gain. Slots divide the context.

    At most `in_flight_max` calls run at once, and `waiting_max` requests are held at all. Of those,
    `waiting_per_model_max` may wait for the slots of one model; what is beyond goes back to the broker for a while, so
    that a slow model does not keep the others waiting.

    After `breaker_failures` failures in a row, over all workers, a model is left alone for `breaker_open_s`. A caller's
    deadline below `breaker_fair_timeout_ms` that passed is none of them (breaker/fair_time.py).
    """

    models: dict[str, ModelConfig] = {}
    aliases: dict[str, str] = {}
    limits: LimitsConfig = LimitsConfig()
    in_flight_max: AtLeastOne = 64
    waiting_max: AtLeastOne = 256
    waiting_per_model_max: AtLeastOne = 32
    queue_timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 600.0
    breaker_failures: AtLeastOne = 5
    breaker_open_s: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    breaker_fair_timeout_ms: FairTime = 1_000
    request_bytes_max: AtLeastOne = 4 << 20
    heartbeat_s: Annotated[float, msgspec.Meta(ge=1)] = HEARTBEAT_INTERVAL_S
    local_model: Annotated[str, _known_as("HTDAG_LOCAL_MODEL")] = ""
    preload: bool = False
    embedded_context_tokens: AtLeastOne = 4096
    embedded_slots: AtLeastOne = 1
    embedded_threads: AtLeastOne = 1
    embedded_output_tokens_max: AtLeastOne = 256
    openai_api_key: Annotated[Secret | None, _known_as("OPENAI_API_KEY")] = None
    openai_base_url: Annotated[str, _known_as("OPENAI_BASE_URL")] = ""
    anthropic_api_key: Annotated[Secret | None, _known_as("ANTHROPIC_API_KEY")] = None
    anthropic_base_url: Annotated[str, _known_as("ANTHROPIC_BASE_URL")] = ""
    gemini_api_key: Annotated[Secret | None, _known_as("GEMINI_API_KEY")] = None


def check(config: Config) -> None:
    """Refuse with bad_config a model or alias that can never answer: a name that is none, or that stands for none."""
    from services.llm_worker.models import ModelTable

    ModelTable(config, os.environ).check()
