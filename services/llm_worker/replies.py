"""Sending to a subject that a stranger named: only where an answer can do no harm, and never at the cost of a call."""

from typing import Any, Final

from contracts.errors import Rejected
from services.runtime.bus import Bus

REPLY_CHARS_MAX: Final = 1_024
"""The broker closes the connection of whoever sends it a protocol line that is much longer."""
OURS: Final = ("htdag.", "$", "llm.", "ai.")
"""Where a message means something to us or to the broker: whoever may only ask must not speak there in our name."""


def may_hear(subject: str) -> bool:
    """Whether `subject` can be somebody's inbox."""
    return (
        0 < len(subject) <= REPLY_CHARS_MAX
        and subject.isprintable()
        and not any(sign in subject for sign in " *>")
        and not subject.startswith(OURS)
    )


def reply(bus: Bus, log: Any, subject: str, data: bytes) -> None:
    """Send an answer if anybody waits for it. What cannot be sent is told to the log; the journal has it."""
    if not subject:
        return
    if not may_hear(subject):
        log.warning("reply_dropped", subject=subject[:100], reason="not an inbox")
        return
    try:
        bus.publish(subject, data)
    except Rejected as error:
        log.warning("reply_dropped", subject=subject[:100], reason=error.code)
