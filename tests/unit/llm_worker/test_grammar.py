"""Which schemas become a grammar of the local model."""

from typing import Any

import pytest

from services.llm_worker.providers.grammar import REPEATED_MAX, WEIGHT_MAX, fits

RED = {"type": "object", "properties": {"colour": {"enum": ["red", "green"]}}, "required": ["colour"]}
SHARED = {"$defs": {"c": RED}, "type": "array", "items": {"$ref": "#/$defs/c"}, "maxItems": 5}
LAUGHS: dict[str, Any] = {f"l{depth}": {"oneOf": [{"$ref": f"#/$defs/l{depth + 1}"}] * 4} for depth in range(9)}


@pytest.mark.parametrize(
    "schema",
    [{}, RED, SHARED, {"enum": list(range(WEIGHT_MAX - 1))}, {"type": "string", "maxLength": REPEATED_MAX}],
    ids=["anything", "an object", "a reference", "many words", "a long text"],
)
def test_what_is_small_becomes_one(schema: dict[str, Any]) -> None:
    assert fits(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": [f"v{number}" for number in range(4_000)]},
        {"type": "object", "properties": {f"p{number}": {"type": "integer"} for number in range(1_000)}},
        {"oneOf": [{"type": "array", "items": {"$ref": "#"}}] * 2},
        {"$ref": "#/$defs/l0", "$defs": {**LAUGHS, "l9": {"type": "null"}}},
        {"$ref": "https://example.com/schema"},
        {"$ref": "#/$defs/nobody"},
        {"type": "string", "pattern": "(a*)*"},
        {"type": "string", "maxLength": 10**9},
        {"type": "array", "items": {"type": "integer"}, "minItems": "many"},
        {"anyOf": [{"type": "string", "maxLength": REPEATED_MAX}] * 40},
    ],
    ids=["words", "properties", "circle", "laughs", "elsewhere", "nowhere", "pattern", "long", "wrong", "sum"],
)
def test_what_is_large_or_endless_does_not(schema: dict[str, Any]) -> None:
    assert not fits(schema)
