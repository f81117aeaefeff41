"""What a deadline that passed says of a model: nothing, when it was shorter than any provider could be asked to meet.

Else whoever gives five calls a millisecond each closes a model that is well for everybody.
"""

from collections.abc import Mapping
from typing import Final

from contracts.errors import Rejected
from services.llm_worker.config import Config, ModelConfig

OF_PROVIDERS: Final[Mapping[str, int]] = {"mock": 50, "embedded": 15_000}
"""Milliseconds, where the provider is ours. The embedded model reads a prompt that fills its context in so long."""


class CallersDeadline(Rejected):
    """The time that the caller gave is over. Not what a provider itself calls a timeout: that always counts."""

    def __init__(self, timeout_ms: int) -> None:
        super().__init__("timeout", timeout_ms=timeout_ms)
        self.timeout_ms = timeout_ms


def fair_timeout_ms(config: Config, model: ModelConfig) -> int:
    """So long a model may be silent without being called ill for it."""
    return model.breaker_fair_timeout_ms or OF_PROVIDERS.get(model.provider, config.breaker_fair_timeout_ms)


def says_nothing(error: Rejected, config: Config, model: ModelConfig) -> bool:
    """Whether a call that ended like this says nothing of its model."""
    return isinstance(error, CallersDeadline) and error.timeout_ms < fair_timeout_ms(config, model)
