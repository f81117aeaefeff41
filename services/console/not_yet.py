"""What is accepted and stored but does nothing in this version: said once, so that nobody waits for an effect."""

from collections.abc import Mapping
from typing import Any, Final

_OPTIONS: Final[Mapping[str, str]] = {
    "evolve": "evolution is not part of this version; mutations_proposed and mutations_applied stay empty",
    "use_rag": "use_rag has no effect in this version",
    "use_quality_templates": "use_quality_templates has no effect in this version",
    "integrate_sparc": "integrate_sparc has no effect in this version",
    "safe_planning": "safe_planning has no effect in this version",
}


def notes(options: Mapping[str, Any] | None) -> list[str]:
    """A sentence for each wish that stays without effect."""
    return [text for name, text in _OPTIONS.items() if (options or {}).get(name) is True]
