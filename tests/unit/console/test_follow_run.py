"""Following a run: what it said is shown, however events and tokens race."""

import asyncio
import json

from contracts import run as events
from contracts.codec import CommitCodec
from contracts.commit import Commit
from contracts.llm import LlmInput, LlmRequest, LlmToken, Usage
from contracts.run import RunEvent
from contracts.streams import EVENTS_EXECUTOR, LLM_TOKENS
from contracts.subjects import events as event_subject
from contracts.subjects import llm_tokens
from contracts.task import TaskSpec
from services.console.connection import Console
from services.console.follow_run import RunFollower, follow_run
from services.console.run_board import Board
from services.runtime import provision
from services.runtime.bus import Bus
from services.runtime.event_store import Recorded
from services.runtime.nats_client import connect
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer

AT = "2026-09-21T10:00:00Z"
CODEC: CommitCodec[RunEvent] = CommitCodec(RunEvent)
ASKED = LlmRequest(LlmInput([{"role": "user", "content": "x"}]), run_id="r1", node_id="n1", corr_id="c")
BEGUN: list[RunEvent] = [
    events.RunCreated("r1", 4_000_000_000_000),
    events.TasksAdded([TaskSpec("spec")]),
    events.LlmRequested("spec", 1, "llm-1", ASKED, 4_000_000_000_000),
]
ENDED = events.RunEnded("completed", {"completed": 1}, "d")
TOKENS = [LlmToken("Hel", 1, False), LlmToken("lo", 2, False), LlmToken("", 3, True)]


class Said:
    """Keeps what it is shown."""

    def __init__(self) -> None:
        self.chunks: list[tuple[str, str]] = []
        self.after_the_end = 0
        self.ended = False
        self._over = False

    def event(self, board: Board, at: str, event: RunEvent) -> None:
        self._over = isinstance(event, events.RunEnded)
        self.ended |= self._over

    def chunk(self, task_id: str, token: LlmToken) -> None:
        self.chunks.append((task_id, token.chunk))
        self.after_the_end += self._over

    def end(self, board: Board) -> None: ...


WHOLE = [("spec", "Hel"), ("spec", "lo"), ("spec", "")]


def commit(*told: RunEvent) -> bytes:
    return CODEC.encode(Commit(AT, "test", "m1", "m1", list(told)))


def token_bytes(token: LlmToken) -> bytes:
    return json.dumps({"chunk": token.chunk, "seq": token.seq, "done": token.done}).encode()


def test_tokens_that_overtake_their_events_are_shown_once_the_task_is_known():
    show = Said()
    follower = RunFollower(None, "r1", show)  # type: ignore[arg-type]
    for seq, token in enumerate(TOKENS, 1):
        follower.take_token(Recorded(seq, llm_tokens("r1", "n1"), token_bytes(token), {}))
    assert show.chunks == []
    follower.take(Recorded(1, "x", commit(*BEGUN), {}))
    assert show.chunks == WHOLE
    follower.take(Recorded(2, "x", commit(ENDED), {}))
    assert show.chunks == WHOLE


async def test_what_a_call_that_was_let_go_cost_is_waited_for_at_the_end(nats_server: NatsServer):
    bus = Bus(await connect(nats_server.url, name="test"))
    await bus.start()
    await provision.apply(bus)
    subject = event_subject("executor", "run", "r1")
    await bus.store(subject, commit(*BEGUN, ENDED), stream=EVENTS_EXECUTOR, msg_id="m1")
    following = asyncio.create_task(follow_run(Console(bus, 5), "r1", show := Said()))
    await eventually(lambda: show.ended)
    assert not following.done()
    settled = events.LlmSettled("spec", "c", "mock", Usage(3, 4, 7), 50)
    await bus.store(subject, commit(settled), stream=EVENTS_EXECUTOR, msg_id="m2")
    board = await following
    assert (board.cost_usd_micros, board.unsettled) == (50, set())
    await bus.close()


async def test_a_run_that_is_over_is_told_in_order(nats_server: NatsServer):
    bus = Bus(await connect(nats_server.url, name="test"))
    await bus.start()
    await provision.apply(bus)
    subject = event_subject("executor", "run", "r1")
    await bus.store(subject, commit(*BEGUN), stream=EVENTS_EXECUTOR, msg_id="m1")
    answered = events.LlmAnswered("spec", 1, "llm-1", "c", "Hello")
    await bus.store(subject, commit(answered, ENDED), stream=EVENTS_EXECUTOR, msg_id="m2")
    for token in TOKENS:
        await bus.store(llm_tokens("r1", "n1"), token_bytes(token), stream=LLM_TOKENS, msg_id=f"t{token.seq}")
    show = Said()
    board = await follow_run(Console(bus, 5), "r1", show)
    assert board.ended
    assert (show.chunks, show.after_the_end) == (WHOLE, 0)
    await bus.close()
