"""The smallest value that satisfies a JSON Schema, for the mock's structured answers."""

from typing import Any, Final

DEPTH_MAX: Final = 16


def example_of(schema: dict[str, Any], depth: int = 0) -> Any:
    """A value of `schema`: consts and enums as they stand, required properties only, minimal arrays and texts."""
    if depth > DEPTH_MAX:
        return None
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for choice in ("anyOf", "oneOf", "allOf"):
        if schema.get(choice):
            return example_of(schema[choice][0], depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0]
    match kind:
        case "object":
            properties = schema.get("properties", {})
            return {name: example_of(properties.get(name, {}), depth + 1) for name in schema.get("required", ())}
        case "array":
            item = schema.get("items", {})
            return [example_of(item, depth + 1) for _ in range(min(int(schema.get("minItems", 0)), 100))]
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean":
            return True
        case "null":
            return None
    return "mock".ljust(int(schema.get("minLength", 0)), "k")[: schema.get("maxLength")]
