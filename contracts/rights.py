"""Users of the broker, their inboxes, and what they may do: allow and deny lists as nats-server judges them."""

from collections.abc import Iterable
from typing import Final

import msgspec

OPERATOR: Final = "operator"
"""People, and every program that is not htdag's own."""
BOOTSTRAP: Final = "bootstrap"
NODES: Final = "executor-nodes"
"""The executor's second user, by which the nats nodes of runs speak to subjects outside of htdag."""
FOREIGN: Final = "foreign-worker"
"""A worker in any language that serves models for llm-worker."""
AGENT_PREFIX: Final = "agent-"
INBOX: Final = "_INBOX"
_INBOX_OF: Final = f"{INBOX}_"


def inbox(user: str) -> str:
    """The prefix of a user's reply subjects: nobody but that user hears them."""
    return INBOX if user == OPERATOR else f"{_INBOX_OF}{user}"


def is_inbox(subject: str) -> bool:
    """Whether a message there can only reach somebody's inbox: by its first token, as the broker's lists have it.

    Whoever answers asks this of every reply subject: a stranger chose it, and elsewhere the answer would be said in
    the name of the service that gives it, where that service alone may write.
    """
    prefix, _, rest = subject.partition(".")
    return bool(rest) and (prefix == INBOX or (prefix.startswith(_INBOX_OF) and prefix != _INBOX_OF))


class Rights(msgspec.Struct, frozen=True, kw_only=True):
    """Subjects, as the broker's allow and deny lists take them; deny goes before allow."""

    publish: tuple[str, ...] = ()
    publish_not: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    subscribe_not: tuple[str, ...] = ()


class User(msgspec.Struct, frozen=True, kw_only=True):
    """One user of the broker. It logs in by an NKey, or with a password."""

    name: str
    meaning: str
    rights: Rights
    password: bool = False


def covers(pattern: str, subject: str) -> bool:
    """Whether a subject pattern matches a subject (or a narrower pattern), as the broker sees it."""
    wanted, tokens = pattern.split("."), subject.split(".")
    for number, token in enumerate(wanted):
        if token == ">":
            return len(tokens) > number
        if number >= len(tokens) or tokens[number] == ">" or token not in ("*", tokens[number]):
            return False
    return len(wanted) == len(tokens)


def may_publish(user: User, subject: str) -> bool:
    """Whether the broker takes a message of this user on this subject."""
    return _may(subject, user.rights.publish, user.rights.publish_not)


def may_subscribe(user: User, subject: str) -> bool:
    """Whether the broker takes a subscription of this user; what is denied below a wildcard is not delivered."""
    return _may(subject, user.rights.subscribe, user.rights.subscribe_not)


def _may(subject: str, allow: Iterable[str], deny: Iterable[str]) -> bool:
    return any(covers(one, subject) for one in allow) and not any(covers(one, subject) for one in deny)
