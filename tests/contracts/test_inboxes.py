"""Which reply subjects are inboxes: those that some user's `inbox` is the prefix of, and no others."""

import pytest

from contracts.permissions import USERS
from contracts.rights import inbox, is_inbox


@pytest.mark.parametrize("user", [user.name for user in USERS])
def test_every_users_inbox_is_one(user):
    assert is_inbox(f"{inbox(user)}.Qh3v.1")


@pytest.mark.parametrize(
    "subject",
    ["", "_INBOX", "_INBOX.", "_INBOX_console", "_INBOX_.x", "_INBOXES.x", "_INBOXX.y", "x._INBOX.y", "_inbox.x",
     "$JS.API.INFO", "htdag.v1.evt.executor.run.r1"],
)  # fmt: skip
def test_no_other_subject_is_one(subject):
    assert not is_inbox(subject)
