"""The smallest value that satisfies a JSON Schema, for the mock's structured answers."""

from typing import Any, Final

from contracts.errors import Rejected

DEPTH_MAX: Final = 16
ITEMS_MAX: Final = 100
VALUES_MAX: Final = 10_000
"""A schema is a few words, and may ask for arrays of arrays of arrays."""
CHARS_MAX: Final = 100_000


def example_of(schema: dict[str, Any]) -> Any:
    """A value of `schema`: consts and enums as they stand, required properties only, minimal arrays and texts.

    Raises Rejected("provider_rejected") when even the smallest one is large.
    """
    return _Maker().make(schema, 0)


class _Maker:
    """Makes one example, and counts what it makes."""

    def __init__(self) -> None:
        self._left = VALUES_MAX

    def make(self, schema: dict[str, Any], depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise _too_large("values", VALUES_MAX)
        if depth > DEPTH_MAX:
            return None
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][0]
        for choice in ("anyOf", "oneOf", "allOf"):
            if schema.get(choice):
                return self.make(schema[choice][0], depth + 1)
        kind = schema.get("type", "object" if "properties" in schema else "string")
        return self._of_kind(kind[0] if isinstance(kind, list) else kind, schema, depth)

    def _of_kind(self, kind: str, schema: dict[str, Any], depth: int) -> Any:
        match kind:
            case "object":
                properties = schema.get("properties", {})
                return {name: self.make(properties.get(name, {}), depth + 1) for name in schema.get("required", ())}
            case "array":
                item = schema.get("items", {})
                return [self.make(item, depth + 1) for _ in range(min(int(schema.get("minItems", 0)), ITEMS_MAX))]
            case "integer" | "number":
                return schema.get("minimum", 0)
            case "boolean":
                return True
            case "null":
                return None
        least = int(schema.get("minLength", 0))
        self._left -= least // ITEMS_MAX
        if least > CHARS_MAX:
            raise _too_large("minLength", CHARS_MAX)
        return "mock".ljust(least, "k")[: schema.get("maxLength")]


def _too_large(what: str, most: int) -> Rejected:
    return Rejected(
        "provider_rejected", "the mock makes no example that is so large", provider="mock", of=what, max=most
    )
