"""The folds behind status, result, graph and the list of epics."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from contracts.commit import HEADER_SUMMARY, Commit
from contracts.epic import EpicCreated, GoalPlanned
from contracts.run import (
    LlmAnswered,
    RunCreated,
    RunEvent,
    TaskBlocked,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskReset,
    TaskRetryScheduled,
    TasksAdded,
    TaskStarted,
)
from contracts.run_gates import TaskApprovalRequested, TaskApproved
from contracts.subjects import events as event_subject
from contracts.task import TaskSpec
from services.planner import epic_list
from services.planner.epic_list import EpicList, Progress
from services.planner.epic_reading import EPIC_CODEC, EpicReading, plan_of, planned_in
from services.planner.task_board import RUN_CODEC, TaskBoard, result_in
from services.runtime.event_store import Recorded
from services.runtime.folded_log import FoldedLog
from services.runtime.memory import MemoryEventStore


def run_record(seq: int, *events: RunEvent) -> Recorded:
    data = RUN_CODEC.encode(Commit(at="", by="", cause="", corr="", events=list(events)))
    return Recorded(seq, event_subject("executor", "run", "r1"), data, {})


def board(*events: RunEvent) -> TaskBoard:
    made = TaskBoard()
    for seq, event in enumerate(events, 1):
        made.take(run_record(seq, event))
    return made


ADDED = TasksAdded(tasks=[TaskSpec(id=name) for name in "abcd"])


def test_a_board_shows_the_state_of_every_task():
    made = board(
        RunCreated(run_id="r1", deadline_at_ms=1, epic_id="auth"),
        ADDED,
        *(TaskStarted(name, 1, 9) for name in "abc"),
        LlmAnswered(task_id="a", attempt=1, step="llm-1", corr_id="c", output="x"),
        TaskCompleted("a", 1, {"k": 1}),
        TaskFailed("b", 1, {"code": "timeout"}),
        TaskBlocked("d", "b"),
    )
    assert made.states() == {"a": "completed", "b": "failed", "c": "in_progress", "d": "blocked"}
    assert made.tasks["b"].error == {"code": "timeout"}
    assert made.tasks["d"].blocked_by == "b"
    assert made.created is not None
    assert made.created.epic_id == "auth"


def test_a_task_that_waits_for_a_human_says_so_until_it_is_released():
    asked = TaskApprovalRequested("a", 1, "apr-1", "d", 9)
    assert board(ADDED, asked).states()["a"] == "waiting_approval"
    assert board(ADDED, asked, TaskApproved("a", 1, "apr-1", "d", "aka", 7, 5)).states()["a"] == "pending"


def test_a_task_that_is_tried_again_is_pending():
    made = board(ADDED, TaskStarted("a", 1, 9), TaskRetryScheduled("a", 1, 5, {}), TaskCancelled("b"), TaskReset("b"))
    assert made.states() == {"a": "pending", "b": "pending", "c": "pending", "d": "pending"}


def test_a_result_is_read_from_the_commit_that_completed_the_task():
    record = run_record(7, TaskCompleted("x", 1, 1), TaskCompleted("a", 1, {"files": ["f"]}))
    made = board(ADDED)
    made.take(record)
    assert made.tasks["a"].seq == 7
    assert result_in(record, "a") == {"files": ["f"]}


class Log:
    """A history in memory that counts how often and from where it is read."""

    def __init__(self) -> None:
        self.store = MemoryEventStore()
        self.reads: list[tuple[str, int]] = []

    def history(self, subject: str, after: int) -> AsyncIterator[Recorded]:
        self.reads.append((subject, after))
        return self.store.read(subject, after)

    async def write(self, run_id: str, *events: RunEvent) -> int:
        subject = event_subject("executor", "run", run_id)
        last = await self.store.last(subject)
        data = RUN_CODEC.encode(Commit(at="", by="", cause="", corr="", events=list(events)))
        return await self.store.append(
            subject, [data], expect=last.seq if last else 0, msg_id=f"m{len(self.reads)}{run_id}{data!r}", headers={}
        )


def subject_of(run_id: str) -> str:
    return event_subject("executor", "run", run_id)


async def test_each_read_sees_everything_and_reads_only_what_is_new():
    log = Log()
    boards = FoldedLog(log.history, TaskBoard, TaskBoard.take)
    first = await log.write("r1", ADDED)
    assert (await boards.get(subject_of("r1"))).states()["a"] == "pending"
    await log.write("r1", TaskStarted("a", 1, 9))
    assert (await boards.get(subject_of("r1"))).states()["a"] == "in_progress"
    assert log.reads == [(subject_of("r1"), 0), (subject_of("r1"), first)]


async def test_the_least_used_logs_are_forgotten_and_read_again():
    log = Log()
    boards = FoldedLog(log.history, TaskBoard, TaskBoard.take, entries_max=2, weight_max=100)
    for run_id in ("r1", "r2", "r3"):
        await log.write(run_id, ADDED)
        await boards.get(subject_of(run_id))
    log.reads.clear()
    assert len((await boards.get(subject_of("r1"))).tasks) == 4
    assert log.reads == [(subject_of("r1"), 0)]


async def test_heavy_logs_are_forgotten_first_come_first_gone():
    log = Log()
    boards = FoldedLog(log.history, TaskBoard, TaskBoard.take, weight_max=7)
    for run_id in ("r1", "r2"):
        await log.write(run_id, ADDED)
        await boards.get(subject_of(run_id))
    log.reads.clear()
    await boards.get(subject_of("r2"))
    await boards.get(subject_of("r1"))
    assert [after for _, after in log.reads] == [8 - 6, 0]


async def test_asking_for_what_is_not_there_pushes_nothing_out():
    log = Log()
    boards = FoldedLog(log.history, TaskBoard, TaskBoard.take, entries_max=1)
    await log.write("r1", ADDED)
    await boards.get(subject_of("r1"))
    for number in range(5):
        assert (await boards.get(subject_of(f"ghost{number}"))).tasks == {}
    log.reads.clear()
    await boards.get(subject_of("r1"))
    assert log.reads[0][1] > 0


def test_an_epic_reading_knows_where_each_plan_stands():
    planned = GoalPlanned(run_id="r1", goal="Build", strategy=None, tasks=[TaskSpec(id="a", depth=2)])
    events: list[Any] = [EpicCreated(epic_id="auth", title="Auth"), planned]
    data = EPIC_CODEC.encode(Commit(at="", by="", cause="", corr="", events=events))
    record = Recorded(9, event_subject("planner", "epic", "auth"), data, {})
    reading = EpicReading()
    reading.take(record)
    assert (reading.epic.epic_id, reading.plan_seqs) == ("auth", {"r1": 9})
    assert planned_in(record, "r1") == planned
    assert planned_in(record, "r2") is None
    plan = plan_of(planned, "auth")
    assert (plan.run_id, plan.epic_id, plan.depth, plan.tasks) == ("r1", "auth", 2, planned.tasks)


def header_record(subject: str, seq: int, summary: dict[str, Any] | None) -> Recorded:
    headers = {} if summary is None else {HEADER_SUMMARY: msgspec.json.encode(summary).decode()}
    return Recorded(seq, subject, b"", headers)


def note(made: EpicList, epic_id: str, seq: int, created_at_ms: int) -> None:
    subject = event_subject("planner", "epic", epic_id)
    made.take_epic(header_record(subject, seq, {"title": epic_id.title(), "created_at_ms": created_at_ms}))


def run_summary(made: EpicList, run_id: str, **numbers: Any) -> None:
    made.take_run(header_record(event_subject("executor", "run", run_id), 1, numbers))


def test_epics_are_listed_newest_first_page_by_page():
    made = EpicList()
    for seq, epic_id in enumerate(("old", "mid", "new"), 1):
        note(made, epic_id, seq, seq * 1000)
    assert [epic_id for epic_id, _ in made.page(2, None)] == ["new", "mid"]
    assert [epic_id for epic_id, _ in made.page(2, "mid")] == ["old"]
    assert made.page(2, "nobody") == []


def test_progress_is_the_sum_of_the_runs_as_they_stand_now():
    made = EpicList()
    run_summary(made, "r1", epic_id="auth", total=4, completed=1, failed=0)
    run_summary(made, "r2", epic_id="auth", total=2, completed=0, failed=1)
    run_summary(made, "r1", epic_id="auth", total=4, completed=4, failed=0)
    run_summary(made, "r3", total=9, completed=9, failed=0)
    assert made.progress("auth") == Progress(6, 4, 1)
    assert made.progress("other") == Progress()
    assert (made.epic_of("r1"), made.epic_of("r3")) == ("auth", None)


def test_the_runs_of_an_epic_are_known_by_name_whoever_started_them(monkeypatch):
    monkeypatch.setattr(epic_list, "RUNS_PER_EPIC_MAX", 2)
    made = EpicList()
    for run_id in ("r1", "r2", "r1", "r3"):
        run_summary(made, run_id, epic_id="auth", total=1)
    assert made.runs("auth") == ["r2", "r3"]
    assert made.runs("other") == []


def test_runs_beyond_the_bound_stay_in_the_sum(monkeypatch):
    monkeypatch.setattr(epic_list, "RUNS_MAX", 2)
    made = EpicList()
    for number in range(4):
        run_summary(made, f"r{number}", epic_id="auth", total=1, completed=1, failed=0)
    assert made.progress("auth") == Progress(4, 4, 0)
    assert made.epic_of("r0") is None


def test_an_own_decision_counts_before_it_is_delivered_and_older_news_does_not():
    made = EpicList()
    made.note("auth", {"title": "New", "created_at_ms": 5}, 7)
    note(made, "auth", 6, 5)
    assert made.page(9, None)[0][1].title == "New"


def test_commits_without_a_summary_change_nothing():
    made = EpicList()
    made.take_epic(header_record(event_subject("planner", "epic", "auth"), 1, None))
    made.take_run(header_record(event_subject("executor", "run", "r1"), 1, None))
    assert made.page(9, None) == []
