"""A model behind a command line program that speaks `stream-json`: prompt on its stdin, one JSON object per line back.

The program gets a minimal environment and a process group of its own, which is killed when the call ends in any way.
What it says a call cost is not what anybody paid, so it is never billed.
"""

import asyncio
import os
import re
import shutil
import signal
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from services.llm_worker.models import Resolved
from services.llm_worker.providers.bounds import Allowance, of_wire
from services.llm_worker.providers.counting import beside_caches
from services.llm_worker.providers.failures import said
from services.llm_worker.providers.protocol import Call, Delta, Finish, Piece
from services.runtime.held_secrets import CHARS_MAX, without_held

LINE_BYTES_MAX: Final = 8 << 20
STDERR_BYTES_MAX: Final = 4_000
TERM_WAIT_S: Final = 2.0
PASSED: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")
_SIGNS: Final = (
    (
        re.compile(r"invalid api key|please run /login|unauthori[sz]ed|authentication|\b40[13]\b", re.IGNORECASE),
        "provider_auth",
    ),
    (re.compile(r"overloaded|rate.?limit|too many requests|\b(429|503|529)\b", re.IGNORECASE), "provider_overloaded"),
)
"""Programs have no codes for what went wrong, only words."""
_DECODE: Final = msgspec.json.Decoder(dict[str, Any]).decode
_ENCODE: Final = msgspec.json.Encoder().encode


class CliProvider:
    """Runs one program per call. `argv` may hold `{model}`, `{max_tokens}` and `{system_file}`.

    The system prompt stands before the prompt on stdin, or in a private file of this call whose path replaces
    `{system_file}`. It never is an argument: everybody on the machine can read those, and one argument is bounded.
    """

    def __init__(self, key_of: Callable[[Resolved], str], environ: Mapping[str, str]) -> None:
        self._key_of = key_of
        self._environ = environ

    def missing(self, resolved: Resolved) -> str:
        """The program must be there."""
        argv = resolved.config.argv
        if not argv:
            return "its configuration has no argv"
        if any("{system}" in word for word in argv):
            return "its argv holds {system}, which everybody could read; {system_file} names a file that holds it"
        return "" if shutil.which(argv[0], path=self._environ.get("PATH")) else f"{argv[0]} is not installed"

    async def close(self) -> None:
        """Every call ends its own program."""

    async def stream(self, call: Call) -> AsyncGenerator[Piece, None]:
        """The answer as the program prints it."""
        system, prompt = _prompt(call.request.input.messages)
        if call.request.params.response_schema is not None:
            prompt = f"{prompt}\n\n{_shape(call.request.params.response_schema)}"
        async with AsyncExitStack() as stack:
            path = ""
            if any("{system_file}" in word for word in call.resolved.config.argv):
                path = stack.enter_context(_private_file(system))
            elif system:
                prompt = f"{system}\n\n{prompt}"
            answer = self._run(call, path, prompt)
            stack.push_async_callback(answer.aclose)
            async for piece in answer:
                yield piece

    async def _run(self, call: Call, system_file: str, prompt: str) -> AsyncGenerator[Piece, None]:
        process = await self._start(call, system_file)
        told = asyncio.create_task(_tell(process, prompt), name="cli-prompt")
        complaints = asyncio.create_task(_complaints(process), name="cli-stderr")
        try:
            result: dict[str, Any] | None = None
            async for line in _lines(process, of_wire(call)):
                if line.get("type") == "stream_event":
                    text = _text_of(line)
                    if text:
                        yield Delta(text)
                elif line.get("type") == "result":
                    result = line
                    break
            if result is None:
                code = await process.wait()
                raise _failed(said(await complaints), exit=code)
            for piece in _end(result):
                yield piece
        finally:
            await _end_group(process)
            for task in (told, complaints):
                task.cancel()
            await asyncio.wait((told, complaints))

    async def _start(self, call: Call, system_file: str) -> asyncio.subprocess.Process:
        config = call.resolved.config
        words = {"{model}": config.model, "{system_file}": system_file, "{max_tokens}": str(call.max_tokens)}
        argv = [_filled(word, words) for word in config.argv]
        kept = {*PASSED, *config.pass_env}
        env = {name: value for name, value in self._environ.items() if name in kept}
        if config.api_key_env and self._key_of(call.resolved):
            env[config.api_key_env] = self._key_of(call.resolved)
        try:
            return await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=env,
                start_new_session=True,
                limit=LINE_BYTES_MAX,
            )
        except OSError as error:
            raise Rejected("provider_missing", provider="cli", detail=error.strerror or "cannot be started") from error


@contextmanager
def _private_file(text: str) -> Iterator[str]:
    """A file that only this user can read, for as long as the call lasts; its path."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="htdag-system-", suffix=".txt") as file:
        file.write(text)
        file.flush()
        yield file.name


def _shape(schema: dict[str, Any]) -> str:
    told = _ENCODE(schema).decode()
    return f"Answer with one JSON value that keeps to this JSON schema, and nothing else:\n{told}"


def _filled(word: str, words: Mapping[str, str]) -> str:
    for name, value in words.items():
        word = word.replace(name, value)
    return word


def _prompt(messages: list[dict[str, Any]]) -> tuple[str, str]:
    """System text and the conversation as one text; a single user turn stands alone."""
    system = [_plain(message) for message in messages if message["role"] in ("system", "developer")]
    turns = [message for message in messages if message["role"] not in ("system", "developer")]
    if len(turns) == 1:
        return "\n\n".join(system), _plain(turns[0])
    return "\n\n".join(system), "\n\n".join(f"{turn['role']}: {_plain(turn)}" for turn in turns)


def _plain(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")


async def _tell(process: asyncio.subprocess.Process, prompt: str) -> None:
    stdin = process.stdin
    if stdin is None:
        return
    try:
        stdin.write(prompt.encode())
        await stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        return  # it did not want to read; its answer or its exit code says why
    finally:
        stdin.close()


async def _complaints(process: asyncio.subprocess.Process) -> str:
    if process.stderr is None:
        return ""
    kept = b""
    while chunk := await process.stderr.read(65_536):
        kept = (kept + chunk)[-STDERR_BYTES_MAX - CHARS_MAX :]
    # Half a key is not known for one: it is taken out before the beginning is cut off.
    return without_held(kept.decode(errors="replace"))[-STDERR_BYTES_MAX:]


async def _lines(process: asyncio.subprocess.Process, allowance: Allowance) -> AsyncIterator[dict[str, Any]]:
    if process.stdout is None:
        return
    while True:
        try:
            line = await process.stdout.readline()
            if not line:
                return
            allowance.take(len(line))
            if line.strip():
                yield _DECODE(line)
        except (ValueError, msgspec.MsgspecError) as error:
            raise Rejected("provider_malformed", "the program printed what is no JSON line", provider="cli") from error


def _text_of(line: dict[str, Any]) -> str:
    event = line.get("event")
    delta = event.get("delta") if isinstance(event, dict) else None
    return str(delta.get("text") or "") if isinstance(delta, dict) else ""


def _failed(words: str, **more: Any) -> Rejected:
    code = next((code for sign, code in _SIGNS if sign.search(words)), "provider_error")
    return Rejected(code, provider="cli", detail=words, **more)


def _end(result: dict[str, Any]) -> list[Piece]:
    # `subtype` may say success while `is_error` says the truth.
    if result.get("is_error"):
        raise _failed(said(result.get("result")))
    usage = result.get("usage")
    if usage is None:
        return [Finish("stop")]
    usage = usage if isinstance(usage, dict) else {}
    names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    return [beside_caches(*map(usage.get, names)), Finish("stop")]


async def _end_group(process: asyncio.subprocess.Process) -> None:
    """Nothing of the program stays, whoever cancels whom while we wait."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            async with asyncio.timeout(TERM_WAIT_S):
                await process.wait()
        except TimeoutError:
            continue
    # A descendant may hold the pipes for longer than its leader lives; asyncio has no public way to let go of them.
    transport = process._transport  # type: ignore[attr-defined]
    transport.close()
