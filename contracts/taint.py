"""What brought text from outside into the tasks of a run, and so may have spoken to their models.

Executor tells it of tasks and of gates: whoever releases an admin task sees what was read before it.
"""

from typing import Final

import msgspec

READ_MAX: Final = 10
"""So many different things that a task read are told; the others are counted."""
READERS_MAX: Final = 10
"""So many tasks before a task that read something are named."""
READ_FROM_MAX: Final = 20
"""So many things that were read before a gate are told with it."""
READ_FROM_LISTED_MAX: Final = 5
"""Beside many other gates so many; `approval.show` has all that are told."""
WHAT_CHARS_MAX: Final = 120


class Reading(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that was read: by which tool, and what: a path, a host, an image, the name of a program.

    `task` says which task read it, where several could have. Contents, arguments and query strings never stand here.
    """

    tool: str
    what: str = ""
    task: str = ""


def fits(read_from: list[Reading]) -> bool:
    """Whether what is told of a gate is within its bounds."""
    words = (word for one in read_from for word in (one.tool, one.what, one.task))
    return len(read_from) <= READ_FROM_MAX and all(len(word) <= WHAT_CHARS_MAX for word in words)


def listed(read_from: list[Reading], more: int) -> tuple[list[Reading], int]:
    """What is told of a gate among many, and how many more there are at least."""
    return read_from[:READ_FROM_LISTED_MAX], more + max(0, len(read_from) - READ_FROM_LISTED_MAX)
