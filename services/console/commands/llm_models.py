"""`htdag llm models|reset`: what answers, at which price, and whether its breaker lets calls through."""

from typing import Any

from services.console.asking import ask_pool
from services.console.connection import connected
from services.console.options import DEFAULTS, Common
from services.console.output import columns, plain


async def models(*, common: Common = DEFAULTS) -> None:
    """List the models, what an alias resolves to, and whether they can answer
    now.

    For example:
        htdag llm models
    """
    async with connected(common) as console:
        found = plain(await ask_pool(console, "models", {}, common.output))
    common.output.value(found, lambda _: _table(found))


async def reset(model: str, /, *, common: Common = DEFAULTS) -> None:
    """Close the breaker of a model that you have mended; calls flow again at once.

    It is closed for all workers, and who did it stands in its log. If the model
    still fails, it opens again.

    For example:
        htdag llm reset claude-sonnet-4.5

    Parameters
    ----------
    model
        Model id or alias; `htdag llm models` shows which are open.
    """
    async with connected(common) as console:
        found = plain(await console.call("llm-worker.llm.reset", {"model_id": model}))
    common.output.value(found, lambda _: _table([found]))


def _table(models: list[dict[str, Any]]) -> str:
    rows = [
        (
            model["id"],
            model["provider"],
            model["resolves_to"],
            "yes" if model["available"] else "no",
            _price(model),
            _breaker(model),
            model["note"],
        )
        for model in models
    ]
    return columns(("MODEL", "PROVIDER", "RESOLVES TO", "READY", "$/MTOK IN,OUT", "BREAKER", "NOTE"), rows)


def _breaker(model: dict[str, Any]) -> str:
    """The state of a model's circuit breaker, and for how long it stays open."""
    wait_ms = model.get("retry_after_ms", 0)
    return f"{model['breaker']} {-(-wait_ms // 1000)}s" if wait_ms else str(model.get("breaker", ""))


def _price(model: dict[str, Any]) -> str | None:
    known = (model["price_in_usd_per_mtok"], model["price_out_usd_per_mtok"])
    return None if known == (None, None) else ",".join("?" if price is None else f"{price:g}" for price in known)
