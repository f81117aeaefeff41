"""The small model inside this process: llama.cpp on a loopback port with a key of its own, spoken to like any other.

The weights are loaded at the first call (or at start, when configured so), in a thread: it takes about half a second.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from services.llm_worker.config import Config
from services.llm_worker.models import LOCAL, Resolved
from services.llm_worker.providers.grammar import fits
from services.llm_worker.providers.openai import OpenAiProvider
from services.llm_worker.providers.protocol import Call, Piece
from services.runtime import weights

LOAD_TIMEOUT_S: Final = 120.0
BATCH_TOKENS: Final = 256
"""So much of a prompt is read at once. The server hears a cancel between batches only: it is deaf for one at most."""
OWN_TROUBLE: Final = ("compute", "memory", "decode", "slot")
"""What the server says when it is not the request that fails it."""


class EmbeddedProvider:
    """One llama.cpp server, started once."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._key = secrets.token_urlsafe(16)
        self._client = OpenAiProvider(lambda _: self._key, "embedded")
        self._loading: asyncio.Task[Any] | None = None
        self._base_url = ""

    def missing(self, resolved: Resolved) -> str:
        """The program and the weights must be installed."""
        if find_spec("xllamacpp") is None:
            return "xllamacpp is not installed"
        try:
            weights.find(LOCAL, self._config.local_model)
        except Rejected as error:
            return error.message
        return ""

    async def load(self) -> str:
        """Load the weights unless they are loaded, and return the server's URL.

        Raises Rejected("provider_missing" | "model_missing").
        """
        if not self._base_url:
            if self._loading is None:
                self._loading = asyncio.create_task(self._load())
            # Whoever waits may give up. The loading goes on for the next one: a server that is let go while it starts
            # freezes this whole process.
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                server = await asyncio.shield(self._loading)
            self._base_url = f"{server.listening_address}/v1"
        return self._base_url

    async def _load(self) -> Any:
        try:
            path = weights.find(LOCAL, self._config.local_model)
            return await asyncio.to_thread(_serve, str(path), self._key, self._config)
        except Exception:  # the next call tries again
            self._loading = None
            raise

    async def close(self) -> None:
        """Close the connections to it and let the server go."""
        await self._client.close()
        loading, self._loading, self._base_url = self._loading, None, ""
        if loading is not None:
            await asyncio.wait([loading], timeout=LOAD_TIMEOUT_S)

    async def stream(self, call: Call) -> AsyncGenerator[Piece, None]:
        """The answer as it comes."""
        url = await self.load()
        config = msgspec.structs.replace(call.resolved.config, base_url=url, model=LOCAL)
        local = _without_large_grammar(call)._replace(resolved=call.resolved._replace(config=config))
        try:
            async for piece in self._client.stream(local):
                yield piece
        except Rejected as error:
            if error.code == "provider_rejected" and "context size" in str(error.detail.get("detail")):
                most = self._config.embedded_context_tokens // self._config.embedded_slots
                text = f"the conversation is longer than the {most} tokens of the model's context"
                raise Rejected("too_large", text, provider="embedded", max=most, hint="say it shorter") from error
            if _refused(error):
                raise Rejected("provider_rejected", **error.detail) from error
            raise


def _refused(error: Rejected) -> bool:
    """Whether the request is what is wrong. The server says 500 of that, too, and the model is well all the same."""
    said = str(error.detail.get("detail")).lower()
    own = error.code == "provider_error" and error.detail.get("status") == 500
    return own and not any(word in said for word in OWN_TROUBLE)


def _without_large_grammar(call: Call) -> Call:
    schema = call.request.params.response_schema
    if schema is None or fits(schema):
        return call
    params = msgspec.structs.replace(call.request.params, response_schema=None)
    return call._replace(request=msgspec.structs.replace(call.request, params=params))


def _serve(path: str, key: str, config: Config) -> Any:
    try:
        xllamacpp: Any = import_module("xllamacpp")  # compiled: it has no types
    except ImportError as error:
        raise Rejected("provider_missing", "xllamacpp is not installed", provider="embedded") from error
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.api_keys, params.ui, params.endpoint_slots = [key], False, False
    params.model_alias = {LOCAL}
    # The context is divided by the slots; the prompt cache in memory would grow without a bound of ours.
    params.n_ctx, params.n_parallel = config.embedded_context_tokens, config.embedded_slots
    params.n_batch = params.n_ubatch = BATCH_TOKENS
    params.cache_ram_mib = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = config.embedded_threads
    params.verbosity = -1
    try:
        return xllamacpp.Server(params)
    except Exception as error:  # the binding raises its own, undocumented ones
        raise Rejected("model_missing", "the weights cannot be loaded", path_ends=path[-40:]) from error
