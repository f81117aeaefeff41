"""What a stage sees when it is only tried."""

from services.planner.trial import trial_context


def test_a_task_is_made_whole_and_keeps_what_was_given():
    context = trial_context("decomposition", {"description": "X", "estimated_complexity": 10, "own": 1}, {})
    assert set(context) == {"task", "phase", "history", "metrics"}
    task = context["task"]
    assert (task["description"], task["estimated_complexity"], task["own"], task["role"]) == ("X", 10, 1, "coder")
    assert context["phase"] == "decomposition"


def test_the_phase_is_that_of_the_task():
    assert trial_context("agent_spawning", {"sparc_phase": "refinement"}, {})["phase"] == "refinement"


def test_the_gate_reads_its_inputs_from_the_task_or_the_context():
    given = {"code_quality": {"coverage": 0.79}}
    assert trial_context("completion", given, {})["code_quality"] == {"coverage": 0.79}
    assert trial_context("completion", given, {"code_quality": {"coverage": 1}})["code_quality"] == {"coverage": 1}
    assert "code_quality" not in trial_context("decomposition", given, {})


def test_orchestration_has_an_agent_to_orchestrate():
    assert len(trial_context("orchestration", {}, {})["agents"]) == 1
    assert trial_context("orchestration", {}, {"agents": []})["agents"] == []
