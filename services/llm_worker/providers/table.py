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
    """One adapter per kind. `environ` is what a command line provider may pass on."""

    def __init__(self, config: Config, models: ModelTable, environ: Mapping[str, str]) -> None:
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
        self._slots: dict[str, asyncio.Semaphore] = {}

    def put(self, kind: str, adapter: Provider) -> None:
        """Calls of this kind go to `adapter` from now on; `nats` has none until one with a connection is put."""
        self._by_kind[kind] = adapter

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
