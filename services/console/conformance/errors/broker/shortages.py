"""On brokers of our own: streams that are missing, other ones, or full; a wrong password; no JetStream at all."""

import secrets
from typing import Final

from contracts.rights import BOOTSTRAP
from contracts.streams import EVENTS_EXECUTOR, EVENTS_PLANNER, STREAMS
from contracts.subjects import events
from services.console.conformance.errors.broker.bare import ROOM, BareBroker
from services.console.conformance.errors.scenario import Scenario, Sight
from services.runtime import provision
from services.runtime.jetstream import JetStreamEventStore

EXECUTOR: Final = "executor"
PART_BYTES: Final = 400_000
PARTS_TOO_MANY: Final = 8


async def _fill(store: JetStreamEventStore, subject: str) -> None:
    """Append what no compression makes smaller, until there is no room for it."""
    last = 0
    for number in range(PARTS_TOO_MANY):
        parts = (secrets.token_bytes(PART_BYTES),)
        last = await store.append(subject, parts, expect=last, msg_id=f"conformance-{number}", headers={})


async def _streams(broker: BareBroker, sight: Sight) -> None:
    subject = events(EXECUTOR, "run", "conformance")
    async with broker.as_user(EXECUTOR) as executor, broker.as_user(BOOTSTRAP) as bootstrap:
        store = JetStreamEventStore(executor, EVENTS_EXECUTOR)
        await sight.refused("stream_missing", store.newest(subject), f"a look into {EVENTS_EXECUTOR}")
        other = {"name": EVENTS_PLANNER, "subjects": ["conformance.other"], "retention": "workqueue"}
        await bootstrap.api(f"STREAM.CREATE.{EVENTS_PLANNER}", other)
        await sight.refused("stream_differs", provision.apply(bootstrap), f"making {EVENTS_PLANNER}")
        spec = next(spec for spec in STREAMS if spec.name == EVENTS_EXECUTOR)
        await bootstrap.api(f"STREAM.CREATE.{spec.name}", {"name": spec.name, **spec.config})
        await sight.refused("storage_full", _fill(store, subject), f"appends beyond {ROOM}")


async def _credentials(broker: BareBroker, sight: Sight) -> None:
    await sight.refused("nats_denied", broker.enter(broker.stranger_url), "a connection with a wrong password")


async def _without_jetstream(broker: BareBroker, sight: Sight) -> None:
    async with broker.as_user(BOOTSTRAP) as bus:
        await sight.refused("jetstream_unavailable", provision.apply(bus), "making streams")


LITTLE_ROOM: Final = (
    Scenario(("stream_missing", "stream_differs", "storage_full"), _streams),
    Scenario(("nats_denied",), _credentials),
)
WITHOUT_JETSTREAM: Final = (Scenario(("jetstream_unavailable",), _without_jetstream),)
