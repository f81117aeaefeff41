"""Listening on a plain connection so that nothing is missed that others say from then on."""

import inspect
from collections.abc import Callable
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from services.runtime.nats_client import settle


async def listen(client: Client, subject: str, take: Callable[[Msg], Any], queue: str = "") -> Subscription:
    """Hand every message on `subject` to `take` (plain or async). When this returns, the broker knows of it.

    Without that, or after a single `flush`, what another connection publishes next is lost at times.
    """

    async def hear(message: Msg) -> None:
        taken = take(message)
        if inspect.isawaitable(taken):
            await taken

    subscription = await client.subscribe(subject, queue=queue, cb=hear)
    await settle(client)
    return subscription
