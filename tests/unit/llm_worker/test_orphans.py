"""What dead workers left is found, however many calls of the living are in front of it."""

import structlog

from contracts.subjects import LLM_CLAIM
from services.llm_worker.ledger.decider import Reserve
from services.llm_worker.ledger.limits import Limits
from services.llm_worker.ledger.orphans import ASKED_AT_ONCE_MAX, SILENT_MAX, YOUNG_MS, Orphans
from services.runtime.bus import Bus, Message
from services.runtime.clock import SystemClock
from services.runtime.metrics import Metrics
from tests.unit.llm_worker.crew import Crew

LOOKS_MAX = SILENT_MAX + 4


class Later(SystemClock):
    """Nothing is young any more."""

    def now_ms(self) -> int:
        return super().now_ms() + YOUNG_MS + 1


async def test_long_calls_of_the_living_do_not_hide_what_a_dead_worker_left(bus: Bus):
    crew = Crew(bus)

    def reserve(corr_id: str) -> Reserve:
        return Reserve(corr_id, "w2", 1, "mock", 1, 1, 1_000, Limits(), run_id="r", node_id="n")

    names = [*(f"alive-{number}" for number in range(ASKED_AT_ONCE_MAX + 8)), "left"]
    for name in names:
        await crew.book.ask(reserve(name))

    def hear(message: Message) -> None:
        if b'"left"' not in message.data:
            bus.publish(message.reply, b"true")

    await bus.subscribe(LLM_CLAIM, hear)
    orphans = Orphans(
        bus=bus, cashier=crew.cashier, journal=crew.journal, unjudged=crew.unjudged, flights=crew.worker.flights,
        clock=Later(), metrics=Metrics(), log=structlog.get_logger(),
    )  # fmt: skip
    for _ in range(LOOKS_MAX):
        await orphans.look()
    assert set(crew.book.state.open) == {*names} - {"left"}
    crew.writing.cancel()
