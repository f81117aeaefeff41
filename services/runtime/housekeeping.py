"""What every service with actors does now and then."""

from typing import Any

from services.runtime.actor import ActorHost
from services.runtime.metrics import Metrics


def tidy(metrics: Metrics, *hosts: ActorHost[Any, Any, Any]) -> None:
    """Forget actors at rest, and say how many are left and what waits in their mailboxes."""
    for host in hosts:
        host.passivate()
        metrics.set("htdag_actors_active", host.active, aggregate=host.aggregate)
        metrics.set("htdag_mailbox_messages", host.waiting, aggregate=host.aggregate)
