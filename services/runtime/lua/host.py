"""The pool of Lua processes behind every strategy call and every `lua` node."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, Literal, Protocol

import msgspec

from contracts.errors import Rejected
from contracts.limits import LUA_SOURCE_MAX_BYTES, LUA_TIMEOUT_DEFAULT_MS, LUA_TIMEOUT_MAX_MS
from services.runtime.lua.process import END_TIMEOUT_S, LuaProcess, ProcessDied
from services.runtime.lua.sandbox import Sandbox, bare_command, boxed_command, bubblewrap

REQUEST_BYTES_MAX: Final = 4 << 20
WAITING_MAX: Final = 1_000
LINE_S: Final = 60.0
"""How long a call may wait in line."""
BODY: Final = "body"
"""The stage of calls that users wrote into `lua` nodes; they never take the last child from the others."""
# A script whose process dies under it was most likely not the reason; a second time it was.
TRIES_MAX: Final = 2
RESTART_DELAY_FIRST_S, RESTART_DELAY_MAX_S = 0.05, 2.0
# The script's own clock ends it a little before the deadline, so that an ordinary endless loop costs no process.
CPU_SHARE: Final = 0.9


Code = Literal["lua_error", "lua_syntax", "lua_restricted", "lua_memory", "lua_timeout", "lua_bad_result"]


class Reply(msgspec.Struct, frozen=True):
    """What a child may say. The child is not trusted: anything else counts as its death."""

    ok: Any = None
    code: Code | None = None
    message: str = ""
    line: int = 0
    hint: str = ""


class MetricSink(Protocol):
    """What the pool needs of the metrics of its service."""

    def inc(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Put a value into a histogram."""


class _Place:
    """A place in the line; `turn` gets the child."""

    __slots__ = ("is_body", "turn")

    def __init__(self, turn: asyncio.Future[LuaProcess], is_body: bool) -> None:
        self.turn, self.is_body = turn, is_body


class LuaHost:
    """Runs Lua text in killable, memory-limited child processes; at most `children` scripts at a time.

    Each call gets a fresh Lua world and can change nothing outside it. Calls beyond `children` wait in line, first
    come first served, but calls of the stage "body" take at most `children` - 1 of several. `allow_bubblewrap=False`
    forces the weaker sandbox; the default takes the best that this machine can do, see `sandbox`. No call may last
    longer than `timeout_max_ms`.
    """

    def __init__(
        self,
        *,
        children: int = 2,
        metrics: MetricSink | None = None,
        allow_bubblewrap: bool = True,
        timeout_max_ms: int = LUA_TIMEOUT_MAX_MS,
    ) -> None:
        self._children = children
        self._timeout_max_ms = timeout_max_ms
        self._metrics = metrics
        self._allow_bubblewrap = allow_bubblewrap
        self._sandbox: Sandbox = "rlimits"
        self._command: list[str] = []
        self._slots: list[asyncio.Task[None]] = []
        self._live: set[LuaProcess] = set()
        self._idle: list[LuaProcess] = []
        self._waiting: deque[_Place] = deque()
        self._bodies = 0
        self._stopping = asyncio.Event()

    @property
    def sandbox(self) -> Sandbox:
        """What holds the children: `bubblewrap` (no files, no network) or only `rlimits`. Known after `start`."""
        return self._sandbox

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the children, for `doctor` and tests."""
        return tuple(process.pid for process in self._live if process.alive)

    async def start(self) -> None:
        """Start the children and wait until all are ready; raises Rejected(missing_dependency)."""
        self._stopping.clear()
        first = await self._probe()
        ready = [asyncio.get_running_loop().create_future() for _ in range(self._children)]
        self._slots = [
            asyncio.create_task(self._keep(first if index == 0 else None, future), name=f"lua-{index}")
            for index, future in enumerate(ready)
        ]
        try:
            await asyncio.gather(*ready)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Kill every child and wait until none is left; calls in progress end with service_unavailable."""
        self._stopping.set()
        while self._waiting:
            turn = self._waiting.popleft().turn
            if not turn.done():
                turn.set_exception(_stopped())
        for process in self._live:
            process.kill()
        if self._slots:
            over, late = await asyncio.wait(self._slots, timeout=2 * END_TIMEOUT_S)
            for task in late:
                task.cancel()
            for task in over:
                task.result()  # a slot never fails; if it did, that is a bug to be seen
        self._slots.clear()
        self._idle.clear()

    async def call(
        self,
        src: str,
        context: Any,
        *,
        argv: Sequence[Any] = (),
        timeout_ms: int = LUA_TIMEOUT_DEFAULT_MS,
        stage: str = "lua",
    ) -> Any:
        """Run a chunk with the globals `context` and `argv` (copies; null is nil) and return its value as JSON data.

        If the chunk defines `main`, the value is `main(argv...)`, else what the chunk returns. A table with the
        keys 1..n comes back as a list, an empty table as `[]`. `timeout_ms` counts from the moment a child is there.
        Raises Rejected: lua_error, lua_syntax, lua_restricted, lua_memory, lua_timeout, lua_bad_result; too_large and
        bad_request for an input that cannot be sent; mailbox_full when too many calls wait, or this one for LINE_S.
        """
        _check_size(src)
        body = _encode({"op": "run", "source": src, "context": context, "argv": list(argv)})
        started = asyncio.get_running_loop().time()
        outcome = "cancelled"
        try:
            value = await self._ask(body, min(timeout_ms, self._timeout_max_ms) / 1000, is_body=stage == BODY)
            outcome = "ok"
        except Rejected as why:
            outcome = why.code
            raise
        else:
            return value
        finally:
            if self._metrics:
                self._metrics.inc("htdag_lua_executions_total", stage=stage, outcome=outcome)
                elapsed_s = asyncio.get_running_loop().time() - started
                self._metrics.observe("htdag_lua_seconds", elapsed_s, stage=stage)

    async def check(self, src: str) -> None:
        """Compile without running and look for names the sandbox lacks.

        Raises Rejected: lua_syntax or lua_restricted with the line, too_large.
        """
        _check_size(src)
        await self._ask(_encode({"op": "check", "source": src}), LUA_TIMEOUT_DEFAULT_MS / 1000)

    async def _ask(self, body: bytes, timeout_s: float, *, is_body: bool = False) -> Any:
        reply = await self._converse(body, timeout_s, is_body)
        if reply.code:
            known = {"line": reply.line, "hint": reply.hint}
            raise Rejected(reply.code, reply.message, **{name: value for name, value in known.items() if value})
        return reply.ok

    async def _converse(self, body: bytes, timeout_s: float, is_body: bool) -> Reply:
        request = b'{"cpu_s":%.6f,%b\n' % (timeout_s * CPU_SHARE, body[1:])
        for _ in range(TRIES_MAX):
            process = await self._borrow(is_body)
            try:
                async with asyncio.timeout(timeout_s):
                    line = await process.exchange(request)
                return msgspec.json.decode(line, type=Reply)
            except (ProcessDied, msgspec.DecodeError):
                process.kill()
            except TimeoutError:
                process.kill()
                raise Rejected("lua_timeout", timeout_ms=round(timeout_s * 1000)) from None
            except BaseException:  # the caller was cancelled: nobody wants this answer
                process.kill()
                raise
            finally:
                self._return(process, is_body)
        raise Rejected("lua_error", "the Lua process died under this script")

    async def _borrow(self, is_body: bool) -> LuaProcess:
        if self._stopping.is_set() or not self._slots:
            raise _stopped()
        turn: asyncio.Future[LuaProcess] = asyncio.get_running_loop().create_future()
        place = _Place(turn, is_body)
        self._waiting.append(place)
        self._hand_out()
        if not turn.done() and len(self._waiting) > WAITING_MAX:
            self._waiting.remove(place)
            raise Rejected("mailbox_full", "too many Lua calls wait")
        try:
            async with asyncio.timeout(LINE_S):
                return await turn
        except BaseException as why:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._return(turn.result(), is_body)  # it was handed over in the moment of the cancellation
            elif place in self._waiting:
                self._waiting.remove(place)
            if isinstance(why, TimeoutError):
                raise Rejected("mailbox_full", "the Lua processes were busy for too long") from None
            raise

    def _return(self, process: LuaProcess, is_body: bool) -> None:
        self._bodies -= is_body
        if process.alive and not process.killed:  # else its slot starts another one
            self._idle.append(process)
        self._hand_out()

    def _hand_out(self) -> None:
        """Give idle children to those who may have one, in the order of the line."""
        while self._idle:
            process = self._idle.pop()
            if not process.alive or process.killed:
                continue
            place = self._next()
            if place is None:
                self._idle.append(process)
                return
            self._bodies += place.is_body
            place.turn.set_result(process)

    def _next(self) -> "_Place | None":
        room_for_body = self._bodies < max(1, self._children - 1)
        for place in self._waiting:
            if not place.turn.done() and (room_for_body or not place.is_body):
                self._waiting.remove(place)
                return place
        return None

    async def _probe(self) -> LuaProcess:
        """Find the best sandbox that works here; the proof is a child that is ready."""
        wrapper = bubblewrap() if self._allow_bubblewrap else None
        commands: list[tuple[Sandbox, list[str]]] = [("rlimits", bare_command())]
        if wrapper:
            commands.insert(0, ("bubblewrap", boxed_command(wrapper)))
        for sandbox, command in commands:
            try:
                process = await LuaProcess.spawn(command)
            except OSError:
                continue
            self._live.add(process)
            if await process.ready():
                self._sandbox, self._command = sandbox, command
                return process
            await self._bury(process)
        raise Rejected("missing_dependency", "no Lua process starts on this machine", needs="lupa")

    async def _keep(self, process: LuaProcess | None, ready: asyncio.Future[None]) -> None:
        """Keep one slot filled until the pool stops: start a child, wait for its end, start the next."""
        delay_s = RESTART_DELAY_FIRST_S
        while not self._stopping.is_set():
            process = process or await self._fresh()
            if process is None:
                if not ready.done():
                    ready.set_exception(Rejected("missing_dependency", "a Lua process does not start", needs="lupa"))
                await self._pause(delay_s)
                delay_s = min(delay_s * 2, RESTART_DELAY_MAX_S)
                continue
            delay_s = RESTART_DELAY_FIRST_S
            if not ready.done():
                ready.set_result(None)
            self._idle.append(process)
            self._hand_out()
            await process.exited()
            if process in self._idle:
                self._idle.remove(process)
            await self._bury(process)
            process = None

    async def _fresh(self) -> LuaProcess | None:
        try:
            process = await LuaProcess.spawn(self._command)
        except OSError:
            return None
        self._live.add(process)
        if not self._stopping.is_set() and await process.ready():
            return process
        await self._bury(process)
        return None

    async def _bury(self, process: LuaProcess) -> None:
        process.kill()
        await process.ended()
        self._live.discard(process)

    async def _pause(self, delay_s: float) -> None:
        try:
            async with asyncio.timeout(delay_s):
                await self._stopping.wait()
        except TimeoutError:
            return


def _check_size(src: str) -> None:
    if len(src.encode("utf-8", "replace")) > LUA_SOURCE_MAX_BYTES:
        raise Rejected("too_large", f"the Lua script is larger than {LUA_SOURCE_MAX_BYTES} bytes")


def _encode(request: dict[str, Any]) -> bytes:
    try:
        body = msgspec.json.encode(request)
    except (TypeError, ValueError, RecursionError):
        raise Rejected("bad_request", "the script, its context or its arguments are no JSON data") from None
    if len(body) > REQUEST_BYTES_MAX:
        raise Rejected("too_large", f"the context of a Lua call is larger than {REQUEST_BYTES_MAX} bytes")
    return body


def _stopped() -> Rejected:
    return Rejected("service_unavailable", "the Lua pool is not running")
