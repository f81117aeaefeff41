"""The providers of one worker, by kind, and the places each model has for calls at the same time."""

import asyncio
from collections.abc import Mapping

from services.llm_worker.config import Config
from services.llm_worker.models import ModelTable, Resolved
from services.llm_worker.providers.anthropic import AnthropicProvider
from services.llm_worker.providers.cli import CliProvider
from services.llm_worker.providers.described import DescribedTools
from services.llm_worker.providers.embedded import EmbeddedProvider
from services.llm_worker.providers.mock import MockProvider
from services.llm_worker.providers.openai import OpenAiProvider
from services.llm_worker.providers.protocol import Provider
from services.runtime import held_secrets


class ProviderTable:
    """One adapter per kind. `environ` is what a command line provider may pass on; `foreign` needs the broker."""

    def __init__(
        self, config: Config, models: ModelTable, environ: Mapping[str, str], foreign: Provider | None = None
    ) -> None:
        def key_of(resolved: Resolved) -> str:
            return models.key_of(resolved.config)

        # Whatever a provider says of its key, or a program of its environment: nobody hears it.
        held_secrets.hold(models.secrets())
        self.embedded = EmbeddedProvider(config)
        self._by_kind: dict[str, Provider] = {
            "embedded": DescribedTools(self.embedded),
            "openai": OpenAiProvider(key_of),
            "anthropic": AnthropicProvider(key_of),
            "cli": DescribedTools(CliProvider(key_of, environ)),
            "mock": MockProvider(),
        }
        if foreign is not None:
            self.use("nats", foreign)
        self._slots: dict[str, asyncio.Semaphore] = {}

    def use(self, kind: str, provider: Provider) -> None:
        """From now on `provider` answers for models of this kind."""
        self._by_kind[kind] = provider

    def of(self, resolved: Resolved) -> Provider:
        """The adapter of a model."""
        return self._by_kind[resolved.config.provider]

    def slots_of(self, resolved: Resolved) -> asyncio.Semaphore | None:
        """The places of a model, None when only the worker's own bound counts."""
        if resolved.config.slots is None:
            return None
        found = self._slots.get(resolved.used)
        if found is None:
            found = self._slots[resolved.used] = asyncio.Semaphore(resolved.config.slots)
        return found

    async def close(self) -> None:
        """Close every adapter."""
        for provider in self._by_kind.values():
            await provider.close()
