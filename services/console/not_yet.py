"""What is accepted and stored but does nothing in this version: said once, so that nobody waits for an effect."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

_OPTIONS: Final[Mapping[str, str]] = {
    "evolve": "evolution is not part of this version; mutations_applied stays empty",
    "use_rag": "use_rag has no effect in this version",
    "use_quality_templates": "use_quality_templates has no effect in this version",
    "integrate_sparc": "integrate_sparc has no effect in this version",
    "safe_planning": "safe_planning has no effect in this version",
}
_BUDGETS: Final = ("budget_usd_micros", "budget_tokens")
BUDGETS_NOT_HELD: Final = "budgets are stored, but nothing holds them in this version"


def notes(options: Mapping[str, Any] | None, tasks: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """A sentence for each wish that stays without effect."""
    found = [text for name, text in _OPTIONS.items() if (options or {}).get(name) is True]
    budgets = any(task.get(name) is not None for task in tasks for name in _BUDGETS)
    return [*found, *([BUDGETS_NOT_HELD] if budgets else [])]


def epic_notes(wishes: Mapping[str, Any]) -> list[str]:
    """The same for a new epic."""
    return [BUDGETS_NOT_HELD] if any(wishes.get(name) is not None for name in _BUDGETS) else []
