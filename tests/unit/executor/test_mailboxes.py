"""Durable input is settled as its outcome says, answered when somebody waits, and never dropped."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import structlog

from contracts.approval import TakeApproval
from contracts.codec import UnknownType
from contracts.commit import HEADER_BY, HEADER_CORRELATION, HEADER_REPLY
from contracts.errors import Rejected
from contracts.run import CancelRun, RunCommand, TakeTime
from contracts.streams import COMMANDS, POISON_DELIVERIES_MAX
from services.executor.mailboxes import Mailboxes
from services.runtime.genuine import HEADER_STREAM
from services.runtime.mailbox import Interrupted, Outcome
from services.runtime.metrics import Metrics
from services.runtime.publisher import Stored
from tests.unit.executor.builders import noop, run, start


class Letter:
    """A delivery that remembers how it was settled."""

    def __init__(self, subject: str, data: bytes, headers: dict[str, str] | None = None, delivered: int = 1) -> None:
        self.subject, self.data, self.headers = subject, data, headers or {}
        self.seq, self.delivered, self.stream = 7, delivered, "HTDAG_CMD"
        self.fate: list[str] = []

    def ack(self) -> None:
        self.fate.append("ack")

    def nak(self, delay_s: float = 0.0) -> None:
        self.fate.append(f"nak {delay_s}")

    def term(self, reason: str) -> None:
        self.fate.append(f"term {reason}")

    def in_progress(self) -> None:
        self.fate.append("in progress")


class Post:
    """Mailboxes between a host that only keeps what it gets and a bus that only keeps what it sends."""

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []
        self.sent: list[tuple[str, Any]] = []
        self.aside: list[tuple[str, str]] = []
        self.tasks: list[asyncio.Task[Any]] = []
        host: Any = SimpleNamespace(deliver=self._deliver)
        self.stored: list[tuple[str, str]] = []
        self.refuses: Rejected | None = None
        bus: Any = SimpleNamespace(publish=self._publish, dead_letter=self._dead_letter, store=self._store)
        self.metrics = Metrics()
        self.boxes = Mailboxes(
            bus, host, self.metrics, structlog.get_logger(), self._spawn, lambda: TakeTime(llm_alive=False), self._check
        )
        self.doubts: Rejected | None = None

    def _deliver(self, actor_id: str, command: RunCommand, **how: Any) -> None:
        self.kept.append({"actor_id": actor_id, "command": command, **how})

    async def _check(self, answer: TakeApproval) -> None:
        if self.doubts is not None:
            raise self.doubts

    def _publish(self, subject: str, data: bytes) -> None:
        self.sent.append((subject, json.loads(data)))

    def _store(self, subject: str, data: bytes, *, stream: str, msg_id: str) -> "asyncio.Future[Stored]":
        self.stored.append((subject, msg_id))
        future: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        if self.refuses is not None:
            future.set_exception(self.refuses)
        else:
            future.set_result(Stored(1, False))
        return future

    async def _dead_letter(self, delivery: Letter, code: str, detail: str = "") -> None:
        self.aside.append((delivery.subject, code))
        delivery.term(code)

    def _spawn(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work, name=name))

    async def settled(self) -> None:
        await asyncio.gather(*self.tasks)


SUBJECT = "htdag.v1.in.3.executor.run.r1.cancel"
START = "htdag.v1.in.3.executor.run.r1.start"
CANCEL = msgspec.json.encode(CancelRun("no"))

TRACE = f"00-{'1' * 32}-{'2' * 16}-01"


def plan(run_id: str, value: bytes) -> bytes:
    task = b'{"id":"a","node":{"type":"noop"},"context":{"a":%b}}' % value
    return b'{"type":"run.start.v1","run_id":"%b","tasks":[%b]}' % (run_id.encode(), task)


@pytest.fixture
async def post() -> Post:
    return Post()


def command(post: Post, **letter: Any) -> Letter:
    sent = Letter(SUBJECT, CANCEL, **letter)
    post.boxes.take_command(sent)  # type: ignore[arg-type]
    return sent


async def test_a_message_reaches_its_run_with_its_origin(post: Post):
    command(post, headers={"Nats-Msg-Id": "m1", HEADER_BY: "ada", HEADER_CORRELATION: "c1", "traceparent": TRACE})
    (kept,) = post.kept
    assert (kept["actor_id"], kept["command"]) == ("r1", CancelRun("no"))
    assert (kept["message_id"], kept["by"], kept["corr"], kept["trace"]) == ("m1", "ada", "c1", TRACE)
    assert kept["answered"] is None
    command(post, headers={"traceparent": "no trace"})
    assert post.kept[-1]["trace"] == ""


@pytest.mark.parametrize(
    ("error", "delivered", "fate"),
    [
        (None, 1, "ack"),
        (Interrupted(), 99, "nak 0.0"),
        (Rejected("storage_full"), 99, "nak 1.0"),
        (Rejected("nats_unavailable"), 99, "nak 1.0"),
        (Rejected("internal"), 1, "nak 1.0"),
        (ValueError("x"), POISON_DELIVERIES_MAX - 1, "nak 1.0"),
        (ValueError("x"), POISON_DELIVERIES_MAX, "term poison"),
        (UnknownType("run.later.v9"), 10 * POISON_DELIVERIES_MAX, "nak 15.0"),
        (Rejected("too_large"), POISON_DELIVERIES_MAX, "term too_large"),
    ],
)
async def test_a_message_is_settled_as_its_outcome_says(
    post: Post, error: BaseException | None, delivered: int, fate: str
):
    letter = command(post, delivered=delivered)
    post.kept[0]["settled"](error)
    await post.settled()
    assert letter.fate == [fate]


@pytest.mark.parametrize(
    ("subject", "data", "code"),
    [
        (SUBJECT, b"no json", "poison"),
        (SUBJECT, b'{"type":"run.unknown.v9"}', "poison"),
        (SUBJECT, b'{"type":"run.time.v1"}', "poison"),
        (SUBJECT, b'{"type":"run.result.v1","task_id":"a","attempt":1,"step":"body"}', "poison"),
        (SUBJECT, b"[" * 100_000, "poison"),
        (START, plan("r1", b"[" * 80 + b"]" * 80), "poison"),
        (START, plan("r2", b"1"), "bad_id"),
        (START, b'{"type":"run.add.v1","run_id":"r2","tasks":[]}', "bad_id"),
        ("htdag.v1.in.3.executor.run", CANCEL, "bad_request"),
        ("htdag.v1.in.3.executor.run.r 1.cancel", CANCEL, "bad_id"),
    ],
)
async def test_what_cannot_be_read_is_put_aside_with_a_code(post: Post, subject: str, data: bytes, code: str):
    letter = Letter(subject, data)
    post.boxes.take_command(letter)  # type: ignore[arg-type]
    await post.settled()
    assert (post.kept, post.aside, letter.fate) == ([], [(subject, code)], [f"term {code}"])
    assert post.metrics.value("htdag_dead_letters_total", stream=COMMANDS, reason=code) == 1


async def test_who_waits_is_answered_with_a_summary_or_a_refusal(post: Post):
    for _ in range(2):
        command(post, headers={HEADER_REPLY: "_INBOX.x"})
    state = run().after(start(noop("a"))).state
    answered: list[Callable[[Any], None]] = [kept["answered"] for kept in post.kept]
    answered[0](Outcome(state, 1, ()))
    answered[1](Rejected("already_finished"))
    (_, good), (_, bad) = post.sent
    assert (good["ok"], good["value"]["run_id"], good["value"]["status"]) == (True, "r1", "running")
    assert (bad["ok"], bad["error"]["code"]) == (False, "already_finished")


@pytest.mark.parametrize("reply", ["htdag.v1.cmd.x", "$JS.API.STREAM.DELETE.X", "llm.req.m", "ai.x", "a b", "_INBOX.>"])
async def test_no_answer_goes_to_a_subject_of_the_system(post: Post, reply: str):
    command(post, headers={HEADER_REPLY: reply})
    assert post.kept[0]["answered"] is None


@pytest.mark.parametrize("refused", [None, Rejected("duplicate_id")])
async def test_a_plan_that_is_refused_while_nobody_waits_becomes_a_dead_letter(post: Post, refused: Rejected | None):
    letter = Letter(START, plan("r1", b"[" * 61 + b"]" * 61))
    post.boxes.take_command(letter)  # type: ignore[arg-type]
    (kept,) = post.kept
    kept["answered"](refused or Outcome(run().after(start(noop("a"))).state, 1, ()))
    kept["settled"](None)
    await post.settled()
    assert letter.fate == (["term duplicate_id"] if refused else ["ack"])


@pytest.mark.parametrize(("refused", "fate"), [(None, "ack"), (Rejected("storage_full"), "nak 1.0")])
async def test_a_fired_timer_is_passed_on_to_the_mailbox_of_its_run(post: Post, refused: Rejected | None, fate: str):
    post.refuses = refused
    letter = Letter("htdag.v1.timer.fired.executor.run.r1", b"")
    post.boxes.take_timer(letter)  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert (post.stored, letter.fate) == ([("htdag.v1.cmd.executor.run.r1.time", "timer:r1:7")], [fate])


async def test_time_in_a_mailbox_tells_the_run_the_time(post: Post):
    letter = Letter("htdag.v1.in.3.executor.run.r1.time", b"")
    post.boxes.take_command(letter)  # type: ignore[arg-type]
    (kept,) = post.kept
    assert (kept["actor_id"], kept["command"]) == ("r1", TakeTime(llm_alive=False))
    kept["settled"](None)
    assert letter.fate == ["ack"]


async def test_a_timer_of_nobody_is_put_aside(post: Post):
    letter = Letter("htdag.v1.timer.fired.executor.run.r 1", b"")
    post.boxes.take_timer(letter)  # type: ignore[arg-type]
    await post.settled()
    assert letter.fate == ["term bad_id"]


ANSWER = msgspec.json.encode(TakeApproval("apr-1", "r1", "a", 1, "granted", "d", 1, user="aka", kind="human", step=7))
GENUINE = {HEADER_STREAM: COMMANDS}


@pytest.mark.parametrize(
    ("run_id", "verb", "headers", "taken"),
    [
        ("r1", "approval", GENUINE, True),
        ("r1", "cancel", GENUINE, False),
        ("r1", "answer", GENUINE, False),
        ("r1", "approval", {}, False),
        ("r1", "approval", {HEADER_STREAM: "HTDAG_EVT_PLANNER"}, False),
        ("r2", "approval", GENUINE, False),
    ],
)
async def test_the_answer_of_a_gate_is_believed_only_where_identity_alone_may_speak(
    post: Post, run_id: str, verb: str, headers: dict[str, str], taken: bool
) -> None:
    letter = Letter(f"htdag.v1.in.3.executor.run.{run_id}.{verb}", ANSWER, headers)
    post.boxes.take_command(letter)  # type: ignore[arg-type]
    await post.settled()
    assert bool(post.kept) == taken
    assert bool(post.aside) != taken


@pytest.mark.parametrize(
    ("code", "fate"),
    [("approval_not_genuine", "term approval_not_genuine"), ("no_responders", "nak 1.0"), ("timeout", "nak 1.0")],
)
async def test_a_release_that_is_not_proven_reaches_no_run(post: Post, code: str, fate: str) -> None:
    post.doubts = Rejected(code)
    letter = Letter("htdag.v1.in.3.executor.run.r1.approval", ANSWER, GENUINE)
    post.boxes.take_command(letter)  # type: ignore[arg-type]
    await post.settled()
    assert (post.kept, letter.fate) == ([], [fate])
