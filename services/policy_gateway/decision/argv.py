"""A command as a list of words: never a shell string, bounded, without NUL. Newlines and shell characters are data."""

from typing import Any, Final

from services.policy_gateway.decision.shape import bad_args
from services.policy_gateway.decision.verdict import Deny

WORDS_MAX: Final = 4096
WORD_BYTES_MAX: Final = (128 << 10) - 1
"""What the kernel takes for one word, its closing NUL aside."""
COMMAND_BYTES_MAX: Final = 1 << 20


def command(cmd: Any) -> list[str] | Deny:
    """The words of `cmd`."""
    if type(cmd) is not list:
        return bad_args("cmd", "a list of words, not a shell string" if type(cmd) is str else "a list of words")
    if not cmd:
        return bad_args("cmd", "at least one word")
    if len(cmd) > WORDS_MAX:
        return bad_args("cmd", f"at most {WORDS_MAX} words", words=len(cmd))
    for number, word in enumerate(cmd):
        if type(word) is not str:
            return bad_args(f"cmd[{number}]", "a text")
    whole = "".join(cmd)
    if "\0" in whole:
        return bad_args("cmd", "no NUL characters")
    if whole.isascii() and len(whole) <= WORD_BYTES_MAX:
        return cmd
    return _weighed(cmd)


def _weighed(cmd: list[str]) -> list[str] | Deny:
    total = 0
    for number, word in enumerate(cmd):
        try:
            size = len(word) if word.isascii() else len(word.encode())
        except UnicodeEncodeError:
            return bad_args(f"cmd[{number}]", "Unicode text without lone surrogates")
        if size > WORD_BYTES_MAX:
            return bad_args(f"cmd[{number}]", f"at most {WORD_BYTES_MAX} bytes", bytes=size)
        total += size
    if total > COMMAND_BYTES_MAX:
        return bad_args("cmd", f"at most {COMMAND_BYTES_MAX} bytes together", bytes=total)
    return cmd
