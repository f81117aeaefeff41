"""Whether identity may begin with an owner of its own making: once, and never over accounts that were lost.

Somebody who can empty the log could otherwise be the next owner. A mark beside the keys says that there were accounts,
and from which message on the log was complete; a log that holds less is refused until a person on the host puts it
back, or says that identity shall begin anew (`htdag users begin-anew`).
"""

from pathlib import Path

import msgspec

from contracts.errors import Rejected
from contracts.identity import BEGAN_FILE, BEGIN_ANEW_FILE
from services.identity.own_files import write_private


class Mark(msgspec.Struct, frozen=True):
    """There were accounts, and `first_seq` was the oldest message of the log.

    `public_key` is identity's own, hex, and `newest` the mark of the key that it last sealed with: from the files alone
    they show whether a key file is another home's or an older copy. No secret can be had from either.
    """

    first_seq: int = 1
    public_key: str = ""
    newest: str = ""


def check_log(*, accounts: bool, first_seq: int, mark: Mark | None) -> None:
    """Return when the log is as it was left. Raises accounts_lost."""
    # Nothing ever leaves this log by itself: what does not begin where it began was cut.
    if first_seq > (mark.first_seq if mark is not None else 1):
        raise Rejected("accounts_lost", "the beginning of identity's log is gone", first_seq=first_seq)
    if mark is not None and not accounts:
        raise Rejected("accounts_lost", "there were accounts here, and identity's log holds none")


class Beginning:
    """The mark of one home, and the wish to begin anew. `first_seq` is that of the log as it was found."""

    def __init__(self, keys: Path, *, accounts: bool, first_seq: int) -> None:
        self._mark_file, self._wish = keys / BEGAN_FILE, keys / BEGIN_ANEW_FILE
        self._accounts, self._first_seq = accounts, first_seq

    def check(self) -> None:
        """Raises accounts_lost, unless somebody on the host wants to begin anew."""
        if not self._wish.exists():
            check_log(accounts=self._accounts, first_seq=self._first_seq, mark=self._mark())

    def done(self, public_key: str, newest: str = "") -> None:
        """There are accounts now: from here on the log must keep them."""
        mark = self._mark()
        if mark is None or self._wish.exists():
            mark = Mark(max(self._first_seq, 1))
        self._put(msgspec.structs.replace(mark, public_key=public_key, newest=newest))
        self._wish.unlink(missing_ok=True)

    def takes(self, newest: str) -> None:
        """Identity is about to seal with another key: from here on a key file without it is an older copy."""
        mark = self._mark()
        if mark is not None:
            self._put(msgspec.structs.replace(mark, newest=newest))

    def _put(self, mark: Mark) -> None:
        if mark != self._mark():
            write_private(self._mark_file, msgspec.json.encode(mark).decode() + "\n")

    def _mark(self) -> Mark | None:
        try:
            return msgspec.json.decode(self._mark_file.read_bytes(), type=Mark)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise Rejected("bad_config", f"{BEGAN_FILE} cannot be read", hint=str(self._mark_file)) from error
