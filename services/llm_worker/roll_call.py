"""Who else is there: asked of all workers at once, and at the start of what the stream keeps of those that are gone."""

import asyncio
from typing import Any, Final

from contracts.errors import Rejected
from contracts.llm import LlmHealth
from contracts.streams import LLM_WORKERS
from contracts.subjects import LLM_ROLL, llm_worker
from services.llm_worker.registry import WORKERS_REMEMBERED_MAX, Registry, Roll, health_of
from services.runtime.bus import Bus, Message

ROLL_S: Final = 0.15
"""So long everybody who lives, and whom nobody knows yet, has time to answer the roll."""
SILENT_S: Final = 1.0
"""So long a worker that should be there is waited for."""


async def recall_the_gone(bus: Bus, registry: Registry, log: Any) -> None:
    """Learn at the start of whom nobody will hear again: what cannot be read now is not known, and no more."""
    try:
        async for kept in bus.history(LLM_WORKERS, llm_worker("*")):
            if not kept.forged:
                registry.recall(kept.data)
    except Rejected as error:
        log.warning("workers_not_recalled", code=error.code)


async def call_the_roll(bus: Bus, registry: Registry) -> Roll:
    """Learn at once who is there, and how busy: every worker answers to an inbox of ours."""
    inbox, answers, all_there = bus.inbox(), dict[str, LlmHealth](), asyncio.Event()

    def take(message: Message) -> None:
        health = health_of(message.data)
        if health is None or len(answers) >= WORKERS_REMEMBERED_MAX:
            return
        answers[health.worker_id] = health
        registry.meet(health)
        if not registry.expected() - answers.keys():
            all_there.set()

    subscription = await bus.subscribe(inbox, take)
    try:
        await bus.flush()
        bus.publish(LLM_ROLL, b"", reply=inbox)
        await asyncio.sleep(ROLL_S)
        if registry.expected() - answers.keys():
            try:
                async with asyncio.timeout(SILENT_S):
                    await all_there.wait()
            except TimeoutError:
                return Roll(answers, registry.expected() - answers.keys())
        return Roll(answers, ())
    finally:
        await subscription.unsubscribe()
