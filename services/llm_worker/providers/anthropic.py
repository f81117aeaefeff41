"""Anthropic's Messages API. Conversations, tools and answers are turned from and into OpenAI's shape.

The SDK is imported at the first call: it costs more than a second. Its own retries are off: retrying is ours.
"""

import json
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any, Final

from contracts.errors import Rejected
from services.llm_worker.models import Resolved
from services.llm_worker.providers.anthropic_events import ANSWER_TOOL, Answer, Event
from services.llm_worker.providers.bounds import UNPACKED, bound_response, bound_wire, of_output
from services.llm_worker.providers.failures import SENSELESS, of_connection, of_status, of_stream
from services.llm_worker.providers.protocol import Call, Piece
from services.llm_worker.providers.raw import fault_of, heard, once
from services.llm_worker.tool_calls import native

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

CONNECT_TIMEOUT_S: Final = 10.0
READ_TIMEOUT_S: Final = 600.0


class AnthropicProvider:
    """One client per base URL and key. `key_of` finds a model's key."""

    def __init__(self, key_of: Callable[[Resolved], str]) -> None:
        self._key_of = key_of
        self._clients: dict[tuple[str, str], AsyncAnthropic] = {}

    def missing(self, resolved: Resolved) -> str:
        """Every model needs its key."""
        return fault_of(self._key_of(resolved), resolved.config.api_key_env or "ANTHROPIC_API_KEY")

    async def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.close()
        self._clients.clear()

    async def stream(self, call: Call) -> AsyncGenerator[Piece, None]:
        """The answer as it comes."""
        import anthropic
        import httpx2

        bound_wire(call)
        client = self._client(call.resolved.config.base_url, self._key_of(call.resolved))
        structured = call.request.params.response_schema is not None
        chooses = structured and bool(call.request.params.tools)
        answer = Answer(structured=structured, chooses=chooses, kept=of_output(call))
        asked = client.messages.with_streaming_response.create(**arguments(call), stream=True, extra_headers=once(call))
        try:
            async with heard(asked, anthropic.AsyncStream, Event) as events:
                async for event in events:
                    for piece in answer.take(event):
                        yield piece
            for piece in answer.end():
                yield piece
        # What ends a stream that had begun comes from below: the SDK does not make it its own.
        except (anthropic.APITimeoutError, httpx2.TimeoutException) as error:
            raise Rejected("timeout", "the provider did not answer in time", provider="anthropic") from error
        except anthropic.APIStatusError as error:
            raise of_status(error.status_code, error.body, "anthropic", error.response.headers) from error
        except (anthropic.APIConnectionError, httpx2.TransportError) as error:
            raise of_connection(error, "anthropic") from error
        except anthropic.APIError as error:
            raise of_stream(error.body or str(error), "anthropic") from error
        except SENSELESS as error:
            raise Rejected("provider_malformed", provider="anthropic") from error

    def _client(self, base_url: str, key: str) -> "AsyncAnthropic":
        found = self._clients.get((base_url, key))
        if found is None:
            import anthropic
            import httpx2

            timeout = httpx2.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
            found = anthropic.AsyncAnthropic(
                base_url=base_url or None,
                api_key=key,
                max_retries=0,
                timeout=timeout,
                default_headers=UNPACKED,
                http_client=anthropic.DefaultAsyncHttpxClient(event_hooks={"response": [bound_response]}),
            )
            self._clients[base_url, key] = found
        return found


def arguments(call: Call) -> dict[str, Any]:
    """The Messages API request of a call. A response schema becomes one tool that must be used, if no other is."""
    config, params = call.resolved.config, call.request.params
    system, messages = _conversation(call.request.input.messages)
    tools = [_tool(tool) for tool in params.tools or ()]
    choice: dict[str, Any] | None = None
    if params.response_schema is not None:
        choice = {"type": "any"} if tools else {"type": "tool", "name": ANSWER_TOOL}
        tools.append({"name": ANSWER_TOOL, "description": "the answer", "input_schema": params.response_schema})
    wanted: dict[str, Any] = {
        "model": config.model or call.resolved.used,
        "system": system or None,
        "messages": messages,
        "max_tokens": call.max_tokens,
        "stop_sequences": params.stop,
        "tools": tools or None,
        "tool_choice": choice,
    }
    # The SDK no longer knows sampling parameters; the API does, for models that sample. Its scale of heat ends at 1.
    sampling = {"temperature": min(params.temperature, 1.0), "top_p": params.top_p}
    wanted["extra_body"] = _given(sampling, config.drop_params)
    return _given(wanted, config.drop_params)


def _given(values: dict[str, Any], dropped: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None and name not in dropped}


def _conversation(messages: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    system: list[str] = []
    turns: list[dict[str, Any]] = []
    for message in messages:
        role, content = message["role"], message.get("content")
        if role in ("system", "developer"):
            system.append(content if isinstance(content, str) else json.dumps(content))
        elif role == "tool":
            block = {"type": "tool_result", "tool_use_id": message.get("tool_call_id", ""), "content": content}
            if turns and turns[-1]["role"] == "user" and _is_result(turns[-1]["content"]):
                turns[-1]["content"].append(block)  # all results of one turn belong into one message
            else:
                turns.append({"role": "user", "content": [block]})
        elif message.get("tool_calls"):
            blocks = [{"type": "text", "text": content}] if content else []
            turns.append({"role": "assistant", "content": [*blocks, *map(_tool_use, message["tool_calls"])]})
        else:
            turns.append({"role": role, "content": content})
    return "\n\n".join(system), turns


def _is_result(content: Any) -> bool:
    return isinstance(content, list) and bool(content) and content[-1].get("type") == "tool_result"


def _tool_use(call: dict[str, Any]) -> dict[str, Any]:
    function = native(call)["function"]
    try:
        given = json.loads(function["arguments"] or "{}")
    except ValueError as error:
        raise Rejected(
            "invalid_request", "tool_calls hold arguments that are no JSON", field="input.messages"
        ) from error
    return {"type": "tool_use", "id": call.get("id", ""), "name": function["name"], "input": given}


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    if not isinstance(function, dict):
        return tool
    return {
        "name": function.get("name", ""),
        "description": function.get("description", ""),
        "input_schema": function.get("parameters") or {"type": "object"},
    }
