"""One call of a model as the GenAI conventions of OpenTelemetry tell it: its span, and its metrics.

All their names stand in this module and in `contracts.metrics`: the conventions are in development, and will rename.
What was asked and answered is in the journal; no span holds it.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

from contracts.errors import Rejected
from contracts.llm import LlmRequest
from services.llm_worker.models import Resolved
from services.llm_worker.providers.protocol import TokensUsed
from services.runtime import telemetry
from services.runtime.clock import Clock
from services.runtime.metrics import Metrics
from services.runtime.redaction import masked_tree

OPERATION: Final = "chat"
DURATION: Final = "gen_ai_client_operation_duration_seconds"
TOKENS: Final = "gen_ai_client_token_usage"
FIRST_CHUNK: Final = "gen_ai_client_operation_time_to_first_chunk_seconds"
PER_CHUNK: Final = "gen_ai_client_operation_time_per_output_chunk_seconds"
GEMINI_HOST: Final = "generativelanguage.googleapis.com"
ESTIMATED: Final = "htdag.usage.estimated"
METERS_MAX: Final = 1_000
_PORTS: Final = {"https": 443, "http": 80}


def provider_name(resolved: Resolved) -> str:
    """The provider by its name in the conventions, where it has one there."""
    config = resolved.config
    return "gcp.gemini" if GEMINI_HOST in config.base_url else config.provider


def attributes_of(request: LlmRequest, resolved: Resolved, model: str, max_tokens: int) -> dict[str, Any]:
    """What is known of a call before it begins."""
    params = request.params
    known: dict[str, Any] = {
        "gen_ai.operation.name": OPERATION,
        "gen_ai.provider.name": provider_name(resolved),
        "gen_ai.request.model": model,
        "gen_ai.request.max_tokens": max_tokens,
        "gen_ai.request.temperature": params.temperature,
        "gen_ai.request.top_p": params.top_p,
        "gen_ai.request.seed": params.seed,
        "gen_ai.request.stop_sequences": params.stop,
        "gen_ai.request.stream": params.stream or None,
        "gen_ai.output.type": "json" if params.response_schema is not None else "text",
        "gen_ai.conversation.id": request.run_id or None,
        "htdag.corr_id": request.corr_id,
        "htdag.node_id": request.node_id or None,
        **_server(resolved.config.base_url),
    }
    return {name: value for name, value in known.items() if value is not None}


def _server(base_url: str) -> dict[str, Any]:
    parts = urlsplit(base_url)
    if not parts.hostname:
        return {}
    return {"server.address": parts.hostname, "server.port": parts.port or _PORTS.get(parts.scheme, 443)}


class Meters:
    """The metrics of one model at one provider."""

    def __init__(self, metrics: Metrics, provider: str, model: str) -> None:
        self._metrics = metrics
        self._labels = labels = {
            "gen_ai_operation_name": OPERATION, "gen_ai_provider_name": provider, "gen_ai_request_model": model,
        }  # fmt: skip
        self.per_chunk = metrics.observer(PER_CHUNK, **labels)
        self.first_chunk = metrics.observer(FIRST_CHUNK, **labels)
        self.input = metrics.observer(TOKENS, **labels, gen_ai_token_type="input")
        self.output = metrics.observer(TOKENS, **labels, gen_ai_token_type="output")
        self._well = metrics.observer(DURATION, **labels, error_type="")

    def ended(self, error: str, seconds: float) -> None:
        """A call is over."""
        if error:
            self._metrics.observe(DURATION, seconds, **self._labels, error_type=error)
        else:
            self._well(seconds)


@lru_cache(maxsize=METERS_MAX)
def meters_of(metrics: Metrics, provider: str, model: str) -> Meters:
    """They are looked up once, not five times a call."""
    return Meters(metrics, provider, model)


class Inference:
    """One call while it runs."""

    def __init__(self, clock: Clock, meters: Meters, model: str, span: Any) -> None:
        self._clock, self._meters, self._model, self._span = clock, meters, model, span
        self._began_s = clock.monotonic_s()
        self._last_s = 0.0

    def chunk(self) -> None:
        """A piece of the output came."""
        now_s = self._clock.monotonic_s()
        if self._last_s:
            self._meters.per_chunk(now_s - self._last_s)
        else:
            self._meters.first_chunk(now_s - self._began_s)
            self._set("gen_ai.response.time_to_first_chunk", now_s - self._began_s)
        self._last_s = now_s

    def answered(self, reason: str, model: str) -> None:
        """The provider came to its end, and says which model it was."""
        self._set("gen_ai.response.model", model or self._model)
        self._set("gen_ai.response.finish_reasons", [reason])

    def used(self, used: TokensUsed, *, estimated: bool) -> None:
        """The tokens that are paid, also of a call that failed: spans add up to what the ledger counts of answers.

        What nobody counted is `estimated` as the ledger estimates it: the span says so, and the metrics, which are to
        hold what providers count, leave it out.
        """
        self._set("gen_ai.usage.input_tokens", used.prompt_tokens)
        self._set("gen_ai.usage.output_tokens", used.completion_tokens)
        if estimated:
            self._set(ESTIMATED, True)
            return
        self._meters.input(used.prompt_tokens)
        self._meters.output(used.completion_tokens)

    def ended(self, error: str) -> None:
        """It is over; `error` is the code of what went wrong, or empty."""
        if error:
            self._set("error.type", error)
            telemetry.mark_error(self._span, error)
        self._meters.ended(error, self._clock.monotonic_s() - self._began_s)

    def _set(self, name: str, value: Any) -> None:
        if self._span is not None:
            self._span.set_attribute(name, masked_tree(value))


@contextmanager
def inference(
    *,
    request: LlmRequest,
    resolved: Resolved,
    model: str,
    max_tokens: int,
    headers: Any,
    clock: Clock,
    metrics: Metrics,
    cut: Callable[[], str],
) -> Iterator[Inference]:
    """Work under the span of one call; whatever ends it is told. `cut` says why it was stopped: timeout, cancelled."""
    about = attributes_of(request, resolved, model, max_tokens) if telemetry.recording() else None
    kind: telemetry.SpanKind = "internal" if resolved.config.provider == "embedded" else "client"
    with telemetry.span(f"{OPERATION} {model}", kind=kind, headers=headers, attributes=about) as span:
        told = Inference(clock, meters_of(metrics, provider_name(resolved), model), model, span)
        try:
            yield told
        except Rejected as error:
            told.ended(error.code)
            raise
        except asyncio.CancelledError:
            told.ended(cut())
            raise
        except Exception:
            told.ended("internal")
            raise
        told.ended("")
