"""What somebody reads before they type a code: all of it, and no word of it is a prompt of ours."""

from typing import Any

from contracts.action_text import summary
from contracts.approval import action_digest
from services.console.approval_text import HEADS, row, shown, whole
from services.console.output import columns, duration

FORGED = "nothing\x1b[2K\rWho are you?  > \n  noop {}\n  digest 00\n"


def gate(**more: Any) -> dict[str, Any]:
    node = {"type": "tool", "tool": "shell", "args": {"cmd": ["deploy.sh"]}}
    action = more.pop("action", {"role": "admin", "title": "deploy", "node": node})
    told = {
        "approval_id": "apr-7", "run_id": "r1", "task_id": "deploy-feature", "title": "", "status": "open",
        "action": action, "digest": action_digest(action), "summary": summary(action), "expires_at_ms": 900_000,
        "user": None, "approvers": [], "requested_at": "T1", "requested_by": "executor", "expires_at": "T2",
        "answered_at": None, "reason": "", "signature_ok": None,
    }  # fmt: skip
    return {**told, **more}


def test_a_list_says_what_would_be_done() -> None:
    told = columns(HEADS, [row(gate(), 0)])
    assert told.splitlines()[1].endswith(
        "deploy-feature  " + gate()["digest"][:12] + '  15m00s      admin shell ["deploy.sh"]'
    )


def test_what_is_left_is_counted_by_the_clock_that_closes_the_gate() -> None:
    """Identity's clock may be a test's, or another machine's: it says what is left, and ours is not asked."""
    in_column = HEADS.index("EXPIRES IN")
    assert row(gate(left_ms=60_000), 899_000)[in_column] == "1m00s"
    assert row(gate(left_ms=0), 0)[in_column] == duration(0)
    assert row(gate(left_ms=None), 840_000)[in_column] == "1m00s"


def test_a_gate_is_named_by_its_task_and_a_title_stands_beside_it() -> None:
    """A title is words of whoever made the plan: it takes no task's place, and is no longer than a line."""
    listed = row(gate(title="read the docs"), 0)
    assert listed[HEADS.index("TASK")] == 'deploy-feature "read the docs"'
    assert row(gate(title="deploy-feature"), 0)[HEADS.index("TASK")] == "deploy-feature"
    long = str(row(gate(title="deploy " * 1_000), 0)[HEADS.index("TASK")])
    assert long.startswith('deploy-feature "deploy deploy')
    assert len(long) < 80
    assert whole(gate(title="read the docs")).startswith('apr-7  deploy-feature "read the docs"  run r1')


def test_the_whole_action_is_shown_and_what_it_comes_to_stands_last() -> None:
    lines = whole(gate()).splitlines()
    assert lines[0] == "apr-7  deploy-feature  run r1"
    assert '"deploy.sh"' in [line.strip() for line in lines]
    assert lines[-2:] == ['  admin shell ["deploy.sh"]', f"  digest {gate()['digest']}"]


READ = [{"tool": "fs", "what": "/code/evil.txt", "task": "read"}, {"tool": "http", "what": "example.com", "task": "ag"}]


def test_what_was_read_before_is_shown_before_somebody_says_yes() -> None:
    lines = whole(gate(read_from=READ, read_more=3)).splitlines()
    assert lines[-6:-2] == [
        "  before this, text from outside was read, which may speak in what it is given:",
        "    fs /code/evil.txt  by read",
        "    http example.com  by ag",
        "    and at least 3 more",
    ]
    assert str(row(gate(read_from=READ, read_more=3), 0)[-1]).endswith(
        "  after reading fs /code/evil.txt, http example.com, and at least 3 more"
    )
    assert "read" not in whole(gate(read_from=[], read_more=0))


def test_what_was_read_forges_nothing() -> None:
    read = [{"tool": FORGED, "what": FORGED, "task": FORGED}]
    told = whole(gate(read_from=read)).split("\n")
    assert all(line.isprintable() for line in [*told, str(row(gate(read_from=read), 0)[-1])])
    assert [line for line in told if line.startswith("  digest")] == [told[-1]]
    assert len(told) == len(whole(gate()).split("\n")) + 2


def test_an_actions_words_forge_nothing() -> None:
    node = {"type": "tool", "tool": "shell", "args": {"cmd": [FORGED]}}
    told = whole(gate(title=FORGED, action={"role": FORGED, "title": FORGED, "description": FORGED, "node": node}))
    assert all(line.isprintable() for line in told.split("\n"))
    assert [line for line in told.split("\n") if line.startswith("  digest")] == [told.split("\n")[-1]]
    assert not [line for line in told.split("\n") if line.startswith("Who are you?")]


def test_nothing_of_a_long_action_is_left_out_and_its_first_words_can_be_read() -> None:
    """Whoever releases it releases all of it, what stands behind thousands of characters too."""
    src = "-- " + "y" * 100_000 + "\nos.remove(path)"
    told = whole(gate(action={"role": "admin", "node": {"type": "lua", "src": src}, "workspace": "w1"}))
    assert f'"src": "-- {"y" * 100_000}\\nos.remove(path)"' in told
    assert '"workspace": "w1"' in told
    *_, pages, last, _ = told.split("\n")
    assert pages.endswith(" characters, page by page: htdag approvals show apr-7 | less")
    assert last.startswith("  admin lua")
    assert "page by page" not in whole(gate())


def test_one_gate_says_who_may_answer() -> None:
    assert "  may answer: every human" in shown(gate())
    assert "  may answer: aka, bo" in shown(gate(approvers=["aka", "bo"]))
