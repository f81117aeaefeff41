"""Whether an answer is an error of the contract: the published schema, the code that was expected, its class."""

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import msgspec

from contracts.errors import CATALOGUE, failure
from services.console.conformance.point import Point

if TYPE_CHECKING:
    from jsonschema_rs import Validator


def judged(code: str, error: Any, where: str) -> Point:
    """Whether this is an error of the one shape, under the code that was expected."""
    if not isinstance(error, dict):
        return Point(code, "fail", f"{where}: no error")
    wrong = next(_schema("Error").iter_errors(error), None)
    if wrong is not None:
        return Point(code, "fail", f"{where}: {wrong.message}")
    if error["code"] != code:
        return Point(code, "fail", f"{where}: {error['code']} instead")
    if error["class"] != CATALOGUE[code].error_class:
        return Point(code, "fail", f"{where}: its class is {error['class']}")
    return Point(code, "pass", where)


def judged_said(code: str, said: Any, where: str) -> Point:
    """The same of a turn of a conversation, which is no error: it has its own shape, and the code stands in it."""
    if not isinstance(said, dict):
        return Point(code, "fail", f"{where}: nothing was said")
    wrong = next(_schema("Said").iter_errors(said), None)
    if wrong is not None:
        return Point(code, "fail", f"{where}: {wrong.message}")
    if (said["state"], said["code"]) != ("refused", code):
        return Point(code, "fail", f"{where}: {said['code'] or said['state']} instead")
    return Point(code, "pass", where)


def unasked(code: str, why: str) -> Point:
    """What is known of a code that nobody produced: its shape is right, and why it was not asked for."""
    point = judged(code, failure(code), "the catalogue")
    return point if point.outcome == "fail" else Point(code, "note", f"not produced: {why}")


@cache
def _schema(name: str) -> "Validator":
    import jsonschema_rs

    document = msgspec.json.decode(resources.files("contracts").joinpath("asyncapi.json").read_bytes())
    components = {"components": document["components"]}
    return jsonschema_rs.validator_for({"$ref": f"#/components/schemas/{name}", **components})
