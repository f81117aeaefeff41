"""Any model behind an OpenAI-compatible URL: OpenAI, Gemini's compatible URL, Ollama, vLLM, llama.cpp, OpenRouter, ….

The SDK is imported at the first call: it costs half a second and 25 MB. Its own retries are off: retrying is ours.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Final

from contracts.errors import Rejected
from services.llm_worker.models import Resolved
from services.llm_worker.providers.bounds import UNPACKED, bound_response, bound_wire, of_output
from services.llm_worker.providers.failures import SENSELESS, of_connection, of_status, of_stream
from services.llm_worker.providers.openai_chunks import Chunk, JoinedCalls, used
from services.llm_worker.providers.protocol import REFUSAL, Call, Delta, Finish, Piece, ToolCalls, Unseen
from services.llm_worker.providers.raw import fault_of, heard, once
from services.llm_worker.tool_calls import conversation

if TYPE_CHECKING:
    from openai import AsyncOpenAI

CONNECT_TIMEOUT_S: Final = 10.0
READ_TIMEOUT_S: Final = 600.0
NO_KEY: Final = "none"
OFFICIAL_HOST: Final = "api.openai.com"


class OpenAiProvider:
    """One client per base URL and key. `key_of` finds a model's key; `name` is whose failures they are."""

    def __init__(self, key_of: Callable[[Resolved], str], name: str = "openai") -> None:
        self._key_of, self._name = key_of, name
        self._clients: dict[tuple[str, str], AsyncOpenAI] = {}

    def missing(self, resolved: Resolved) -> str:
        """A model that names a key needs it. Somebody's own server that needs none is configured without a name."""
        named, key = resolved.config.api_key_env, self._key_of(resolved)
        return fault_of(key, named or "its key") if named or key else ""

    async def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.close()
        self._clients.clear()

    async def stream(self, call: Call) -> AsyncGenerator[Piece, None]:
        """The answer as it comes; a call without `stream` is streamed too, so that it can be stopped."""
        import openai

        bound_wire(call)
        config = call.resolved.config
        client = self._client(config.base_url, self._key_of(call.resolved) or NO_KEY)
        asked = client.chat.completions.with_streaming_response.create(**_arguments(call), extra_headers=once(call))
        try:
            async with heard(asked, openai.AsyncStream, Chunk) as chunks:
                async for piece in _pieces(chunks, self._name, call):
                    yield piece
        except openai.APITimeoutError as error:
            raise Rejected("timeout", "the provider did not answer in time", provider=self._name) from error
        except openai.APIStatusError as error:
            raise of_status(error.status_code, error.body, self._name, error.response.headers) from error
        except openai.APIConnectionError as error:
            raise of_connection(error, self._name) from error
        except openai.APIError as error:
            # Also what a stream says after it began: an error event has no status.
            raise of_stream(error.body or str(error), self._name) from error
        except SENSELESS as error:
            raise Rejected("provider_malformed", provider=self._name) from error

    def _client(self, base_url: str, key: str) -> "AsyncOpenAI":
        found = self._clients.get((base_url, key))
        if found is None:
            import httpx2
            import openai

            timeout = httpx2.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
            # Plain HTTP is a server near by: a fresh connection is cheap, a kept one may be closed under our hands.
            headers = {**UNPACKED, "Connection": "close"} if base_url.startswith("http://") else UNPACKED
            found = openai.AsyncOpenAI(
                base_url=base_url or None,
                api_key=key,
                max_retries=0,
                timeout=timeout,
                default_headers=headers,
                http_client=openai.DefaultAsyncHttpxClient(event_hooks={"response": [bound_response]}),
            )
            self._clients[base_url, key] = found
        return found


def _arguments(call: Call) -> dict[str, Any]:
    config, params = call.resolved.config, call.request.params
    official = not config.base_url or OFFICIAL_HOST in config.base_url
    arguments: dict[str, Any] = {
        "model": config.model or call.resolved.used,
        "messages": conversation(call.request.input.messages),
        # OpenAI's newer models refuse `max_tokens`, other servers do not know the new name.
        "max_completion_tokens" if official else "max_tokens": call.max_tokens,
        "temperature": params.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
        "seed": params.seed,
        "top_p": params.top_p,
        "stop": params.stop,
        "tools": params.tools,
    }
    if params.response_schema is not None:
        schema = {"name": "answer", "schema": params.response_schema, "strict": True}
        arguments["response_format"] = {"type": "json_schema", "json_schema": schema}
    return {name: value for name, value in arguments.items() if value is not None and name not in config.drop_params}


async def _pieces(chunks: AsyncIterator[Chunk], name: str, call: Call) -> AsyncIterator[Piece]:
    joined = JoinedCalls()
    kept = of_output(call)
    reason, model, refused = "", "", False
    async for chunk in chunks:
        model = chunk.model or model
        if chunk.usage is not None:
            yield used(chunk.usage)
        for choice in chunk.first():
            delta = choice.delta
            if delta.content:
                yield Delta(delta.content)
            if delta.refusal:
                refused = True
                yield Delta(delta.refusal)
            if delta.thought:
                kept.take(delta.thought)
                yield Unseen(delta.thought)
            for part in delta.tool_calls or ():
                kept.take(part.size)
                yield Unseen(part.size)
                joined.take(part)
            reason = choice.finish_reason or reason
    if joined.calls:
        yield ToolCalls(joined.calls)
    if not reason:
        raise Rejected("provider_malformed", "the provider's stream ended without an end", provider=name)
    yield Finish(REFUSAL if refused and reason == "stop" else reason, model)
