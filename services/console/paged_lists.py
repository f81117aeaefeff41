"""Lists that the broker tells in pages."""

from typing import Any

from services.console.connection import Console


async def paged(console: Console, verb: str, key: str) -> list[dict[str, Any]]:
    """Every item of a JetStream list; `key` is where an answer has them."""
    found: list[dict[str, Any]] = []
    while True:
        answer = await console.bus.api(verb, {"offset": len(found)})
        page = answer.get(key) or []
        found += page
        if not page or len(found) >= answer.get("total", 0):
            return found
