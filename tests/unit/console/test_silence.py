"""Who of the workers hangs: three beats are missing to somebody who listened all the time; else nobody does."""

from services.console.supervision.silence import AGAIN_S, AWAY_S, Silence

TWO = {"llm-worker": "w1", "llm-worker-2": "w2"}


def listened(silence: Silence, *, until_s: float, beating: tuple[str, ...], every_s: float = 30.0) -> dict[str, float]:
    """Look every second from 0 on; who beats does so every `every_s`. What the last look says."""
    dead: dict[str, float] = {}
    for now_s in range(int(until_s) + 1):
        if now_s % every_s == 0:
            for worker in beating:
                silence.heard(worker, now_s, every_s)
        dead = silence.dead(TWO, now_s)
    return dead


def test_three_missed_beats_and_not_one_look_earlier():
    """Given two workers, when one is silent from the beginning, then it is dead with its third missed beat."""
    assert listened(Silence(), until_s=89, beating=("w1",)) == {}
    assert listened(Silence(), until_s=90, beating=("w1",)) == {"llm-worker-2": 90}


def test_the_only_workers_may_all_hang():
    """Given somebody who listens and has the broker, when nobody beats at all, then all are dead."""
    assert set(listened(Silence(), until_s=95, beating=())) == set(TWO)


def test_the_pace_is_what_the_beat_says():
    silence = Silence()
    silence.dead(TWO, 0)
    silence.heard("w1", 1, every_s=2)
    silence.heard("w2", 1, every_s=60)
    assert set(silence.dead(TWO, 7)) == {"llm-worker"}
    silence.heard("w1", 8, every_s=0)  # nonsense: a beat of no length
    assert silence.dead(TWO, 9) == {}


def test_whoever_was_away_knows_of_nobody():
    """Given two beating workers, when the one that listens is frozen for long, then nobody is dead at its return."""
    silence = Silence()
    listened(silence, until_s=80, beating=())
    assert silence.dead(TWO, 80 + AWAY_S + 1) == {}
    assert silence.dead(TWO, 80 + AWAY_S + 2) == {}


def test_a_lost_broker_begins_the_counting_anew():
    silence = Silence()
    assert listened(silence, until_s=90, beating=()) != {}
    silence.forget()
    assert silence.dead(TWO, 91) == {}


def test_another_process_of_the_program_begins_anew():
    silence = Silence()
    assert "llm-worker-2" in listened(silence, until_s=90, beating=("w1",))
    assert silence.dead({**TWO, "llm-worker-2": "w3"}, 91) == {}


def test_who_has_not_said_its_name_and_who_is_no_program_is_not_judged():
    silence = Silence()
    for now_s in range(200):
        silence.heard("stranger", now_s)
        assert silence.dead({"llm-worker": ""}, now_s) == {}


def test_a_beat_brings_back_to_life():
    silence = Silence()
    assert listened(silence, until_s=90, beating=("w1",)) != {}
    silence.heard("w2", 91)
    assert silence.dead(TWO, 91) == {}


def test_the_longest_silent_is_ended_first_and_none_again_soon():
    """Given two dead ones, when one was ended, then the other is next, and the first not before its time."""
    silence, dead = Silence(), {"llm-worker": 95.0, "llm-worker-2": 120.0}
    assert silence.to_end({}, 0) is None
    assert silence.to_end(dead, 0) == "llm-worker-2"
    silence.ended("llm-worker-2", 0)
    assert silence.to_end(dead, 1) == "llm-worker"
    silence.ended("llm-worker", 1)
    assert silence.to_end(dead, AGAIN_S - 1) is None
    assert silence.to_end(dead, AGAIN_S) == "llm-worker-2"
