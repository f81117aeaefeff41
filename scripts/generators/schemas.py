"""contracts/schemas: one JSON Schema (2020-12) per message, named by its type tag or public name."""

import json
from typing import Any

import msgspec

from scripts.generators.shapes import name_of, public_shapes, tagged_types


def render() -> dict[str, str]:
    """File name and text of every schema."""
    return {f"{name_of(message)}.json": _schema(message) for message in (*tagged_types(), *public_shapes())}


def _schema(message: type[Any]) -> str:
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(message)}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
