"""Accepted codes are carried out, each for itself: a gate that cannot be read keeps no other one waiting."""

from pathlib import Path
from typing import Any

from contracts.approval import ApprovalRequested, action_digest
from contracts.commit import Commit
from contracts.identity import AttemptAccepted, GateRef
from contracts.subjects import events
from services.identity.approval.decider import APPROVAL
from services.identity.approval_book import APPROVAL_CODEC, ApprovalBook
from services.identity.key_file import KeyFile
from services.identity.proofs import USER_CODEC, Finished, Proofs
from services.identity.sealing import Sealer
from services.runtime.actor import ActorHost
from services.runtime.clock import FixedClock
from services.runtime.event_store import Recorded
from services.runtime.ids import RandomIds
from services.runtime.memory import MemoryEventStore
from tests.support.spec import NOW_MS

ACTION = {"do": "it"}
DIGEST = action_digest(ACTION)


def asked(approval_id: str) -> bytes:
    request = ApprovalRequested(
        approval_id=approval_id, run_id="r1", task_id="deploy", attempt=1, digest=DIGEST, action=ACTION, title="",
        requested_by="executor", approvers=[], at_ms=NOW_MS, expires_at_ms=NOW_MS + 60_000,
    )  # fmt: skip
    return APPROVAL_CODEC.encode(Commit(at="", by="", cause="", corr="", events=[request]))


class Unsent:
    """Answers to runs, which nobody needs here."""

    def start(self, actor_id: str, effect: Any, done: Any) -> None:
        """Nothing is sent, and nothing is said to be."""


class Desk:
    """Gates in memory, of which each was asked for, and a code that released all of them but was not carried out."""

    def __init__(self, folder: Path, *gates: str) -> None:
        file = KeyFile(folder / "identity")
        file.create()
        self.store = MemoryEventStore()
        self.book = ApprovalBook()
        self.host: Any = ActorHost(
            service="identity", aggregate="approval", decider=APPROVAL, codec=APPROVAL_CODEC, store=self.store,
            clock=FixedClock(NOW_MS), ids=RandomIds(), effects=Unsent(),
        )  # fmt: skip
        self.proofs = Proofs(self.host, self.book, Sealer(file))
        accepted = AttemptAccepted(7, "approval", NOW_MS, [GateRef(gate, DIGEST) for gate in gates])
        data = USER_CODEC.encode(Commit(at="", by="", cause="", corr="", events=[accepted]))
        self.proofs.take(Recorded(1, events("identity", "user", "aka"), data, {}))

    async def wrote(self, approval_id: str, data: bytes, expect: int = 0) -> None:
        subject = events("identity", "approval", approval_id)
        seq = await self.store.append(subject, [data], expect=expect, msg_id=f"{approval_id}-{expect}", headers={})
        self.book.take(Recorded(seq, subject, data, {}))

    async def status(self, approval_id: str) -> str | None:
        return (await self.host.read(approval_id))[0].status


async def test_a_gate_that_cannot_be_read_keeps_no_other_waiting(tmp_path: Path) -> None:
    desk = Desk(tmp_path, "apr-1", "apr-2")
    for gate in ("apr-1", "apr-2"):
        await desk.wrote(gate, asked(gate))
    last = await desk.store.newest(events("identity", "approval", "apr-1"))
    newer = APPROVAL_CODEC.encode(Commit(at="", by="", cause="", corr="", events=[])).replace(
        b'"events":[]', b'"events":[{"type":"approval.moved.v9"}]'
    )
    await desk.wrote("apr-1", newer, expect=last)
    assert await desk.proofs.finish(at_start=True) == Finished(1, ["apr-1"])
    assert await desk.status("apr-2") == "granted"
    assert desk.proofs.is_pending("apr-1"), "it is answered, not late, once somebody can read it"


async def test_what_is_under_way_is_left_to_whoever_does_it_until_the_next_look(tmp_path: Path) -> None:
    desk = Desk(tmp_path, "apr-1")
    await desk.wrote("apr-1", asked("apr-1"))
    assert await desk.proofs.finish(at_start=False) == Finished(0, [])
    assert await desk.proofs.finish(at_start=False) == Finished(1, [])
    assert await desk.status("apr-1") == "granted"
