"""Who is signed in at the local listener, in memory: a restart signs everybody out."""

import secrets
from collections import OrderedDict
from typing import Final

from services.identity.invitations import digest_of
from services.runtime.clock import Clock

SESSIONS_MAX: Final = 1_000


class Sessions:
    """Random tokens, kept as digests; real time, whatever a test says of the time of day."""

    def __init__(self, clock: Clock, lasts_s: float) -> None:
        self._clock, self.lasts_s = clock, lasts_s
        self._open: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def begin(self, user_id: str) -> str:
        """A token for this account."""
        token = secrets.token_urlsafe(32)
        self._open[digest_of(token)] = (user_id, self._clock.monotonic_s() + self.lasts_s)
        if len(self._open) > SESSIONS_MAX:
            self._open.popitem(last=False)
        return token

    def user_of(self, token: str) -> str | None:
        """The account that signed in, None when nobody did or it is too long ago."""
        user_id, until_s = self._open.get(digest_of(token), ("", 0.0))
        return user_id if user_id and self._clock.monotonic_s() < until_s else None

    def end(self, user_id: str) -> None:
        """Sign this account out everywhere."""
        for digest in [digest for digest, (who, _) in self._open.items() if who == user_id]:
            del self._open[digest]
