"""An account from a snapshot is the account of its log, whatever came behind."""

from hypothesis import given
from hypothesis import strategies as st

from contracts.identity import AttemptAccepted, AttemptFailed, PasswordJudged, UserCreated, UserEvent, UserLocked
from services.identity.account.snapshot import dump, restore
from services.identity.account.state import User, evolve

AT = 1_700_000_000_000

EVENTS = st.lists(
    st.one_of(
        st.integers(1, 9).map(lambda n: AttemptFailed(purpose="login", code="invalid_code", failures=1, at_ms=AT + n)),
        st.integers(1, 9).map(lambda n: AttemptAccepted(purpose="login", step=n, at_ms=AT + n)),
        st.booleans().map(lambda ok: PasswordJudged(ok=ok, at_ms=AT)),
        st.sampled_from([None, AT + 900_000]).map(
            lambda until: UserLocked(what="code", failures=10, at_ms=AT, until_ms=until)
        ),
    ),
    max_size=30,
)


@given(before=EVENTS, behind=EVENTS)
def test_a_snapshot_and_what_follows_is_the_whole_log(before: list[UserEvent], behind: list[UserEvent]) -> None:
    created = UserCreated(
        user_id="aka", name="Aka", kind="human", at_ms=AT, secret="sealed", credential=None, invitation=None
    )
    whole, taken = User("aka"), User("aka")
    for event in [created, *before]:
        whole, taken = evolve(whole, event), evolve(taken, event)
    taken = restore(dump(taken))
    for event in behind:
        whole, taken = evolve(whole, event), evolve(taken, event)
    assert taken == whole
