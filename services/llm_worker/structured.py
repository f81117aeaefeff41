"""Answers with a shape: whether a `response_schema` can be judged at all, and whether an answer keeps to it. Pure.

A schema comes from whoever asks, so it fetches nothing, what its patterns may try is bounded, and so is how often one
place of an answer is judged. The library is imported at the first schema.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from contracts.errors import Rejected
from contracts.limits import JSON_DEPTH_MAX
from services.runtime.intake import deeper_than

if TYPE_CHECKING:
    from jsonschema_rs import Validator

FIELD: Final = "params.response_schema"
JUDGED_MAX: Final = 1_000
"""So many schemas may apply to one place of an answer. References can double their number with every step."""
TRIES_MAX: Final = 10_000
"""So often a pattern may go back and try another way."""
SHOWN_CHARS_MAX: Final = 2_000
CUT_HINT: Final = "it was cut off: raise max_tokens"
_IN_PLACE_LISTS: Final = ("allOf", "anyOf", "oneOf")
_IN_PLACE: Final = ("not", "if", "then", "else")
_DECODE: Final = msgspec.json.Decoder().decode
_ENCODE: Final = msgspec.json.Encoder().encode


def check_schema(schema: dict[str, Any]) -> None:
    """Raise Rejected("invalid_request") when no answer could be judged by this schema."""
    _check_references(schema)
    _validator(schema)


def check_answer(schema: dict[str, Any], output: str, finish_reason: str) -> None:
    """Raise Rejected("output_invalid") when the text of an answer is no JSON, or does not keep to the schema.

    The refusal shows what was answered: it is paid.
    """
    wrong = _wrong(schema, output)
    if wrong is None:
        return
    more = {"hint": CUT_HINT} if finish_reason == "length" else {}
    message = f"the answer does not keep to response_schema: {wrong}"
    raise Rejected("output_invalid", message, output=output[:SHOWN_CHARS_MAX], finish_reason=finish_reason, **more)


def in_words(schema: Mapping[str, Any]) -> str:
    """What a model is told that knows no schemas by itself."""
    return f"Answer with one JSON value that keeps to this JSON schema, and nothing else:\n{_ENCODE(schema).decode()}"


def _wrong(schema: dict[str, Any], output: str) -> str | None:
    try:
        data = output.encode()
        if deeper_than(data, JSON_DEPTH_MAX):
            return "it is nested too deep"
        value = _DECODE(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return "it is no JSON"
    first = next(_validator(schema).iter_errors(value), None)
    if first is None:
        return None
    place = "/" + "/".join(map(str, first.instance_path))
    return f"at {place}: {first.message}"[:SHOWN_CHARS_MAX]


def _validator(schema: dict[str, Any]) -> "Validator":
    import jsonschema_rs

    try:
        return jsonschema_rs.validator_for(
            schema, retriever=_fetch_nothing, pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=TRIES_MAX)
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        raise _senseless(str(error).partition("\n")[0][:SHOWN_CHARS_MAX]) from error


def _fetch_nothing(uri: str) -> Any:
    raise ValueError(f"{uri} is not part of the schema")


def _check_references(schema: Mapping[str, Any]) -> None:
    """Every reference points into the schema itself, and together they do not make it a bomb."""
    weights: dict[str, int] = {}
    for place in _objects(schema):
        reference = place.get("$ref")
        if isinstance(reference, str) and not reference.startswith("#"):
            raise _senseless(f"{reference[:100]} is not part of the schema")
        if isinstance(reference, str) and reference != "#" and not reference.startswith("#/"):
            raise _senseless(f"{reference[:100]}: a reference is a path like #/$defs/name")
    for place in _objects(schema):
        if _weight(place, schema, weights, frozenset()) > JUDGED_MAX:
            raise _senseless("its references and choices apply too many schemas to one place", max=JUDGED_MAX)


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    left = [value]
    while left:
        here = left.pop()
        if isinstance(here, Mapping):
            yield here
            left.extend(here.values())
        elif isinstance(here, list):
            left.extend(here)


def _weight(schema: Any, root: Mapping[str, Any], known: dict[str, int], inside: frozenset[str]) -> int:
    """How many schemas are applied to the place that this one is applied to."""
    if not isinstance(schema, Mapping):
        return 1
    parts: list[Any] = [schema[key] for key in _IN_PLACE if key in schema]
    for key in _IN_PLACE_LISTS:
        listed = schema.get(key)
        parts.extend(listed if isinstance(listed, list) else ())
    dependent = schema.get("dependentSchemas")
    parts.extend(dependent.values() if isinstance(dependent, Mapping) else ())
    total = 1
    for part in parts:
        total = min(total + _weight(part, root, known, inside), JUDGED_MAX + 1)
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference not in inside:
        if reference not in known:
            known[reference] = _weight(_target(reference, root), root, known, inside | {reference})
        total += known[reference]
    return min(total, JUDGED_MAX + 1)


def _target(reference: str, root: Any) -> Any:
    here = root
    for step in reference.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(here, Mapping):
            here = here.get(name)
        elif isinstance(here, Sequence) and name.isdecimal() and int(name) < len(here):
            here = here[int(name)]
        else:
            return None
    return here


def _senseless(message: str, **detail: Any) -> Rejected:
    return Rejected("invalid_request", message, field=FIELD, **detail)
