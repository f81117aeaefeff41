"""The deterministic model: fixed text by seed and prompt; delay, failure, price and malformed output on command.

Commands stand behind `mock:` in the model id (`mock:delay=2s,fail=provider_error`) or in `params.mock`.
"""

import asyncio
import hashlib
import math
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Final

import msgspec

from contracts.errors import CATALOGUE, Rejected
from contracts.llm import LlmRequest
from services.llm_worker.models import MOCK, Resolved
from services.llm_worker.providers.example import example_of
from services.llm_worker.providers.protocol import Call, Delta, Finish, Piece, TokensUsed, ToolCalls

TOKENS_DEFAULT: Final = 20
TOKENS_MAX: Final = 100_000
TEXT_CHARS_MAX: Final = 16 << 20
DELAY_S_MAX: Final = 86_400.0
PRICE_USD_MAX: Final = 1_000_000
"""Whoever asks says what the mock costs: no sum that anybody keeps may be more than a number can be."""
CALLS_REMEMBERED_MAX: Final = 10_000
_VOCABULARY: Final = (
    "plan build test check route store event node actor graph task agent",
    "token answer result input output limit queue trace",
)
WORDS: Final = tuple(word for line in _VOCABULARY for word in line.split(" "))
_SPACED: Final = tuple(f" {WORDS[byte % len(WORDS)]}" for byte in range(256))
DIGEST_BYTES: Final = 64
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0}
_ENCODE: Final = msgspec.json.Encoder().encode


class ScriptedTool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tool call that the mock asks for; `opts` ride along in the arguments."""

    tool: str
    args: Any = {}
    opts: Any = None


class ScriptedAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One answer of a scripted conversation."""

    tool_calls: list[ScriptedTool] = []
    text: str = ""


class MockScript(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one mock call does. Delays in seconds; price in micro-dollars per call and per million tokens.

    `repeat` says the text that often: for answers that are too big to travel.
    `fail_first` fails the first n calls of a node (in this worker), or its first n attempts in a run, and then answers.
    `script` has an answer for each turn of a conversation, told by how many the assistant has had: the same after a
    crash; the last one is repeated.
    """

    delay_s: float = 0.0
    stream_delay_s: float = 0.0
    fail: str = ""
    fail_first: int = 0
    price_call_micros: int | None = None
    price_mtok_micros: int | None = None
    tokens: int = TOKENS_DEFAULT
    seed: int = 0
    malformed: bool = False
    hang: bool = False
    text: str | None = None
    repeat: int = 1
    script: tuple[ScriptedAnswer, ...] = ()

    @property
    def priced(self) -> bool:
        """Whether the request says what it costs; else the configuration may."""
        return self.price_call_micros is not None or self.price_mtok_micros is not None


DEFAULT: Final = MockScript()


def script_of(call: Call) -> MockScript:
    """The commands of one call: those of the model id, then those of `params.mock`, then `params.seed`."""
    params = call.request.params
    script = check_commands(call.resolved, params.mock)
    return script if params.seed is None else msgspec.structs.replace(script, seed=params.seed)


def check_commands(resolved: Resolved, own: Mapping[str, Any] | None) -> MockScript:
    """The script of a model id and a request's own commands. Raises invalid_request naming the wrong one."""
    script = _parse(resolved.used.partition(":")[2]) if ":" in resolved.used else DEFAULT
    return _with(script, own) if own else script


@lru_cache(maxsize=256)
def _parse(commands: str) -> MockScript:
    pairs = (item.partition("=") for item in commands.split(",") if item)
    return _with(DEFAULT, {name: value if equals else True for name, equals, value in pairs})


def _with(script: MockScript, commands: Mapping[str, Any]) -> MockScript:
    changes: dict[str, Any] = {}
    for name, value in commands.items():
        try:
            changes.update(_command(name, value))
        except (ValueError, TypeError, InvalidOperation, msgspec.ValidationError) as error:
            raise Rejected("invalid_request", f"mock command {name} is wrong", field=f"mock.{name}") from error
    return msgspec.structs.replace(script, **changes)


def _command(name: str, value: Any) -> dict[str, Any]:
    match name:
        case "delay" | "stream_delay":
            return {f"{name}_s": _seconds(value)}
        case "price":
            return _price(str(value))
        case "tokens" | "fail_first" | "seed" | "repeat":
            number = int(value)
            if name != "seed" and not 0 <= number <= TOKENS_MAX:
                raise ValueError(number)
            return {name: number}
        case "malformed" | "hang":
            return {name: str(value).lower() not in ("false", "0", "no")}
        case "fail":
            code = "provider_error" if value is True else str(value)
            if code not in CATALOGUE:
                raise ValueError(code)
            return {"fail": code}
        case "script":
            return {"script": msgspec.convert(value, tuple[ScriptedAnswer, ...])}
        case "text":
            return {"text": str(value).replace("+", " ")}
    raise Rejected("invalid_request", f"the mock knows no command {name}", field=f"mock.{name}")


def _seconds(value: Any) -> float:
    text = str(value)
    seconds = math.nan
    for unit, factor in _UNITS.items():
        number = text.removesuffix(unit)
        if number != text and number.replace(".", "", 1).isdigit():
            seconds = float(number) * factor
            break
    else:
        seconds = float(text)
    if not 0 <= seconds <= DELAY_S_MAX:  # a time that is no number would disorder the loop's timers
        raise ValueError(text)
    return seconds


def _price(text: str) -> dict[str, int]:
    amount, _, per = text.partition("/")
    micros = Decimal(amount) * 1_000_000
    if not 0 <= micros <= PRICE_USD_MAX * 1_000_000 or per not in ("", "call", "mtok"):
        raise ValueError(text)
    return {"price_mtok_micros" if per == "mtok" else "price_call_micros": int(micros)}


class MockProvider:
    """Answers by its commands, without a network."""

    def __init__(self) -> None:
        self._calls: OrderedDict[tuple[str, str], int] = OrderedDict()

    def missing(self, resolved: Resolved) -> str:
        """Always there; a wrong command is refused before the call."""
        return ""

    async def close(self) -> None:
        """Holds nothing."""

    async def stream(self, call: Call) -> AsyncGenerator[Piece, None]:
        """The scripted answer."""
        script = script_of(call)
        if script.delay_s:
            await asyncio.sleep(script.delay_s)
        if script.hang:
            await asyncio.Event().wait()
        self._fail(call, script)
        request = call.request
        prompt = _ENCODE(request.input.messages)
        turn = scripted(script, request.input.messages)
        if turn is not None:
            script = msgspec.structs.replace(script, text=turn.text)
        words = self._words(call, script, prompt)
        kept = words[: call.max_tokens]
        if request.params.stream:
            for word in kept:
                if script.stream_delay_s:
                    await asyncio.sleep(script.stream_delay_s)
                yield Delta(word)
        else:
            if script.stream_delay_s:
                await asyncio.sleep(script.stream_delay_s * len(kept))
            yield Delta("".join(kept))
        prompt_count = len(prompt) // 4 + 1
        told = cost_micros(script, prompt_count, len(kept)) if script.priced else None
        yield TokensUsed(prompt_count, len(kept), told)
        calls = tool_calls_of(turn, request.input.messages) if turn is not None else []
        if calls:
            yield ToolCalls(calls)
        yield Finish("tool_calls" if calls else "stop" if len(kept) == len(words) else "length")

    def _fail(self, call: Call, script: MockScript) -> None:
        if script.malformed:
            raise Rejected("provider_malformed", "the mock was told to answer what cannot be read", model=MOCK)
        if script.fail_first:
            node = (call.request.run_id, call.request.node_id)
            # Each attempt of a run is a node of its own, and the ones before it have failed.
            seen = max(self._calls.pop(node, 0), call.request.attempt - 1)
            self._calls[node] = seen + 1
            if len(self._calls) > CALLS_REMEMBERED_MAX:
                self._calls.popitem(last=False)
            if seen >= script.fail_first:
                return
            raise Rejected(script.fail or "provider_error", "the mock was told to fail at first", call=seen + 1)
        if script.fail:
            raise Rejected(script.fail, "the mock was told to fail", model=MOCK)

    def _words(self, call: Call, script: MockScript, prompt: bytes) -> list[str]:
        schema = call.request.params.response_schema
        if script.text is not None:
            # Never longer than what is kept of it, not even for a moment: whoever asks says how often.
            times = min(script.repeat, TEXT_CHARS_MAX // max(1, len(script.text)) + 1)
            text = (script.text * times)[:TEXT_CHARS_MAX]
        elif schema is not None:
            text = _ENCODE(example_of(schema)).decode()
        else:
            return _text(script.seed, prompt, script.tokens)
        # One more than may be said, so that it is seen where it was cut.
        parts = text.split(" ", call.max_tokens)
        return [part if index == 0 else f" {part}" for index, part in enumerate(parts)]


def prompt_tokens(request: LlmRequest) -> int:
    """What the mock counts as the tokens of a prompt."""
    return len(_ENCODE(request.input.messages)) // 4 + 1


def cost_micros(script: MockScript, prompt_count: int, completion_count: int) -> int:
    """What a call costs by the script's prices, rounded up."""
    by_tokens = -(-(script.price_mtok_micros or 0) * (prompt_count + completion_count) // 1_000_000)
    return (script.price_call_micros or 0) + by_tokens


def scripted(script: MockScript, messages: list[dict[str, Any]]) -> ScriptedAnswer | None:
    """The answer that a script has for this turn of the conversation; None without a script."""
    if not script.script:
        return None
    turn = sum(message.get("role") == "assistant" for message in messages)
    said: ScriptedAnswer = script.script[min(turn, len(script.script) - 1)]
    return said


def tool_calls_of(turn: ScriptedAnswer, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What an answer asks for, in the shape that providers speak, under ids that are new in the conversation."""
    calls = []
    for place, call in enumerate(turn.tool_calls, 1):
        args = call.args if call.opts is None or not isinstance(call.args, dict) else {**call.args, "opts": call.opts}
        function = {"name": call.tool, "arguments": _ENCODE(args).decode()}
        calls.append({"id": f"mock_{len(messages)}_{place}", "type": "function", "function": function})
    return calls


def _text(seed: int, prompt: bytes, tokens: int) -> list[str]:
    """`tokens` words that depend on the seed and the prompt only."""
    digest = b"".join(
        hashlib.blake2b(b"%d/%d/" % (seed, block) + prompt).digest() for block in range(-(-tokens // DIGEST_BYTES))
    )
    words = [_SPACED[byte] for byte in digest[:tokens]]
    if words:
        words[0] = words[0][1:]
    return words
