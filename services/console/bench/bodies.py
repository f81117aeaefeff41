"""The other process of `htdag bench --remote`: answers each body over NATS. Run as a module, stopped by a signal."""

import asyncio
import os
import signal

from services.console.bench.workloads import BODY_SUBJECT
from services.runtime.bus import Bus, Message
from services.runtime.nats_client import connect


async def answer_bodies(url: str) -> None:
    """Answer every body with its payload until TERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    bus = Bus(await connect(url, name="htdag-bench-bodies"))
    await bus.start()

    def answer(message: Message) -> None:
        bus.publish(message.reply, message.data)

    await bus.subscribe(BODY_SUBJECT, answer, queue="bench")
    await stop.wait()
    await bus.close()


if __name__ == "__main__":
    import uvloop

    uvloop.run(answer_bodies(os.environ["HTDAG_BENCH_URL"]))
