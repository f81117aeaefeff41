"""What time and crashes leave to do: gates that ran out, answers still owed, proofs not carried out, old keys in use.

Every replica looks; doing a thing twice is doing it once.
"""

import asyncio
from typing import Final

from contracts.errors import Rejected
from contracts.subjects import parse_events
from services.identity.account.decider import Rewrap
from services.identity.accounts import Accounts
from services.identity.approval.decider import TakeTime
from services.identity.approval_book import ApprovalBook
from services.identity.beginning import Beginning
from services.identity.gates import ApprovalHost
from services.identity.key_check import on_old_keys
from services.identity.proofs import Proofs
from services.runtime.clock import Clock
from services.runtime.event_store import Recorded
from services.runtime.ids import Ids
from services.runtime.lifecycle import Log
from services.runtime.metrics import Metrics

LOOK_S: Final = 0.25
OWED_S: Final = 2.0
"""An answer is normally stored within milliseconds by whoever closed the gate."""
KEYS_S: Final = 2.0
SHOWN_MAX: Final = 20


class Follow:
    """Hands each commit of identity's stream to whom it concerns, in the order of the stream."""

    def __init__(self, book: ApprovalBook, proofs: Proofs) -> None:
        self._takers = {"approval": book.take, "user": proofs.take}

    def take(self, record: Recorded) -> None:
        """Take in one commit."""
        self._takers[parse_events(record.subject).aggregate](record)


class Watch:
    """The loop behind the gates."""

    def __init__(
        self, *, host: ApprovalHost, book: ApprovalBook, proofs: Proofs, accounts: Accounts, clock: Clock, ids: Ids,
        metrics: Metrics, log: Log, beginning: Beginning,
    ) -> None:  # fmt: skip
        self._host, self._book, self._proofs, self._accounts = host, book, proofs, accounts
        self._clock, self._ids, self._metrics, self._log = clock, ids, metrics, log
        self._beginning = beginning
        self._owed_at_s = self._keys_at_s = clock.monotonic_s()
        self._version_seen = 0

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except Rejected as error:
                # The broker is away, or the clock's file: what is not done now is done next time.
                self._log.warning("watch_failed", code=error.code, reason=error.message)
            await asyncio.sleep(LOOK_S)

    async def look(self, *, at_start: bool = False) -> None:
        """Do what is to be done now. Proofs first: who proved in time is not late because we were down."""
        finished = await self._proofs.finish(at_start=at_start)
        if finished.done:
            self._log.info("proofs_finished", count=finished.done)
        if finished.failed:
            self._log.warning("proofs_not_finished", gates=finished.failed[:SHOWN_MAX], count=len(finished.failed))
        self._metrics.set("htdag_approvals_open", self._book.open)
        if self._book.open:
            due = self._book.due(self._clock.now_ms())
            self._tell([one for one in due if not self._proofs.is_pending(one)])
        now_s = self._clock.monotonic_s()
        if now_s - self._owed_at_s >= OWED_S:
            self._owed_at_s = now_s
            # Loading such a gate starts what it still owes.
            self._tell(self._book.owing())
        if now_s - self._keys_at_s >= KEYS_S:
            self._keys_at_s = now_s
            await self._rewrap()

    def _tell(self, approval_ids: list[str]) -> None:
        for approval_id in approval_ids:
            self._host.deliver(approval_id, TakeTime(), message_id=self._ids.new(), by="identity")

    async def _rewrap(self) -> None:
        """After a rotation, seal everything anew, so that the old keys can be dropped."""
        sealer = self._accounts.sealer
        version = sealer.version
        if version == self._version_seen:
            return
        self._beginning.takes(sealer.newest)
        done = 0
        for entry in await self._accounts.directory.entries():
            user, _ = await self._accounts.users.read(entry.user_id)
            user_id, old = user.user_id, on_old_keys(sealer, user)
            if not old:
                continue
            sealed = {kind: sealer.seal(user_id, kind, secret) for kind, secret in old.items()}
            command = Rewrap(user.secret_no, sealed.get("totp"), sealed.get("password"))
            await self._accounts.users.ask(user_id, command, by="identity")
            done += 1
        self._version_seen = version
        if done:
            self._log.info("secrets_rewrapped", count=done)
