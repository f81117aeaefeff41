"""How much a provider may say to one call. What was reserved bounds it, whatever the provider makes of `max_tokens`.

The output is counted where all of it passes, and wherever an adapter keeps some of it before that; what comes over the
wire, with everything around the output, is counted too: a line without an end is no output yet.
"""

from codecs import BOM_UTF8
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from contracts.errors import Rejected
from services.llm_worker.providers.protocol import Call, TokensUsed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BYTES_PER_TOKEN: Final = 32
"""No text has so long tokens throughout; single ones, runs of blanks say, may be longer."""
BYTES_AROUND: Final = 4_096
WIRE_BYTES_PER_TOKEN: Final = 4_096
"""Each token may come in a message of its own, and once more in a summary at the end."""
WIRE_BYTES_AROUND: Final = 1 << 20
COUNT_MAX: Final = 1 << 40
"""A larger count of tokens is no count."""
NO_COUNT: Final = -1
UNPACKED: Final = {"Accept-Encoding": "identity"}
"""What HTTP clients ask for: a few packed bytes may be a flood."""
OVERRAN: Final = "provider_overran"


class Allowance:
    """Bytes that may still come."""

    __slots__ = ("_left", "_most", "_provider")

    def __init__(self, most: int, provider: str) -> None:
        self._most = self._left = most
        self._provider = provider

    def take(self, size: int) -> None:
        """So many more came. Raises Rejected("provider_overran") when that is too much."""
        self._left -= size
        if self._left < 0:
            raise Rejected(OVERRAN, provider=self._provider, bytes_max=self._most)


def of_output(call: Call) -> Allowance:
    """What the output of a call may have."""
    return Allowance(BYTES_AROUND + BYTES_PER_TOKEN * call.max_tokens, call.resolved.config.provider)


def of_wire(call: Call) -> Allowance:
    """What may come over the wire, or out of a program, for one call."""
    return Allowance(WIRE_BYTES_AROUND + WIRE_BYTES_PER_TOKEN * call.max_tokens, call.resolved.config.provider)


def size_of(text: str) -> int:
    """Bytes of a text; halves of characters count as what they are sent as."""
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def sound(used: TokensUsed) -> bool:
    """Whether these are counts at all: whole numbers, not below zero, and none that only a joke would have."""
    counts: tuple[Any, ...] = (used.prompt_tokens, used.completion_tokens, used.cache_read, used.cache_written)
    if not all(type(count) is int and 0 <= count <= COUNT_MAX for count in counts):
        return False
    return used.cache_read + used.cache_written <= used.prompt_tokens


# -- over HTTP: the SDKs read whole lines, and whole errors, before anybody sees them ---------------------------------

_wire: ContextVar[Allowance | None] = ContextVar("htdag_llm_wire", default=None)


def bound_wire(call: Call) -> None:
    """From here on, what this task reads from a provider is counted for `call`."""
    _wire.set(of_wire(call))


async def bound_response(response: Any) -> None:
    """A hook of the HTTP client: nobody reads more of this response than its call may have."""
    allowance = _wire.get()
    if allowance is None:
        return
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise Rejected("provider_malformed", "the provider's answer is packed, which nobody asked for")
    response.stream = _counted(response.stream, allowance)


def _counted(stream: Any, allowance: Allowance) -> Any:
    import httpx2

    class Counted(httpx2.AsyncByteStream):
        async def __aiter__(self) -> "AsyncIterator[bytes]":
            head, begun = b"", False
            async for chunk in stream:
                allowance.take(len(chunk))
                if begun:
                    yield chunk
                    continue
                head += chunk
                if len(head) >= len(BOM_UTF8) or not BOM_UTF8.startswith(head):
                    begun = True
                    # A stream of events may begin with this mark, and the SDKs would lose the first event by it.
                    yield head.removeprefix(BOM_UTF8)
            if not begun:
                yield head

        async def aclose(self) -> None:
            await stream.aclose()

    return Counted()
