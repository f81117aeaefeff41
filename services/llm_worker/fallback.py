"""Which models are asked instead, when one fails. Off unless the configuration of a model names some.

What answered stands in the answer as `model_used`; a request that is at fault itself is not sent to anybody else.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from contracts.errors import Rejected
from services.llm_worker.breaker.decider import COUNTED
from services.llm_worker.flight import Flight
from services.llm_worker.models import ModelTable, Resolved

T = TypeVar("T")
GOES_ON: Final = COUNTED | {"circuit_open", "provider_missing"}
"""Failures of a model, not of the request."""


class Fallbacks:
    """Asks one model after the other. `log` is structlog's."""

    def __init__(self, models: ModelTable, log: Any) -> None:
        self._models, self._log = models, log

    def of(self, resolved: Resolved) -> list[Resolved]:
        """The models behind this one; those that the table does not know are left out."""
        found = []
        for name in resolved.config.fallback:
            try:
                found.append(self._models.resolve(name))
            except Rejected as error:
                self._log.warning("fallback_unknown", model=resolved.used, fallback=name, code=error.code)
        return found

    def that_answered(self, resolved: Resolved, shown: str) -> Resolved:
        """The model of the chain that an answer names; the first one where the chain knows it no more."""
        return next((one for one in (resolved, *self.of(resolved)) if one.shown == shown), resolved)

    async def ask(self, flight: Flight, shown: Callable[[], bool], call: Callable[[], Awaitable[T]]) -> T:
        """The first answer along the chain. `flight.resolved` is the model that is being asked.

        `shown` says whether somebody has seen a part of an answer: that cannot be taken back. Raises what the last
        model said, with the codes of those before it.
        """
        failed: dict[str, str] = {}
        behind = self.of(flight.resolved) if flight.resolved.config.fallback else []
        while True:
            try:
                return await call()
            except Rejected as error:
                if error.code not in GOES_ON or not behind or shown():
                    if failed:
                        error.detail = {**error.detail, "failed_before": failed}
                    raise
                failed[flight.resolved.used] = error.code
                self._log.info("fallback", model=flight.resolved.used, code=error.code, to=behind[0].used)
                flight.resolved = behind.pop(0)
