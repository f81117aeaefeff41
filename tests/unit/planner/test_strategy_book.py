"""Which strategy a task gets, and that the projection follows what is stored."""

import pytest

from contracts.commit import Commit
from contracts.errors import Rejected
from contracts.strategy import StrategyActivated, StrategyBody, StrategyDeactivated, StrategyEvent, StrategyPut
from services.planner.shipped import shipped_strategies
from services.planner.strategy.state import Strategy, evolve
from services.planner.strategy_book import STRATEGY_CODEC, StrategyBook
from services.runtime.event_store import Recorded


def put(name: str, version: int = 1, *, pattern: str = ".*", priority: int = 0) -> StrategyPut:
    body = StrategyBody(scripts={"decomposition": f"return {version}"}, pattern=pattern, priority=priority)
    return StrategyPut(name=name, version=version, body=body, digest=f"{name}{version}")


def record(seq: int, event: StrategyEvent) -> Recorded:
    data = STRATEGY_CODEC.encode(Commit(at="", by="", cause="", corr="", events=[event]))
    return Recorded(seq, f"htdag.v1.evt.planner.strategy.{event.name}", data, {})


def book(*events: StrategyEvent) -> StrategyBook:
    made = StrategyBook()
    for seq, event in enumerate(events, 1):
        made.take(record(seq, event))
    return made


def chosen(made: StrategyBook, text: str) -> str | None:
    choice = made.choose(text)
    return choice.label if choice else None


def test_the_highest_priority_that_matches_wins_then_the_name():
    made = book(
        put("standard"),
        put("secure", pattern="(implement|build|create).*(auth|security|payment)", priority=10),
        put("builder", pattern="build", priority=5),
        put("assembler", pattern="build", priority=5),
    )
    assert chosen(made, "Build user authentication") == "secure@1"
    assert chosen(made, "BUILD a house") == "assembler@1"
    assert chosen(made, "Write a poem") == "standard@1"


def test_no_match_is_no_strategy():
    assert chosen(book(put("quick", pattern="hotfix")), "Build it") is None
    assert chosen(book(), "Build it") is None


def test_an_older_version_is_chosen_after_a_rollback_and_none_after_the_last():
    made = book(put("s"), put("s", 2))
    assert chosen(made, "x") == "s@2"
    made.take(record(3, StrategyActivated(name="s", version=1, reason="rollback")))
    assert chosen(made, "x") == "s@1"
    made.take(record(4, StrategyDeactivated(name="s", reason="rollback")))
    assert chosen(made, "x") is None
    assert [view.version for view in made.views()] == [0]


def test_what_is_delivered_twice_or_late_changes_nothing():
    made = book(put("s"), put("s", 2))
    made.take(record(1, put("s")))
    assert chosen(made, "x") == "s@2"


def test_an_own_decision_counts_before_it_is_delivered():
    made = book(put("s"))
    state = Strategy("s")
    for event in (put("s"), put("s", 2)):
        state = evolve(state, event)
    made.replace(state, 7)
    evolve(state, put("s", 3))  # the actor's own state goes on; the book keeps what it was given
    assert chosen(made, "x") == "s@2"
    made.take(record(7, put("s", 2)))
    assert [view.versions for view in made.views()] == [[1, 2]]


def test_a_reference_names_the_active_or_one_version():
    made = book(put("s"), put("s", 2))
    assert made.find("s").label == "s@2"
    assert made.find("s@1").body.scripts == {"decomposition": "return 1"}
    for reference, code in (("t", "strategy_not_found"), ("s@9", "strategy_not_found"), ("s@x", "bad_request")):
        with pytest.raises(Rejected) as refused:
            made.find(reference)
        assert refused.value.code == code


def test_an_inactive_strategy_is_found_only_by_its_version():
    made = book(put("s"), StrategyDeactivated(name="s"))
    with pytest.raises(Rejected) as refused:
        made.find("s")
    assert refused.value.code == "strategy_not_found"
    assert made.find("s@1").label == "s@1"


def test_a_pattern_that_only_a_later_program_understands_is_never_chosen():
    assert chosen(book(put("new", pattern="(?<=x)y", priority=9), put("old")), "xy") == "old@1"


def test_the_program_ships_standard_with_all_four_stages():
    [standard] = [command for command in shipped_strategies() if command.name == "standard"]
    assert set(standard.body.scripts) == {"decomposition", "agent_spawning", "orchestration", "completion"}
    assert (standard.body.pattern, standard.body.priority) == (".*", 0)


@pytest.mark.parametrize(
    "manifest",
    [
        "name = ",
        'name = "x"\nsurprise = 1\n[scripts]',
        'name = "x"\n[scripts]\ndance = "a.lua"',
        'name = "x"\n[scripts]\ncompletion = "no.lua"',
    ],
)
def test_a_shipped_folder_that_is_broken_is_a_clear_error(tmp_path, manifest):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "strategy.toml").write_text(manifest)
    (tmp_path / "x" / "a.lua").write_text("return 1")
    with pytest.raises(Rejected) as refused:
        shipped_strategies(tmp_path)
    assert refused.value.code == "bad_config"


def test_a_strategy_whose_active_version_nobody_here_could_read_is_still_listed():
    made = book(put("s", 2), StrategyActivated(name="s", version=3))
    assert [(view.name, view.version, view.versions) for view in made.views()] == [("s", 3, [2])]
    assert chosen(made, "x") is None
