"""The board is a pure projection: given these events, it shows this."""

from contracts import run as events
from contracts.commit import Commit
from contracts.llm import LlmInput, LlmRequest, Usage
from contracts.task import GroupNode, TaskSpec
from services.console.run_board import Board, at_ms, take, take_chunk, take_commit

AT = 1_790_000_000_000


def board_of(*story) -> Board:
    board = Board("r1")
    for step, event in enumerate(story):
        take(board, event, AT + step * 1000)
    return board


CREATED = events.RunCreated("r1", AT + 60_000, goal="Build it", strategy="standard@1")
ADDED = events.TasksAdded([TaskSpec("spec"), TaskSpec("impl", depends_on=["spec"])])


def request(task_id: str, node_id: str) -> events.LlmRequested:
    llm = LlmRequest(LlmInput([{"role": "user", "content": "x"}]), run_id="r1", node_id=node_id, corr_id="c")
    return events.LlmRequested(task_id, 1, "llm-1", llm, AT + 9)


def test_counts_follow_every_state():
    board = board_of(CREATED, ADDED, events.TaskStarted("spec", 1, AT), events.TaskCompleted("spec", 1, "done"))
    assert (board.status, board.goal, board.strategy) == ("running", "Build it", "standard@1")
    assert {state: count for state, count in board.counts.items() if count} == {"completed": 1, "pending": 1}
    assert board.tasks["spec"].started_at_ms == AT + 2000
    assert board.tasks["spec"].ended_at_ms == AT + 3000


def test_a_failure_blocks_and_names_the_culprit():
    board = board_of(
        CREATED,
        ADDED,
        events.TaskStarted("spec", 1, AT),
        events.TaskFailed("spec", 1, {"code": "timeout", "message": "late"}),
        events.TaskBlocked("impl", "spec"),
        events.RunEnded("failed", {"failed": 1}, "d", error={"code": "child_failed", "message": "x"}),
    )
    assert board.ended
    assert board.error == {"code": "child_failed", "message": "x"}
    assert board.tasks["impl"].blocked_by == "spec"
    assert board.tasks["spec"].error == {"code": "timeout", "message": "late"}


def test_tokens_and_cost_are_sums_and_unknown_is_not_zero():
    def answer(cost):
        return events.LlmAnswered(
            "spec", 1, "llm-1", "c", output="x", model_used="smollm2", usage=Usage(3, 4, 7), cost_usd_micros=cost
        )

    board = board_of(CREATED, ADDED, request("spec", "spec"), answer(1200), request("spec", "spec"), answer(None))
    assert (board.llm_calls, board.tokens, board.cost_usd_micros, board.cost_unknown) == (2, 14, 1200, True)
    assert board.tasks["spec"].models == ["smollm2"]


def test_a_failed_call_does_not_make_the_price_unknown():
    failed = events.LlmAnswered("spec", 1, "llm-1", "c", error={"code": "timeout", "message": "late"})
    assert not board_of(CREATED, ADDED, request("spec", "spec"), failed).cost_unknown


def test_calls_that_were_refused_or_recorded_are_no_calls_of_a_model():
    refused = events.LlmAnswered("spec", 1, "llm-1", "c", error={"code": "epic_budget_exceeded", "message": "no"})
    recorded = events.LlmAnswered("spec", 1, "llm-1", "c", output="x", usage=Usage(3, 4, 7), cached=True)
    stopped = events.LlmAnswered("spec", 1, "llm-1", "c", error={"code": "timeout"}, usage=Usage(3, 4, 7))
    asked = request("spec", "spec")
    assert board_of(CREATED, ADDED, asked).llm_calls == 1
    board = board_of(CREATED, ADDED, asked, refused, asked, recorded)
    assert (board.llm_calls, board.tokens, board.cost_unknown) == (0, 0, False)
    board = board_of(CREATED, ADDED, asked, stopped)
    assert (board.llm_calls, board.tokens, board.cost_unknown) == (1, 7, True)


def test_a_call_that_was_let_go_counts_when_it_is_over():
    asked = request("spec", "spec")
    failed = events.TaskFailed("spec", 1, {"code": "timeout", "message": "late"})
    board = board_of(CREATED, ADDED, asked, failed)
    assert board.unsettled == {asked.request.corr_id}
    board = board_of(CREATED, ADDED, asked, failed, events.LlmSettled("spec", "c", "smollm2", Usage(3, 4, 7), 50))
    assert (board.llm_calls, board.tokens, board.cost_usd_micros) == (1, 7, 50)
    assert (board.tasks["spec"].cost_usd_micros, board.tasks["spec"].models) == (50, ["smollm2"])
    board = board_of(CREATED, ADDED, asked, failed, events.LlmSettled("spec", asked.request.corr_id))
    assert (board.llm_calls, board.tokens, board.unsettled) == (0, 0, set())


def test_chunks_reach_the_task_of_their_node():
    board = board_of(CREATED, ADDED, events.TaskStarted("spec", 1, AT), request("spec", "spec--a1-llm-1"))
    assert take_chunk(board, "spec--a1-llm-1", "Hel") == "spec"
    assert take_chunk(board, "spec--a1-llm-1", "lo") == "spec"
    assert board.tasks["spec"].tail == "Hello"
    assert take_chunk(board, "nobody", "x") is None


def test_a_retry_a_rework_and_a_reset_are_seen():
    board = board_of(
        CREATED,
        ADDED,
        events.TaskStarted("spec", 1, AT),
        events.TaskRetryScheduled("spec", 1, AT, {"code": "timeout", "message": "late"}),
        events.TaskStarted("spec", 2, AT),
        events.TaskReworked("spec", 2, 1, ["Coverage below 80%"]),
        events.TaskFailed("spec", 2, {"code": "rework_exhausted", "message": "no"}),
        events.RunEnded("failed", {}, "d"),
        events.TaskReset("spec"),
        events.RunResumed(AT + 99),
    )
    task = board.tasks["spec"]
    assert (task.attempt, task.reworks, task.status, task.error) == (2, 1, "pending", None)
    assert (board.status, board.ended) == ("running", False)


def test_children_hang_below_their_parent():
    board = board_of(
        CREATED, events.TasksAdded([TaskSpec("root", node=GroupNode()), TaskSpec("a", parent="root", depth=1)])
    )
    assert board.tasks["root"].children == ["a"]
    assert board.tasks["root"].group


def test_events_of_unknown_tasks_change_nothing():
    board = board_of(CREATED, events.TaskCompleted("ghost", 1), events.TaskBlocked("ghost", "x"))
    assert board.tasks == {}
    assert board.counts == {}


def test_the_time_of_a_commit_is_the_time_of_its_events():
    board = Board("r1")
    take_commit(board, Commit("2026-11-20T17:00:00.500Z", "me", "c", "c", [CREATED, ADDED]))
    assert board.events == 2
    assert board.started_at_ms == at_ms("2026-11-20T17:00:00.500Z") == 1_795_194_000_500
    assert board.elapsed_s(1_795_194_002_500) == 2.0
