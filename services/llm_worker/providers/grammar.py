"""Which schemas the local model may be held to while it speaks, and which only its answer is judged by.

llama.cpp makes a grammar of a schema and tries every word it knows against it, in this very process, and nobody can
stop it: a grammar of thousands of words would hold the model for minutes, whoever gave up meanwhile. So a grammar is
made of what is small when everything it refers to is written out, and the judge looks at all answers in any case.
"""

from collections.abc import Iterator
from typing import Any, Final

WEIGHT_MAX: Final = 256
"""An enum of so many words still answers as quickly as without; one of 800 takes four times as long."""
REPEATED_MAX: Final = 1_000
"""llama.cpp writes a repetition out."""
REPEATED_WEIGHS: Final = 100
_ONE: Final = ("additionalProperties", "items", "not", "contains", "propertyNames", "if", "then", "else")
_MANY: Final = ("allOf", "anyOf", "oneOf", "prefixItems", "enum")
_NAMED: Final = ("properties", "patternProperties", "dependentSchemas")
_REPEATED: Final = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
_NEVER: Final = ("pattern", "$dynamicRef", "$recursiveRef")
"""What a few letters can make endless."""


class _TooHeavy(Exception):
    pass


def fits(schema: dict[str, Any]) -> bool:
    """Whether a grammar of this schema is small: without a circle, without patterns, and light when written out."""
    left = WEIGHT_MAX

    def weigh(part: Any, within: tuple[str, ...]) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise _TooHeavy
        if isinstance(part, dict):
            left -= _own_weight(part)
            for inner in _parts(part):
                weigh(inner, within)
            if "$ref" in part:
                name = str(part["$ref"])
                if name in within:
                    raise _TooHeavy
                weigh(_target(schema, name), (*within, name))

    try:
        weigh(schema, ())
    except _TooHeavy:
        return False
    return True


def _own_weight(part: dict[str, Any]) -> int:
    if any(key in part for key in _NEVER):
        raise _TooHeavy
    times = [part[key] for key in _REPEATED if key in part]
    if any(type(time) is not int or time > REPEATED_MAX for time in times):
        raise _TooHeavy
    return int(sum(times)) // REPEATED_WEIGHS


def _parts(part: dict[str, Any]) -> Iterator[Any]:
    for key in _ONE:
        if key in part:
            yield part[key]
    for key in _MANY:
        if isinstance(part.get(key), list):
            yield from part[key]
    for key in _NAMED:
        if isinstance(part.get(key), dict):
            yield from part[key].values()


def _target(schema: dict[str, Any], name: str) -> Any:
    """What a reference within this document points to. Raises _TooHeavy for any other."""
    found: Any = schema
    steps = name.split("/")
    if steps[0] != "#":
        raise _TooHeavy
    for step in steps[1:]:
        if not isinstance(found, dict) or step not in found:
            raise _TooHeavy
        found = found[step]
    return found
