"""Who may have it kept that nobody wants a call any more: those who ask for calls and those who make them, alone."""

import pytest

from contracts.permissions import BY_NAME
from contracts.rights import OPERATOR, may_publish
from contracts.streams import LLM_WITHDRAWALS
from contracts.subjects import llm_withdrawn

WISH = llm_withdrawn("c1")
MAY = {"executor", "llm-worker"}


@pytest.mark.parametrize("user", BY_NAME)
def test_only_executor_and_llm_worker_keep_wishes(user: str) -> None:
    assert may_publish(BY_NAME[user], WISH) is (user in MAY)


@pytest.mark.parametrize("user", sorted(BY_NAME.keys() - {OPERATOR}))
def test_only_llm_worker_looks_for_them(user: str) -> None:
    assert may_publish(BY_NAME[user], f"$JS.API.DIRECT.GET.{LLM_WITHDRAWALS}.{WISH}") is (user == "llm-worker")


def test_any_id_of_a_call_is_one_token_of_a_subject() -> None:
    assert all(len(llm_withdrawn(corr_id).split(".")) == len(WISH.split(".")) for corr_id in ("a.b", "*>", "x" * 256))
