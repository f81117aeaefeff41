"""One account: what an attempt leads to, when it is locked, and that a step is accepted once."""

import msgspec
import pytest

from contracts.codec import CommitCodec
from contracts.identity import (
    AttemptAccepted,
    AttemptFailed,
    GateRef,
    MfaDisabled,
    MfaEnabled,
    PasswordJudged,
    PasswordSet,
    SecretRewrapped,
    UserCreated,
    UserEvent,
    UserLocked,
    UserNotified,
    UserUnlocked,
)
from services.identity.account.decider import (
    USER,
    CreateUser,
    InviteUser,
    JudgeAttempt,
    JudgePassword,
    Rewrap,
    SetPassword,
)
from services.identity.account.state import step_of
from tests.support.spec import NOW_MS, Spec

CODEC: CommitCodec[UserEvent] = CommitCodec(UserEvent)
MINUTE, QUARTER, YEAR = 60_000, 15 * 60_000, 365 * 86_400_000
CREATED = UserCreated(user_id="aka", name="Aka", kind="human", at_ms=NOW_MS, invitation="link")
ENABLED = MfaEnabled(secret="sealed", at_ms=NOW_MS)
STEP = step_of(NOW_MS)


def aka(*events: UserEvent) -> Spec:
    spec = Spec(USER, "aka", codec=CODEC, same=lambda user: msgspec.json.encode(msgspec.to_builtins(user)))
    return spec.given(CREATED, ENABLED, *events)


def attempt(matched: int | None, **more) -> JudgeAttempt:
    return JudgeAttempt(**{"purpose": "login", "matched": matched, "secret_no": 2, **more})


def failed(failures: int, at_ms: int = NOW_MS, **more) -> AttemptFailed:
    return AttemptFailed(**{"code": "invalid_code", "purpose": "login", "failures": failures, "at_ms": at_ms, **more})


def fail(spec: Spec, times: int) -> Spec:
    """So many wrong codes, as fast as they are judged."""
    for number in range(times):
        if number and number % 5 == 0:
            spec.later(MINUTE)
        spec.after(attempt(None))
    return spec


def test_a_right_code_is_accepted_with_its_step():
    aka().when(attempt(STEP)).then(AttemptAccepted(step=STEP, purpose="login", at_ms=NOW_MS))


def test_the_code_of_the_step_before_is_accepted():
    aka().when(attempt(STEP - 1)).then(AttemptAccepted(step=STEP - 1, purpose="login", at_ms=NOW_MS))


def test_other_steps_are_wrong_codes_whatever_the_edge_says():
    for step in (STEP + 1, STEP - 2):
        aka().when(attempt(step)).then(failed(1))


@pytest.mark.law("I7")
def test_a_code_is_accepted_once_and_the_owner_is_told_of_the_second_time():
    told = aka().after(attempt(STEP)).when(attempt(STEP))
    assert told.events[0] == failed(1, code="code_reused", step=STEP)
    assert isinstance(told.events[1], UserNotified)
    assert told.events[1].about == "code_reused"


def test_after_a_step_the_one_before_it_is_used_too():
    assert aka().after(attempt(STEP)).when(attempt(STEP - 1)).events[0].code == "code_reused"


def test_a_reset_and_a_new_secret_do_not_make_an_old_step_good_again():
    spec = aka(PasswordSet(password="sealed", at_ms=NOW_MS)).after(attempt(STEP), JudgePassword(True, "reset"))
    again = JudgeAttempt(purpose="setup", matched=STEP, secret_no=3, secret="other")
    assert spec.when(again).events[0].code == "code_reused"


def test_the_sixth_attempt_within_a_minute_is_not_judged():
    spec = aka().after(attempt(STEP), *[attempt(None)] * 4)
    spec.later(59_999).when(attempt(None)).then_rejected("rate_limited", retry_after=1)
    assert spec.state.codes.failures == 4, "what is refused is not counted"
    spec.later(1).when(attempt(None)).then(failed(5, NOW_MS + MINUTE))


def test_refused_attempts_do_not_extend_the_wait():
    spec = fail(aka(), 5)
    for _ in range(100):
        spec.when(attempt(None)).then_rejected("rate_limited", retry_after=60)
    assert spec.later(MINUTE).when(attempt(step_of(NOW_MS + MINUTE))).types() == ["AttemptAccepted"]


def test_the_tenth_failure_in_a_row_locks_for_a_quarter_of_an_hour_from_then():
    spec = fail(aka(), 9)
    at_ms = spec.now_ms
    told = spec.when(attempt(None))
    assert told.events[:2] == [failed(10, at_ms), UserLocked("code", 10, at_ms, at_ms + QUARTER)]
    assert told.events[2].about == "locked"
    spec.later(QUARTER - 1).when(attempt(step_of(at_ms + QUARTER - 1))).then_rejected("locked", retry_after=1)


def test_attempts_during_a_lock_extend_nothing_and_its_end_begins_the_count_anew():
    spec = fail(aka(), 10)
    spec.later(QUARTER - 1).when(attempt(None)).then_rejected("locked")
    spec.later(1).when(attempt(None)).then(failed(1, spec.now_ms))


def test_a_success_resets_the_count():
    spec = fail(aka(), 9).later(MINUTE)
    spec.after(attempt(step_of(spec.now_ms)))
    fail(spec.later(MINUTE), 9)
    assert not spec.state.codes.is_locked(spec.now_ms)


def test_further_locks_without_a_success_double_up_to_a_day():
    spec, lengths = aka(), []
    for _ in range(9):
        fail(spec, 10)
        lengths.append((spec.state.codes.locked_until_ms - spec.now_ms) // MINUTE)
        spec.later(spec.state.codes.locked_until_ms - spec.now_ms)
    assert lengths == [15, 30, 60, 120, 240, 480, 960, 1440, 1440]


def test_a_hundred_failures_in_a_row_lock_until_a_person_on_the_host_unlocks():
    spec = aka(PasswordSet(password="sealed", at_ms=NOW_MS))
    for _ in range(10):
        fail(spec, 10)
        spec.later(25 * 3_600_000)
    spec.later(365 * 86_400_000).when(attempt(step_of(spec.now_ms))).then_rejected("locked", needs_unlock=True)
    spec.when(JudgePassword(True, "unlock")).then(PasswordJudged(True, spec.now_ms), UserUnlocked(spec.now_ms))
    assert spec.when(attempt(step_of(spec.now_ms))).types() == ["AttemptAccepted"]


def test_a_clock_that_goes_back_opens_no_window():
    fail(aka(), 5).later(-3_600_000).when(attempt(None)).then_rejected("rate_limited")


def test_the_wait_is_told_by_the_clock_as_it_is():
    fail(aka(), 5).later(-3_600_000).when(attempt(None)).then_rejected("rate_limited", retry_after=3_660)


@pytest.mark.parametrize("home", [True, False])
def test_a_person_on_the_host_ends_what_was_judged_while_the_clock_ran_ahead(home):
    spec = aka(PasswordSet(password="sealed", at_ms=NOW_MS)).later(YEAR)
    fail(spec, 5).after(JudgePassword(False, "session", home=home)).later(-YEAR)
    spec.when(attempt(STEP)).then_rejected("rate_limited", retry_after=(YEAR + MINUTE) // 1000)
    spec.after(JudgePassword(True, "unlock", home=home))
    spec.when(attempt(STEP)).then_rejected("rate_limited", retry_after=60)
    assert spec.later(MINUTE).when(attempt(step_of(spec.now_ms))).types() == ["AttemptAccepted"]
    for _ in range(3):
        spec.after(JudgePassword(False, "session", home=home))
    assert spec.when(JudgePassword(True, "session", home=home)).types() == ["PasswordJudged"]


def test_a_reset_makes_steps_good_again_that_were_used_while_the_clock_ran_ahead():
    spec = aka(PasswordSet(password="sealed", at_ms=NOW_MS)).later(YEAR)
    spec.after(attempt(step_of(spec.now_ms))).later(-YEAR).after(JudgePassword(True, "reset")).later(MINUTE)
    set_up = JudgeAttempt(purpose="setup", matched=step_of(spec.now_ms), secret_no=3, secret="other")
    assert spec.when(set_up).types() == ["AttemptAccepted", "MfaEnabled"]


def test_a_code_compared_with_another_secret_is_not_judged():
    aka().when(attempt(STEP, secret_no=1)).then_rejected("conflict")


def test_what_a_code_releases_stands_in_its_acceptance():
    gates = (GateRef("apr-7", "9f3c"), GateRef("apr-8", "7b21"))
    told = aka().when(attempt(STEP, purpose="approval", gates=gates))
    assert told.events == [AttemptAccepted(STEP, "approval", NOW_MS, list(gates))]


def test_setting_up_over_an_enabled_secret_is_refused():
    aka().when(attempt(STEP, purpose="setup", secret="other")).then_rejected("mfa_already_enabled")


def test_the_confirming_code_enables_and_is_used():
    spec = Spec(USER, "aka", codec=CODEC, same=msgspec.to_builtins).given(CREATED)
    confirm = JudgeAttempt(purpose="setup", matched=STEP, secret_no=1, secret="sealed")
    spec.when(confirm).then(AttemptAccepted(STEP, "setup", NOW_MS), ENABLED)
    assert spec.when(attempt(STEP)).events[0].code == "code_reused"


def test_disabling_erases_the_secret_with_the_accepted_code():
    spec = aka()
    told = spec.when(attempt(STEP, purpose="disable"))
    assert told.events[1] == MfaDisabled("code", NOW_MS)
    assert spec.state.secret is None


def test_a_wrong_code_disables_nothing():
    assert aka().when(attempt(None, purpose="disable")).types() == ["AttemptFailed"]


def test_the_link_sets_the_password_once():
    spec = Spec(USER, "aka", codec=CODEC, same=msgspec.to_builtins).given(CREATED)
    spec.when(SetPassword("sealed", "other")).then_rejected("bad_link")
    spec.when(SetPassword("sealed", "link")).then(PasswordSet("sealed", NOW_MS))
    spec.when(SetPassword("mine", "link")).then_rejected("bad_link")
    spec.when(InviteUser("new")).then_rejected("password_already_set")


def test_guessing_passwords_locks_passwords_and_no_codes():
    spec = aka(PasswordSet(password="sealed", at_ms=NOW_MS))
    for number in range(10):
        if number == 5:
            spec.later(MINUTE)
        spec.after(JudgePassword(False, "reset"))
    spec.when(JudgePassword(True, "reset")).then_rejected("locked")
    assert spec.when(attempt(step_of(spec.now_ms))).types() == ["AttemptAccepted"]


def test_the_owner_is_told_when_somebody_guessed_until_the_password_was_locked():
    """Each lock notifies the human, whatever it locks."""
    spec = aka(PasswordSet(password="sealed", at_ms=NOW_MS))
    for number in range(9):
        if number == 5:
            spec.later(MINUTE)
        spec.after(JudgePassword(False, "reset"))
    told = spec.when(JudgePassword(False, "reset"))
    assert told.types() == ["PasswordJudged", "UserLocked", "UserNotified"]
    _, locked, notified = told.events
    assert (locked.what, locked.failures, notified.about) == ("password", 10, "locked")
    assert notified.text == "the password of Aka is locked after 10 wrong ones in a row"


def test_nobody_is_told_of_a_name_that_nobody_has():
    spec = Spec(USER, "b7", codec=CODEC, same=lambda user: msgspec.json.encode(msgspec.to_builtins(user)))
    for number in range(10):
        if number == 5:
            spec.later(MINUTE)
        spec.after(JudgePassword(False, "reset"), attempt(None, secret_no=0))
    assert [type(event) for event in spec.history].count(UserLocked) == 2
    assert UserNotified not in map(type, spec.history)


def test_an_account_is_created_once():
    aka().when(CreateUser("Aka", "human")).then_rejected("duplicate_id")


def test_rewrapping_changes_the_seal_and_nothing_else():
    spec = aka()
    spec.when(Rewrap(1, "new", None)).then_rejected("conflict")
    spec.when(Rewrap(2, "new", None)).then(SecretRewrapped(NOW_MS, "new"))
    assert (spec.state.secret, spec.state.password) == ("new", None)
