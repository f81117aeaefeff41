"""On the scratch instance, near its end: logs that somebody writes into who may not."""

from typing import Final

import msgspec

from contracts.policy import AUDIT_ID
from contracts.run_proofs import ReplayReport
from contracts.streams import EVENTS_EXECUTOR, EVENTS_POLICY_GATEWAY
from contracts.subjects import events
from services.console.bench.runs import must_be_equal
from services.console.conformance.errors.scenario import Scenario, Sight, not_there
from services.console.conformance.errors.scratch.instance import Scratch
from services.runtime.jetstream import JetStreamEventStore

POISONED: Final = "conformance-poisoned"
FORGED: Final = "conformance-forged"


async def _poison(scratch: Scratch, sight: Sight) -> None:
    """The log of a run begins with what is no commit."""
    async with scratch.as_user("executor") as bus:
        await JetStreamEventStore(bus, EVENTS_EXECUTOR).append(
            events("executor", "run", POISONED), (b"this is no commit",), expect=0, msg_id=POISONED, headers={}
        )
    read = scratch.ask("executor.run.get", {"run_id": POISONED})
    await sight.refused("poison", read, f"executor run.get of {POISONED}")


async def _audit(scratch: Scratch, sight: Sight) -> None:
    """The last entry of the audit stands there twice."""
    await scratch.tool("coder", "fs", {"read": "/code/nothing"})
    subject = events("policy-gateway", "audit", AUDIT_ID)
    async with scratch.as_user("policy-gateway") as bus:
        store = JetStreamEventStore(bus, EVENTS_POLICY_GATEWAY)
        last = await store.last(subject)
        if last is None:
            raise not_there("entry of the audit")
        await store.append(subject, (last.data,), expect=last.seq, msg_id="conformance-twice", headers={})
    await sight.refused("audit_broken", scratch.ask("policy-gateway.policy.verify", {}), "policy-gateway policy.verify")


async def _replay(scratch: Scratch, sight: Sight) -> None:
    """A log that is another one's but for one result: it does not lead to the digest at its end."""
    await scratch.run("conformance-true", [{"id": "a", "node": {"type": "noop", "result": "as-it-was"}}])
    async with scratch.as_user("executor") as bus:
        store = JetStreamEventStore(bus, EVENTS_EXECUTOR)
        log = [record.data async for record in store.read(events("executor", "run", "conformance-true"))]
        changed = [part.replace(b"conformance-true", FORGED.encode()) for part in log]
        changed[-1] = changed[-1].replace(b"as-it-was", b"changed")
        await store.append(events("executor", "run", FORGED), changed, expect=0, msg_id=FORGED, headers={})
    report = msgspec.convert(await scratch.ask("executor.run.replay", {"run_id": FORGED}), ReplayReport)
    sight.raised("replay_differs", lambda: must_be_equal([report]), f"executor run.replay of {FORGED}")


FORGED_LOGS: Final = (
    Scenario(("poison",), _poison),
    Scenario(("replay_differs",), _replay),
    Scenario(("audit_broken",), _audit),
)
