"""Asking for tools: which subject and body, again and again under the same ids, and an outcome in every case."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from contracts import reply
from contracts.errors import Rejected
from contracts.limits import TOOL_RESULT_CHARS_MAX
from contracts.run_tools import TakeToolResult
from services.executor.run.effects import CallTool
from services.executor.tool_caller import ToolCaller, ToolOutcome
from services.executor.tool_results import fit
from services.runtime.bus import Message
from services.runtime.clock import FixedClock
from tests.unit.executor.test_effect_runner import Bench

CLOCK_MS = FixedClock().now_ms()


def call(**fields: Any) -> CallTool:
    given: dict[str, Any] = {"args": {"cmd": ["mix", "test"]}, "opts": {"timeout": 1000}, "for_model": True, **fields}
    return CallTool("a", 2, 3, "coder", given.pop("tool", "shell"), deadline_at_ms=CLOCK_MS + 60_000, **given)


class Gateway:
    """Answers one request after the other as told; an answer takes as long as the caller has patience."""

    def __init__(self, clock: FixedClock, *answers: Any) -> None:
        self.clock, self.answers = clock, [*answers]
        self.asked: list[tuple[str, Any]] = []
        self.patience_s: list[float] = []

    async def request(
        self, subject: str, data: bytes, *, timeout_s: float = 10.0, headers: Mapping[str, str] | None = None
    ) -> Message:
        self.asked.append((subject, msgspec.json.decode(data)))
        self.patience_s.append(timeout_s)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, str):
            self.clock.advance(int(timeout_s * 1000) if answer == "timeout" else 1000)
            raise Rejected(answer)
        if isinstance(answer, Message):
            return answer
        return Message("_INBOX.1", answer if isinstance(answer, bytes) else reply.ok(answer), {}, "")


async def outcome(effect: CallTool, *answers: Any, bytes_max: int = 1 << 18) -> tuple[ToolOutcome, Gateway]:
    gateway = Gateway(FixedClock(), *answers)
    caller = ToolCaller(gateway, gateway.clock, result_bytes_max=bytes_max, nobody_s=0.0)
    return await caller.call("r1", effect), gateway


async def test_a_call_names_role_tool_arguments_and_what_it_belongs_to():
    found, gateway = await outcome(call(), {"exit": 0})
    assert found == ToolOutcome({"exit": 0})
    task = {"run_id": "r1", "task_id": "a", "attempt": 2, "call": 3}
    assert gateway.asked == [
        (
            "htdag.v1.tool.coder.shell",
            {"args": {"cmd": ["mix", "test"]}, "opts": {"timeout": 1000}, "task": task, "workspace": None},
        )
    ]


async def test_a_call_of_an_admin_task_has_a_subject_of_its_own():
    """The plain one is for people: the executor's key may not publish there."""
    effect = msgspec.structs.replace(call(), role="admin")
    _, gateway = await outcome(effect, {"exit": 0})
    assert [subject for subject, _ in gateway.asked] == ["htdag.v1.tool.admin.shell.task"]


async def test_a_call_that_can_only_be_refused_says_so():
    _, gateway = await outcome(msgspec.structs.replace(call(), barred=True), refused("forbidden_tool"))
    ((subject, body),) = gateway.asked
    assert (subject, body["barred"]) == ("htdag.v1.tool.coder.shell", True)


async def test_it_is_asked_again_under_the_same_name_until_it_is_answered():
    found, gateway = await outcome(call(), "no_responders", "timeout", "nats_unavailable", {"exit": 0})
    assert found.value == {"exit": 0}
    assert gateway.patience_s == [10.0] * 4
    assert all(asked == gateway.asked[0] for asked in gateway.asked)


def refused(code: str, **detail: Any) -> bytes:
    return reply.refused(Rejected(code, **detail))


async def test_a_gateway_without_room_is_asked_again_and_a_full_tool_is_an_answer():
    found, gateway = await outcome(call(), refused("mailbox_full", retry_after_s=1.0), {"exit": 0})
    assert (found.value, len(gateway.asked)) == ({"exit": 0}, 2)
    found, gateway = await outcome(call(), refused("mailbox_full"), {"exit": 0})
    assert found.error is not None
    assert (found.error["code"], len(gateway.asked)) == ("mailbox_full", 1)


@pytest.mark.parametrize(
    ("silence", "code"), [("timeout", "timeout"), ("no_responders", "service_unavailable")]
)  # fmt: skip
async def test_at_the_deadline_the_call_ends_with_what_was_missing(silence: str, code: str):
    found, gateway = await outcome(call(), silence)
    assert found.error is not None
    assert found.error["code"] == code
    assert gateway.clock.now_ms() == CLOCK_MS + 60_000
    assert gateway.patience_s[-1] <= 10.0


async def test_a_denial_is_the_result_as_the_gateway_says_it():
    denial = Rejected("timeout_exceeded", max=300_000, requested=3_600_000)
    found, _ = await outcome(call(), reply.refused(denial))
    assert found.error == denial.to_wire()
    assert (found.error["class"], found.error["max"]) == ("policy_violation", 300_000)


async def test_a_name_that_is_no_tool_reaches_the_gateway_all_the_same():
    """There it is refused and recorded, as every call is."""
    _, gateway = await outcome(call(tool="shell.>" + "x" * 500), {})
    ((subject, body),) = gateway.asked
    assert subject == "htdag.v1.tool.coder.unnameable"
    assert (body["args"]["tool"][:8], len(body["args"]["tool"])) == ("shell.>x", 200)
    assert body["args"]["args"] == {"cmd": ["mix", "test"]}


@pytest.mark.parametrize(
    "said",
    [
        b"nonsense",
        b'{"ok":tru',
        b"\xff",
        b'{"ok":true,"value":' + b"[" * 500 + b"]" * 500 + b"}",
        Message("x", b"", {"Nats-Service-Error": "busy"}, ""),
    ],
)
async def test_a_reply_that_cannot_be_read_is_a_bad_reply(said: Any):
    found, _ = await outcome(call(), said)
    assert found.error is not None
    assert found.error["code"] == "bad_reply"


async def test_a_call_that_is_too_large_for_the_broker_ends():
    found, _ = await outcome(call(), "too_large")
    assert found.error is not None
    assert found.error["code"] == "too_large"


async def test_a_model_gets_as_much_as_it_is_shown_and_a_task_gets_more():
    long = {"stdout": "x" * 100_000, "stderr": "short", "exit": 0}
    found, _ = await outcome(call(), long)
    assert found.truncated
    assert (found.value["exit"], found.value["stderr"]) == (0, "short")
    assert len(msgspec.json.encode(found.value)) <= TOOL_RESULT_CHARS_MAX
    assert "[… cut: 100000 characters in all]" in found.value["stdout"]
    found, _ = await outcome(call(for_model=False), long)
    assert (found.value, found.truncated) == (long, False)
    found, _ = await outcome(call(for_model=False), long, bytes_max=50_000)
    assert found.truncated
    assert 48_000 < len(msgspec.json.encode(found.value)) <= 50_000


async def test_what_the_gateway_has_cut_is_known_as_cut():
    found, _ = await outcome(call(), {"stdout": "x", "truncated": True})
    assert found == ToolOutcome({"stdout": "x", "truncated": True}, truncated=True)


async def test_an_outcome_goes_into_the_mailbox_under_its_call():
    bench = Bench()
    bench.bus.reply = Message("x", reply.ok({"exit": 0}), {}, "")
    assert await bench.outcome(call()) == TakeToolResult("a", 2, 3, {"exit": 0})
    bench.bus.reply = Message("x", reply.refused(Rejected("forbidden_command")), {}, "")
    assert (await bench.outcome(call())).error["code"] == "forbidden_command"
    bench.bus.reply = Message("x", b'{"ok":false,"error":5}', {}, "")
    assert (await bench.outcome(call())).error["code"] == "bad_reply"
    bench.bus.reply = ValueError("broken")  # type: ignore[assignment]
    assert (await bench.outcome(call())).error["code"] in {"internal", "bad_reply"}


@pytest.mark.parametrize(
    "value",
    [
        ["x" * 50_000] * 10,
        {str(number): "y" * 100 for number in range(5_000)},
        [[number] for number in range(100_000)],
        "ü" * 90_000,
        {"a": {"b": ["\x00" * 30_000, {"c": "z" * 5}]}},
    ],
)
def test_everything_can_be_made_to_fit(value: Any):
    cut, was_cut = fit(value, 10_000)
    assert was_cut
    assert len(msgspec.json.encode(cut)) <= 10_000
    assert "cut" in msgspec.json.encode(cut).decode()
    assert fit(cut, 10_000) == (cut, False)
