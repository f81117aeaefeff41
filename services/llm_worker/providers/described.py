"""Tools for models that have none: described in words, called by JSON that a schema demands.

Only a call with tools passes through here; nothing of it is streamed before it is known to be the last word.
"""

from collections.abc import AsyncGenerator

import msgspec

from services.llm_worker import tool_calls
from services.llm_worker.models import Resolved
from services.llm_worker.providers.bounds import of_output, size_of
from services.llm_worker.providers.protocol import Call, Delta, Finish, Piece, Provider, ToolCalls, Unseen


class DescribedTools:
    """A provider without native tools, as one that has them."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def missing(self, resolved: Resolved) -> str:
        """See Provider.missing."""
        return self._provider.missing(resolved)

    async def close(self) -> None:
        """See Provider.close."""
        await self._provider.close()

    async def stream(self, call: Call) -> AsyncGenerator[Piece, None]:
        """The answer; its text comes in one piece when it had tools to choose from."""
        stream = self._provider.stream(in_words(call))
        try:
            if not call.request.params.tools:
                async for piece in stream:
                    yield piece
                return
            parts: list[str] = []
            kept = of_output(call)
            others: list[Piece] = []
            async for piece in stream:
                if isinstance(piece, Delta):
                    kept.take(size_of(piece.text))
                    parts.append(piece.text)
                    yield Unseen(size_of(piece.text))
                elif isinstance(piece, Unseen):
                    yield piece
                else:
                    others.append(piece)
            final, calls = tool_calls.read("".join(parts))
            yield ToolCalls(calls) if calls else Delta(final)
            for piece in others:
                yield piece._replace(reason="tool_calls") if calls and isinstance(piece, Finish) else piece
        finally:
            await stream.aclose()


def in_words(call: Call) -> Call:
    """The call without tools of its own: they stand in its conversation, and its answer has a schema."""
    request = call.request
    tools = request.params.tools
    messages = request.input.messages
    if not tools:
        if not any(message.get("tool_calls") or message.get("role") == "tool" for message in messages):
            return call
        # A conversation that had tools goes on without them: what was called and found is still told.
        spoken = tool_calls.spoken(messages)
        return call._replace(
            request=msgspec.structs.replace(request, input=msgspec.structs.replace(request.input, messages=spoken))
        )
    params = msgspec.structs.replace(
        request.params, tools=None, response_schema=tool_calls.schema_of(tools, request.params.response_schema)
    )
    told = msgspec.structs.replace(request.input, messages=tool_calls.described(messages, tools))
    return call._replace(request=msgspec.structs.replace(request, params=params, input=told))
