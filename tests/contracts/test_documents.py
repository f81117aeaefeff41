"""The generated documents are valid for the tools that read them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

ROOT = Path(__file__).parents[2]
# The JSON Schema of AsyncAPI 3.0.0 as published in the npm package @asyncapi/specs 6.8.1 (Apache-2.0), minified.
ASYNCAPI_SCHEMA = Path(__file__).parent / "asyncapi-3.0.0.schema.json"
DOCUMENT = json.loads((ROOT / "contracts" / "asyncapi.json").read_text())
SCHEMAS = sorted((ROOT / "contracts" / "schemas").glob("*.json"))
GOLDEN = Path(__file__).parent / "golden"


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    if isinstance(value, list):
        for item in value:
            yield from references(item)


def test_asyncapi_json_is_asyncapi_3() -> None:
    validator = jsonschema_rs.validator_for(json.loads(ASYNCAPI_SCHEMA.read_text()))
    assert [f"{error.instance_path}: {error.message[:200]}" for error in validator.iter_errors(DOCUMENT)] == []
    assert not validator.is_valid({**DOCUMENT, "operations": {"x": {"action": "frobnicate"}}})


def test_every_reference_of_asyncapi_json_leads_somewhere() -> None:
    for reference in references(DOCUMENT):
        place = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            assert step in place, reference
            place = place[step]


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.stem)
def test_golden_bytes_fit_their_schema(path: Path) -> None:
    validator = jsonschema_rs.validator_for(json.loads(path.read_text()))
    assert [error.message for error in validator.iter_errors(json.loads((GOLDEN / path.name).read_text()))] == []
    assert not validator.is_valid([])
