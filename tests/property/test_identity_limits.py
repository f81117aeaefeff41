"""Any story of attempts on one account against a naive model that keeps every attempt and counts anew each time."""

from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.codec import CommitCodec
from contracts.commit import Commit
from contracts.errors import Rejected
from contracts.identity import (
    AttemptAccepted,
    AttemptFailed,
    MfaEnabled,
    PasswordJudged,
    UserCreated,
    UserEvent,
    UserLocked,
    UserNotified,
)
from services.identity.account.decider import USER, JudgeAttempt, JudgePassword
from services.identity.account.state import User, step_of
from services.runtime.decider import fold

CODEC: CommitCodec[UserEvent] = CommitCodec(UserEvent)
START_MS = 1_790_000_000_000
BEGIN: list[UserEvent] = [UserCreated("aka", "Aka", "human", START_MS), MfaEnabled("sealed", START_MS)]


class Judged(NamedTuple):
    at_ms: int
    step: int | None


class Naive:
    """Everything that was ever judged, in order, and the locks; nothing is kept that could be counted."""

    def __init__(self) -> None:
        self.judged: list[Judged] = []
        self.locks: list[tuple[int, int]] = []
        """At which length of `judged` it was locked, and until when."""

    def say(self, now_ms: int, matched: int | None) -> str:
        if self.in_a_row() >= 100 or (self.locks and now_ms < self.locks[-1][1]):
            return "locked"
        if len([one for one in self.judged if now_ms - 60_000 < one.at_ms]) >= 5:
            return "rate_limited"
        used = max((one.step for one in self.judged if one.step is not None), default=0)
        step = now_ms // 30_000
        if matched in (step, step - 1) and matched > used:
            self.judged.append(Judged(now_ms, matched))
            return "accepted"
        verdict = "code_reused" if matched in (step, step - 1) else "invalid_code"
        self.judged.append(Judged(now_ms, None))
        since = max(self.last_success(), self.locks[-1][0] if self.locks else 0)
        if len(self.judged) - since >= 10:
            doubled = len([1 for length, _ in self.locks if length > self.last_success()])
            self.locks.append((len(self.judged), now_ms + min(900_000 << doubled, 86_400_000)))
        return verdict

    def last_success(self) -> int:
        return max((number for number, one in enumerate(self.judged, 1) if one.step is not None), default=0)

    def in_a_row(self) -> int:
        return len(self.judged) - self.last_success()


WAITS = st.sampled_from([0, 1, 999, 12_000, 29_999, 30_000, 59_999, 60_000, 60_001, 900_000, 1_800_000, 86_400_000])
FITS = st.sampled_from([None, None, None, -2, -1, 0, 0, 1])
STORY = st.lists(st.tuples(WAITS, FITS), max_size=250)


def judge(user: User, now_ms: int, matched: int | None) -> tuple[str, list[UserEvent]]:
    command = JudgeAttempt(purpose="login", matched=matched, secret_no=user.secret_no)
    try:
        events = list(USER.decide(command, user, now_ms))
    except Rejected as refused:
        return refused.code, []
    match events[0]:
        case AttemptAccepted():
            return "accepted", events
        case AttemptFailed(code=code):
            return code, events
        case _:
            raise AssertionError(events)


@given(STORY)
def test_every_verdict_is_that_of_the_naive_model(story):
    user, naive, now_ms = fold(USER, USER.initial("aka"), BEGIN), Naive(), START_MS
    history = list(BEGIN)
    for wait, fits in story:
        now_ms += wait
        matched = None if fits is None else step_of(now_ms) + fits
        verdict, events = judge(user, now_ms, matched)
        assert verdict == naive.say(now_ms, matched)
        user = fold(USER, user, events)
        history += events
    commit = Commit(at="", by="", cause="", corr="", events=history)
    told = CODEC.decode(CODEC.encode(commit)).events
    assert msgspec.to_builtins(fold(USER, USER.initial("aka"), told)) == msgspec.to_builtins(user)


@pytest.mark.law("I7")
@given(STORY, st.integers(0, 3))
def test_never_more_than_five_in_a_minute_nor_a_step_twice_whatever_the_clocks(story, skew):
    """Clocks of replicas differ and go back; each attempt may be judged by another one."""
    user, true_ms = fold(USER, USER.initial("aka"), BEGIN), START_MS
    judged: list[int] = []
    steps: list[int] = []
    for number, (wait, fits) in enumerate(story):
        true_ms += wait
        now_ms = true_ms - (number % 3) * skew * 700
        matched = None if fits is None else step_of(now_ms) + fits
        _, events = judge(user, now_ms, matched)
        user = fold(USER, user, events)
        judged += [event.at_ms for event in events if isinstance(event, AttemptAccepted | AttemptFailed)]
        steps += [event.step for event in events if isinstance(event, AttemptAccepted)]
    assert judged == sorted(judged)
    assert all(sixth - first >= 60_000 for first, sixth in zip(judged, judged[5:], strict=False))
    assert steps == sorted(set(steps))


@given(STORY)
def test_a_lock_is_the_tenth_failure_and_nothing_is_judged_within_it(story):
    user, now_ms, until_ms = fold(USER, USER.initial("aka"), BEGIN), START_MS, 0
    for wait, fits in story:
        now_ms += wait
        matched = None if fits is None else step_of(now_ms) + fits
        verdict, events = judge(user, now_ms, matched)
        assert now_ms >= until_ms or verdict == "locked"
        user = fold(USER, user, events)
        for event in events:
            if isinstance(event, UserLocked) and event.until_ms is not None:
                assert event.until_ms >= now_ms + 900_000
                until_ms = event.until_ms


class Guesses:
    """What a naive reader of the rules allows who gives passwords from one place, the home or elsewhere."""

    def __init__(self) -> None:
        self.judged: list[tuple[int, bool]] = []
        self.locks: list[tuple[int, int]] = []

    def say(self, now_ms: int, *, fits: bool, home: bool) -> str:
        if self.locks and now_ms < self.locks[-1][1]:
            return "locked"
        if len([1 for at_ms, _ in self.judged if now_ms - 60_000 < at_ms]) >= 5:
            return "rate_limited"
        self.judged.append((now_ms, fits))
        if fits:
            self.locks.clear()
            return "right"
        in_a_row = next((n for n, (_, right) in enumerate(reversed(self.judged)) if right), len(self.judged))
        since = len(self.judged) - max(len(self.judged) - in_a_row, self.locks[-1][0] if self.locks else 0)
        if not home and (since >= 10 or in_a_row >= 100):
            length_ms = 86_400_000 if in_a_row >= 100 else min(900_000 << len(self.locks), 86_400_000)
            self.locks.append((len(self.judged), now_ms + length_ms))
        return "wrong"


BURST = st.tuples(
    st.sampled_from([0, 12_000, 12_000, 60_000, 900_000]),
    st.sampled_from([False, False, True]),
    st.booleans(),
    st.integers(1, 12),
)
"""So many passwords in a row from one place, all right or all wrong, so long after each other."""


@given(st.lists(BURST, max_size=30))
def test_passwords_have_limits_of_their_own_and_the_home_has_its_own_of_those(bursts):
    user, now_ms = fold(USER, USER.initial("aka"), BEGIN), START_MS
    places = {True: Guesses(), False: Guesses()}
    codes = msgspec.to_builtins(user.codes)
    for wait, fits, home in (burst[:3] for burst in bursts for _ in range(burst[3])):
        now_ms += wait
        try:
            events = list(USER.decide(JudgePassword(fits, "session", home), user, now_ms))
            verdict = "right" if events[0] == PasswordJudged(True, now_ms, home) else "wrong"
        except Rejected as refused:
            events, verdict = [], refused.code
        assert verdict == places[home].say(now_ms, fits=fits, home=home)
        assert any(isinstance(event, UserNotified) for event in events) == any(
            isinstance(event, UserLocked) for event in events
        )
        user = fold(USER, user, events)
    assert msgspec.to_builtins(user.codes) == codes, "guessing passwords locks no codes"
