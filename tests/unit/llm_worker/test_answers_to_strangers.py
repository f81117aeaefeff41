"""What a stranger names as a reply subject is answered only where an answer does no harm."""

from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from contracts.subjects import LLM_CANCEL, LLM_QUEUE
from services.llm_worker.handlers import Handlers
from services.llm_worker.ledger.limits import Limits
from services.llm_worker.ledger.views import LedgerVerbs
from services.runtime.bus import Message


class Sent:
    """Keeps what would be published."""

    def __init__(self) -> None:
        self.subjects: list[str] = []

    def publish(self, subject: str, data: bytes) -> None:
        self.subjects.append(subject)


def asked_to_cancel(bus: Any, subject: str) -> None:
    flights: Any = SimpleNamespace(cancel=lambda _: True)
    parts: dict[str, Any] = dict.fromkeys(
        (
            "models",
            "providers",
            "journal",
            "registry",
            "breakers",
            "replaying",
            "prices",
            "withdrawals",
            "held",
            "backlog",
        )
    )
    handlers = Handlers(bus=bus, flights=flights, log=structlog.get_logger(), **parts)
    handlers.cancel_here(Message(LLM_CANCEL, b'{"corr_id":"c"}', {}, subject))


def asked_for_the_queue(bus: Any, subject: str) -> None:
    cashier: Any = SimpleNamespace(worker_id="w1", book=SimpleNamespace(waiting=0), limits=Limits())
    parts: dict[str, Any] = dict.fromkeys(("codec", "resolver", "prices", "clock", "ids"))
    parts["models"] = SimpleNamespace(ids=list)
    verbs = LedgerVerbs(bus=bus, cashier=cashier, allow_unpriced=False, log=structlog.get_logger(), **parts)
    verbs.hear(Message(LLM_QUEUE, b'{"worker_id":"w2"}', {}, subject))


@pytest.mark.parametrize("asked", [asked_to_cancel, asked_for_the_queue])
def test_only_an_inbox_is_answered(asked):
    sent = Sent()
    for subject in ("htdag.v1.llm.resp.r.n", "$JS.API.INFO", "_INBOX.x", ""):
        asked(sent, subject)
    assert sent.subjects == ["_INBOX.x"]
