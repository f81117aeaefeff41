"""The chain: what is linked holds, and whatever is changed afterwards shows, and where."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.policy import ToolDecided
from services.policy_gateway.audit import chain
from services.policy_gateway.audit.chain import Broken, Head

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def entry(args: object = None) -> ToolDecided:
    return ToolDecided(
        n=0, prev="", hash="", at_ms=5, id="c", verdict="allow", role="coder", tool="fs", by="x", gateway="g",
        policy_version=1, policy_digest="d", rule="r", args=args, args_sha256="s",
    )  # fmt: skip


def stored(linked: ToolDecided) -> dict:
    """As it comes back from the log."""
    return msgspec.json.decode(msgspec.json.encode(linked))


@given(st.lists(json_values, min_size=1, max_size=5))
def test_what_is_linked_is_verified_whatever_the_arguments_are(many: list[object]) -> None:
    head = checked = Head()
    for args in many:
        linked = chain.linked(entry(args), head)
        head = chain.after(linked, head)
        checked = chain.check(stored(linked), checked)
    assert (checked.n, checked.hash) == (head.n, head.hash) == (len(many), head.hash)


@pytest.mark.law("I11")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"role": "admin"}, "changed"),
        ({"args": {"read": "/x"}}, "changed"),
        ({"a_field_of_tomorrow": 1}, "changed"),
        ({"n": 2}, "numbered 2"),
        ({"prev": "f" * 64}, "does not follow"),
        ({"hash": "f" * 64}, "changed"),
    ],
)
def test_what_is_changed_is_found(change: dict, reason: str) -> None:
    fields = stored(chain.linked(entry(), Head()))
    with pytest.raises(Broken, match=reason) as broken:
        chain.check(fields | change, Head())
    assert broken.value.n == 1


def test_an_entry_of_a_newer_version_holds_with_its_new_fields() -> None:
    fields = stored(entry()) | {"n": 1, "prev": Head().hash, "a_field_of_tomorrow": {"x": [1]}}
    fields["hash"] = chain.digest_of(fields)
    assert chain.check(fields, Head()).n == 1
