"""What the gateway itself knows of a run: its workspace, and of each task whose it is, how far, and what it asks for.

A projection of the executor's log, read up to now before every judgement: no call can say of itself whose it is.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from contracts.commit import HEADER_TYPES
from contracts.errors import Rejected
from contracts.policy import CallOf, ToolCall
from contracts.run_gates import TaskApproved
from contracts.run_tools import ToolRequested
from contracts.streams import EVENTS_EXECUTOR
from contracts.subjects import check_id
from contracts.subjects import events as event_subject
from contracts.task import ROLE_ALIASES
from services.policy_gateway.requested import Requested, digest_of
from services.runtime.bus import Bus
from services.runtime.event_store import Recorded
from services.runtime.folded_log import FoldedLog
from services.runtime.lifecycle import Log

LOOKS_MAX: Final = 40
LOOK_AGAIN_S: Final = 0.05
_BEGINS: Final = "task.started.v1"
_APPROVED: Final = "task.approved.v1"
_ASKS: Final = "tool.requested.v1"
_ANSWERED: Final = "tool.answered.v1"
_RESTS: Final = {
    "task.completed.v1": "completed",
    "task.failed.v1": "failed",
    "task.retry_scheduled.v1": "pending",
    "task.blocked.v1": "blocked",
    "task.cancelled.v1": "cancelled",
    "task.reset.v1": "pending",
}
_DEADLINES: Final = frozenset({"run.created.v1", "run.resumed.v1"})
_NEEDED: Final = frozenset({_BEGINS, _APPROVED, _ASKS, _ANSWERED, *_RESTS, *_DEADLINES, "tasks.added.v1"})
_TOOLLESS: Final = frozenset({"llm", "lua", "noop", "approval", "group"})
"""Nodes that are carried out without any tool. Behind a nats node may stand a program with a key for tools."""
_LOGGED: Final = frozenset({"agent", "tool"})
"""Nodes whose calls the executor makes: each stands in the log before it is sent."""


class _Node(msgspec.Struct, frozen=True):
    type: str = "agent"
    tools: list[str] | None = None
    tool: str = ""
    args: Any = {}
    opts: Any = {}

    def allowed(self) -> frozenset[str] | None:
        """The only tools that a task with this node may use; None: all of its role."""
        if self.type == "agent":
            return None if self.tools is None else frozenset(self.tools)
        if self.type == "tool":
            return frozenset((self.tool,))
        return frozenset() if self.type in _TOOLLESS else None


class _Spec(msgspec.Struct, frozen=True):
    id: str
    role: str = "coder"
    node: _Node = _Node()


class _Options(msgspec.Struct, frozen=True):
    workspace: str | None = None


class _Event(msgspec.Struct, frozen=True):
    """Any event of a run, as far as it matters here; the rest is not even read."""

    type: str
    task_id: str = ""
    attempt: int = 0
    call: int = 0
    deadline_at_ms: int = 0
    tasks: list[_Spec] = []
    options: _Options = _Options()


class _Commit(msgspec.Struct, frozen=True):
    at: str
    events: list[_Event]


class _Whole(msgspec.Struct, frozen=True):
    """The events as they were written, for the few that are read whole."""

    events: list[msgspec.Raw]


_DECODE: Final = msgspec.json.Decoder(_Commit).decode
_DECODE_WHOLE: Final = msgspec.json.Decoder(_Whole).decode
_DECODE_ASKED: Final = msgspec.json.Decoder(ToolRequested).decode
_DECODE_APPROVED: Final = msgspec.json.Decoder(TaskApproved).decode


class TaskFacts(NamedTuple):
    """One task as the log has it now. `role` is one that has rights: aliases are resolved."""

    role: str
    tools: frozenset[str] | None = None
    """The only tools it may use, None: all of its role."""
    status: str = "pending"
    attempt: int = 0
    deadline_at_ms: int = 0
    release: TaskApproved | None = None
    """What the log says of a human's release, last; it proves nothing yet: see services.policy_gateway.releases."""
    added_seq: int = 0
    """Where the log has the whole task."""
    logged: bool = False
    """Whether its calls are the executor's alone to make."""
    only: str = ""
    """The digest of its one call, "" when it may make several."""


class _Run:
    """See services.runtime.folded_log.Fold."""

    def __init__(self) -> None:
        self.seq = 0
        self.workspace: str | None = None
        self.begun_at = ""
        self.deadline_at_ms = 0
        self.tasks: dict[str, TaskFacts] = {}
        self.requested = Requested()

    @property
    def weight(self) -> int:
        return len(self.tasks) + len(self.requested)

    def take(self, record: Recorded) -> None:
        self.seq = record.seq
        types = record.headers.get(HEADER_TYPES)
        if types is not None and _NEEDED.isdisjoint(types.split(",")):
            return
        commit = _DECODE(record.data)
        whole: list[msgspec.Raw] = []
        if any(event.type in (_ASKS, _APPROVED) for event in commit.events):
            whole = _DECODE_WHOLE(record.data).events
        for number, event in enumerate(commit.events):
            if event.type == "run.created.v1":
                self.workspace, self.begun_at = event.options.workspace, commit.at
            if event.type in _DEADLINES:
                self.deadline_at_ms = event.deadline_at_ms
            for spec in event.tasks:
                self._add(spec)
            task = self.tasks.get(event.task_id)
            if task is None:
                continue
            if event.type == _BEGINS:
                self.tasks[event.task_id] = task._replace(
                    status="in_progress", attempt=event.attempt, deadline_at_ms=event.deadline_at_ms
                )
                self.requested.drop(event.task_id)
            elif event.type == _APPROVED:
                self.tasks[event.task_id] = task._replace(release=_DECODE_APPROVED(whole[number]))
            elif event.type in _RESTS:
                self.tasks[event.task_id] = task._replace(status=_RESTS[event.type])
                self.requested.drop(event.task_id)
            elif event.attempt == task.attempt and event.type == _ASKS:
                self.requested.ask(_DECODE_ASKED(whole[number]), task.only)
            elif event.attempt == task.attempt and event.type == _ANSWERED:
                self.requested.answered(event.task_id, event.call)

    def _add(self, spec: _Spec) -> None:
        node = spec.node
        only = digest_of(node.tool, node.args, node.opts) if node.type == "tool" else ""
        self.tasks[spec.id] = TaskFacts(
            ROLE_ALIASES.get(spec.role, spec.role), node.allowed(), added_seq=self.seq, logged=node.type in _LOGGED,
            only=only,
        )  # fmt: skip
        self.requested.drop(spec.id)


class Bound(NamedTuple):
    """What a call of a task is bound to, whatever the call says. Behind `deadline_at_ms` nobody waits for it."""

    role: str
    tools: frozenset[str] | None
    workspace: str | None
    begun_at: str
    deadline_at_ms: int
    release: TaskApproved | None = None
    """What the log says of a human's release of this attempt; see services.policy_gateway.releases."""
    added_seq: int = 0
    stale: Rejected | None = None
    """Why the task is not at this attempt; None when it is. Whose it is counts first."""
    not_its: Rejected | None = None
    """Why this is no call that the task makes now; None when it is."""


class RunFacts:
    """Looks calls up in the runs they belong to."""

    def __init__(self, bus: Bus, log: Log) -> None:
        self._bus, self._log = bus, log
        self._runs: FoldedLog[_Run] = FoldedLog(
            lambda subject, after: bus.history(EVENTS_EXECUTOR, subject, after), _Run, self._take
        )

    async def bound(self, call: CallOf, tool: str, asked: ToolCall) -> Bound:
        """The task of a call as it is now; `stale` says that it is not at this attempt, `not_its` whose call it is not.

        Raises Rejected: bad_id, bad_request, run_not_found, task_not_found.
        """
        check_call(call)
        subject = event_subject("executor", "run", call.run_id)
        for _ in range(LOOKS_MAX):
            run = await self._runs.get(subject)
            if _asks(run, call) or await self._bus.newest(EVENTS_EXECUTOR, subject) <= run.seq:
                return _of_call(run, call, tool, asked)
            # A replica is a moment behind the one that acknowledged what this call follows from.
            await asyncio.sleep(LOOK_AGAIN_S)
        return _of_call(await self._runs.get(subject), call, tool, asked)

    async def over(self, run_id: str, calls: Iterable[CallOf]) -> dict[CallOf, Rejected]:
        """Those of these calls of one run whose task is not at their attempt any more, as its log has it by now."""
        run = await self._runs.get(event_subject("executor", "run", run_id))
        found: dict[CallOf, Rejected] = {}
        for call in calls:
            try:
                stale = _bound(run, call).stale
            except Rejected:
                # A log that cannot be read says of nothing that it is over.
                continue
            if stale is not None:
                found[call] = stale
        return found

    def _take(self, run: _Run, record: Recorded) -> None:
        try:
            run.take(record)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            # What it said is not known; a task that it may have begun is not begun as far as calls go.
            self._log.error("record_unreadable", subject=record.subject, seq=record.seq, reason=str(error)[:500])


def _is_at(run: _Run, call: CallOf) -> bool:
    task = run.tasks.get(call.task_id)
    return bool(run.begun_at) and task is not None and task.status == "in_progress" and task.attempt == call.attempt


def _asks(run: _Run, call: CallOf) -> bool:
    return _is_at(run, call) and (not run.tasks[call.task_id].logged or run.requested.has(call))


def _of_call(run: _Run, call: CallOf, tool: str, asked: ToolCall) -> Bound:
    bound = _bound(run, call)
    logged = run.tasks[call.task_id].logged
    return bound._replace(not_its=run.requested.refusal(call, tool, asked)) if logged else bound


def check_call(call: CallOf) -> None:
    """Refuse what cannot be a call of a task. Raises Rejected: bad_id, bad_request."""
    check_id(call.run_id, "task.run_id")
    check_id(call.task_id, "task.task_id")
    if call.attempt < 1 or call.call < 1:
        field = "task.attempt" if call.attempt < 1 else "task.call"
        raise Rejected("bad_request", "attempts and calls are counted from 1", field=field)


def _bound(run: _Run, call: CallOf) -> Bound:
    if not run.begun_at:
        raise Rejected("run_not_found", run_id=call.run_id)
    task = run.tasks.get(call.task_id)
    if task is None:
        raise Rejected("task_not_found", run_id=call.run_id, task_id=call.task_id)
    stale = None if _is_at(run, call) else Rejected("stale_attempt", attempt=task.attempt, status=task.status)
    deadline_at_ms = min(task.deadline_at_ms, run.deadline_at_ms)
    released = task.release is not None and task.release.attempt == call.attempt
    return Bound(
        task.role, task.tools, run.workspace, run.begun_at, deadline_at_ms, task.release if released else None,
        task.added_seq, stale,
    )  # fmt: skip
