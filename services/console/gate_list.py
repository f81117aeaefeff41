"""All gates there are, page by page: whoever answers "all that wait" leaves none behind."""

from typing import Any, Final

from services.console.connection import Console
from services.console.output import plain

LIST: Final = "identity.approval.list"
PAGE: Final = 500


async def listed(
    console: Console, *, everything: bool = False, run_id: str | None = None, timeout_s: float | None = None
) -> list[dict[str, Any]]:
    """The gates that wait, the one that expires first first; with `everything` also those that do not any more."""
    found: dict[str, dict[str, Any]] = {}
    # First those that wait, by themselves: one that is answered meanwhile then hides none of the others.
    for all_ in (False, True) if everything else (False,):
        seen: set[str] = set()
        after: str | None = None
        while True:
            body = {"all": all_, "run_id": run_id, "limit": PAGE, "after": after}
            page = plain(await console.call(LIST, body, timeout_s=timeout_s))
            fresh = [gate for gate in page if gate["approval_id"] not in seen]
            if not fresh:  # also of an identity that is older and knows no `after`
                break
            seen |= {gate["approval_id"] for gate in fresh}
            found |= {gate["approval_id"]: gate for gate in fresh}
            after = page[-1]["approval_id"]
    return list(found.values())
