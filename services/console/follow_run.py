"""Following a run to its end: its events and its tokens, from the log, shown in one of four ways."""

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from contracts import subjects
from contracts.codec import CommitCodec, Undecodable
from contracts.errors import BUDGET, FAILED, OK, Rejected, exit_code_of
from contracts.llm import LlmToken
from contracts.run import RunCreated, RunEvent, RunResumed
from contracts.streams import EVENTS_EXECUTOR, LLM_TOKENS
from services.console.absence import Absence
from services.console.board_text import describe, summary, tree_text
from services.console.output import Output, plain
from services.console.run_board import Board, at_ms, take, take_chunk, take_commit
from services.console.terminal import terminal_text
from services.runtime.clock import Clock, SystemClock

if TYPE_CHECKING:
    from services.console.connection import Console
    from services.runtime.event_store import Recorded
    from services.runtime.follow import Follower

START_S: Final = 30.0
"""How long an accepted run may take until its first event."""
OVERTIME_S: Final = 60.0
"""How long past the run's own deadline its end is waited for."""
FIRST_LOOK_S: Final = 2.0
TOKENS_END_S: Final = 2.0
"""How long the tokens of a run that has ended are waited for: all of them are stored before its last answer is."""
BILLS_END_S: Final = 2.0
"""How long after the end of a run the calls that it let go are waited for: they are stopped, and say what they cost."""
EARLY_TOKENS_MAX: Final = 20_000
"""Tokens that may wait for the event that names their task; the oldest go first, they are for watching only."""
_CODEC: Final[CommitCodec[RunEvent]] = CommitCodec(RunEvent)
_TOKEN: Final = msgspec.json.Decoder(LlmToken).decode
_FRAME_S: Final = 0.125


class Show(Protocol):
    """A way of showing a run."""

    def event(self, board: Board, at: str, event: RunEvent) -> None:
        """An event was taken in."""

    def chunk(self, task_id: str, token: LlmToken) -> None:
        """A piece of a task's answer came."""

    def end(self, board: Board) -> None:
        """Nothing more comes."""


class Quiet:
    """Shows nothing: the caller wants only the end."""

    def event(self, board: Board, at: str, event: RunEvent) -> None:
        """See Show."""

    def chunk(self, task_id: str, token: LlmToken) -> None:
        """See Show."""

    def end(self, board: Board) -> None:
        """See Show."""


class Lines:
    """One line per event, streamed text inline behind the id of its task."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._speaker = ""

    def event(self, board: Board, at: str, event: RunEvent) -> None:
        """See Show."""
        line = describe(board, event)
        if line is not None:
            self._finish()
            self._output.line(line)

    def chunk(self, task_id: str, token: LlmToken) -> None:
        """See Show."""
        if self._speaker != task_id:
            if token.done and not token.chunk:
                return  # an answer without words: it only asked for tools
            self._finish()
            self._output.piece(f"{task_id}> ")
            self._speaker = task_id
        self._output.piece(token.chunk)
        if token.done:
            self._finish()

    def end(self, board: Board) -> None:
        """See Show."""
        self._finish()
        self._output.line(summary(board))

    def _finish(self) -> None:
        if self._speaker:
            self._output.piece("\n")
            self._speaker = ""


class JsonLines:
    """One JSON document per event and per token."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def event(self, board: Board, at: str, event: RunEvent) -> None:
        """See Show."""
        self._output.value({"at": at, "event": plain(event)})

    def chunk(self, task_id: str, token: LlmToken) -> None:
        """See Show."""
        self._output.value({"task_id": task_id, "token": plain(token)})

    def end(self, board: Board) -> None:
        """See Show."""


class Tree:
    """A tree that redraws itself on a terminal, and stays there when the run is over."""

    def __init__(self, output: Output, clock: Clock) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        self._text, self._output, self._clock = Text, output, clock
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._drawn_s = 0.0
        self._board: Board | None = None
        self._live.start()

    def event(self, board: Board, at: str, event: RunEvent) -> None:
        """See Show."""
        self._board = board

    def chunk(self, task_id: str, token: LlmToken) -> None:
        """See Show."""

    def tick(self) -> None:
        """Draw what is there now."""
        if self._board is not None:
            rows = max(3, self._console.height - 6)
            text = tree_text(self._board, self._clock.now_ms(), self._output.paint, rows)
            self._live.update(self._text.from_ansi(terminal_text(text)), refresh=True)

    def end(self, board: Board) -> None:
        """See Show."""
        self._live.stop()
        if board.events:
            self._output.line(tree_text(board, self._clock.now_ms(), self._output.paint, self._console.height * 4))


def exit_code(board: Board) -> int:
    """How the command that watched a run ends: a budget that was used up has a code of its own."""
    if board.status == "completed":
        return OK
    return BUDGET if board.error is not None and exit_code_of(board.error) == BUDGET else FAILED


def choose(output: Output, *, clock: Clock, single_document: bool) -> Show:
    """Tree on a terminal, lines elsewhere, JSON lines with --json; nothing when one document is wanted at the end."""
    if output.json:
        return Quiet() if single_document else JsonLines(output)
    return Tree(output, clock) if output.colour and sys.stdout.isatty() else Lines(output)


class RunFollower:
    """Feeds a board from the log until the run has ended."""

    def __init__(self, console: "Console", run_id: str, show: Show) -> None:
        self._console, self._show = console, show
        self.board = Board(run_id)
        self._deadline_at_ms = 0
        self._absence = Absence(f"`htdag runs watch {run_id}` when it is back; the run is in its log")
        self._moved = asyncio.Event()
        self._error: Exception | None = None
        self._early: deque[tuple[str, LlmToken]] = deque(maxlen=EARLY_TOKENS_MAX)

    def take(self, record: "Recorded") -> None:
        """One stored commit."""
        try:
            commit = _CODEC.decode(record.data, skip_unknown=True)
        except Undecodable as error:
            # Raised here it would be lost in the client's callback; `until_end` raises it instead.
            self._error = error
            return
        now_ms = at_ms(commit.at)
        for event in commit.events:
            take(self.board, event, now_ms)
            if isinstance(event, RunCreated | RunResumed):
                self._deadline_at_ms = event.deadline_at_ms
            self._show.event(self.board, commit.at, event)
        self._take_early()
        self._moved.set()

    def take_token(self, record: "Recorded") -> None:
        """One stored token."""
        try:
            token = _TOKEN(record.data)
        except (msgspec.MsgspecError, RecursionError) as error:
            self._error = error
            return
        node_id = record.subject.rpartition(".")[2]
        if not self._showed(node_id, token):
            # Tokens come by another way than events: on a busy machine they may be here first.
            self._early.append((node_id, token))

    def _showed(self, node_id: str, token: LlmToken) -> bool:
        task_id = take_chunk(self.board, node_id, token.chunk)
        if task_id is not None:
            self._show.chunk(task_id, token)
        return task_id is not None

    def _take_early(self) -> None:
        for _ in range(len(self._early)):
            node_id, token = self._early.popleft()
            if not self._showed(node_id, token):
                self._early.append((node_id, token))

    async def until_end(self, clock: Clock) -> Board:
        """Follow to the end. Raises service_unavailable when it never starts, timeout long past its deadline."""
        bus, run_id, started_ms = self._console.bus, self.board.run_id, clock.now_ms()
        log = tokens = None
        try:
            if not isinstance(self._show, Quiet):
                # Tokens first: they wait for the event that names their task, so that a run that is over is told in
                # order.
                tokens = await bus.follow(LLM_TOKENS, subjects.llm_tokens(run_id, "*"), self.take_token)
                await self._caught_up(tokens)
            log = await bus.follow(EVENTS_EXECUTOR, subjects.events("executor", "run", run_id), self.take)
            while not (self.board.ended and log.caught_up.is_set()):
                self._check(clock.now_ms(), started_ms)
                self._absence.check(bus.connected, clock.now_ms() / 1000)
                await self._pause()
            if tokens is not None:
                await self._last_tokens(tokens)
            await self._last_bills()
        finally:
            for follower in (log, tokens):
                if follower is not None:
                    await follower.stop()
            self._show.end(self.board)
        return self.board

    def _check(self, now_ms: int, started_ms: int) -> None:
        if self._error is not None:
            raise Rejected("poison", f"run {self.board.run_id}: {self._error}") from self._error
        if not self.board.events and now_ms - started_ms > START_S * 1000:
            raise Rejected(
                "service_unavailable", f"the executor has not begun run {self.board.run_id}", service="executor"
            )
        if self._deadline_at_ms and now_ms > self._deadline_at_ms + OVERTIME_S * 1000:
            raise Rejected("timeout", f"run {self.board.run_id} is past its deadline and has not ended")

    @staticmethod
    async def _caught_up(tokens: "Follower") -> None:
        try:
            async with asyncio.timeout(FIRST_LOOK_S):
                await tokens.caught_up.wait()
        except TimeoutError:
            pass  # they are for watching only, and go on by themselves

    async def _last_tokens(self, tokens: "Follower") -> None:
        """A run that ends quickly has said more than was shown by then."""
        try:
            async with asyncio.timeout(TOKENS_END_S):
                newest = await self._console.bus.newest(LLM_TOKENS, subjects.llm_tokens(self.board.run_id, "*"))
                while tokens.last_seq < newest:
                    await self._pause()
        except (TimeoutError, Rejected):
            pass  # they are for watching; the answers are in the log

    async def _last_bills(self) -> None:
        """What is shown at the end is what the run cost, as far as it is known by then."""
        try:
            async with asyncio.timeout(BILLS_END_S):
                while self.board.unsettled:
                    await self._pause()
        except TimeoutError:
            pass  # their workers are gone, or slow: `htdag runs show` tells it later

    async def _pause(self) -> None:
        """Until something moved, but no longer than a frame."""
        tick: Callable[[], Any] | None = getattr(self._show, "tick", None)
        try:
            async with asyncio.timeout(_FRAME_S):
                await self._moved.wait()
                self._moved.clear()
        except TimeoutError:
            pass  # a quiet frame
        if tick is not None:
            tick()
            await asyncio.sleep(_FRAME_S)


async def follow_run(console: "Console", run_id: str, show: Show, clock: Clock | None = None) -> Board:
    """Show a run until it has ended; its final board."""
    return await RunFollower(console, run_id, show).until_end(clock or SystemClock())


async def load_board(console: "Console", run_id: str) -> Board:
    """The board of a run as its log stands now; raises Rejected run_not_found or poison."""
    board = Board(run_id)
    async for record in console.bus.history(EVENTS_EXECUTOR, subjects.events("executor", "run", run_id)):
        try:
            commit = _CODEC.decode(record.data, skip_unknown=True)
        except Undecodable as error:
            raise Rejected("poison", f"run {run_id} at {record.seq}: {error}") from error
        take_commit(board, commit)
    if not board.events:
        raise Rejected("run_not_found", run_id=run_id)
    return board
