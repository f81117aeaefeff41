"""Calls and model tables for tests of llm-worker."""

from typing import Any

from contracts.errors import Rejected
from contracts.llm import LlmInput, LlmParams, LlmRequest
from services.llm_worker.config import Config, ModelConfig
from services.llm_worker.models import ModelTable, Resolved
from services.llm_worker.providers.protocol import Call, Delta, Finish, Piece, Provider, TokensUsed


def call(model_id: str = "mock", text: str = "Say hi", *, max_tokens: int = 50, **params: Any) -> Call:
    """One call of a model of the default table."""
    request = LlmRequest(LlmInput([{"role": "user", "content": text}]), "r", "n", "c", model_id, LlmParams(**params))
    return Call(request, ModelTable(Config(), {}).resolve(model_id), max_tokens)


def with_config(wanted: Call, **config: Any) -> Call:
    """The same call of a model with its own configuration."""
    return wanted._replace(resolved=Resolved("m", "m", ModelConfig(**config)))


async def pieces(provider: Provider, wanted: Call) -> list[Piece]:
    """Everything a provider says."""
    return [piece async for piece in provider.stream(wanted)]


async def error_of(provider: Provider, wanted: Call) -> Rejected:
    """The refusal of a call that must fail."""
    try:
        said = await pieces(provider, wanted)
    except Rejected as error:
        return error
    raise AssertionError(f"it answered: {said}")


def text_of(said: list[Piece]) -> str:
    """The output."""
    return "".join(piece.text for piece in said if isinstance(piece, Delta))


def usage_of(said: list[Piece]) -> TokensUsed:
    """The tokens; exactly one count must have been given."""
    (used,) = (piece for piece in said if isinstance(piece, TokensUsed))
    return used


def reason_of(said: list[Piece]) -> str:
    """How it ended; exactly one end must have been told."""
    return _end_of(said).reason


def model_of(said: list[Piece]) -> str:
    """Which model it was, by the provider's word."""
    return _end_of(said).model


def _end_of(said: list[Piece]) -> Finish:
    (finish,) = (piece for piece in said if isinstance(piece, Finish))
    return finish
