"""What a caller is told: a value that fits, or an error; a refusal is never told as a failure, nor the reverse."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from contracts import reply
from contracts.errors import Rejected, failure
from services.policy_gateway.decision.verdict import Deny

POLICY_VIOLATION: Final = "policy_violation"
_RESERVED: Final = frozenset({"class", "code", "message", "hint", "rule"})
_ENCODE: Final = msgspec.json.Encoder().encode
_LEFT_OUT: Final = "\n[... more is left out here ...]\n"
CUT_KEEPS: Final = 1_024
"""Shorter texts of a value are never cut."""


class Answer(NamedTuple):
    """The outcome of one call: exactly one of `value` and `error` counts. `cut` says that the value was shortened."""

    value: Any = None
    error: dict[str, Any] | None = None
    cut: bool = False
    size: int = 0

    @property
    def code(self) -> str:
        """The code of the error, empty when it went well."""
        return str(self.error.get("code", "internal")) if self.error else ""

    @property
    def refused(self) -> bool:
        """Whether the policy, not the tool, said no."""
        return self.error is not None and self.error.get("class") == POLICY_VIOLATION

    def encoded(self) -> bytes:
        """The reply envelope."""
        return reply.refused(self.error) if self.error is not None else reply.ok(self.value)


def denied(deny: Deny) -> Answer:
    """The answer to a call that the policy refuses: its class is policy_violation, whatever the code is elsewhere."""
    wire = failure(deny.code)
    detail = {key: value for key, value in deny.detail.items() if key not in _RESERVED}
    return Answer(error={**wire, "class": POLICY_VIOLATION, "rule": deny.rule, **detail})


def failed(error: Rejected) -> Answer:
    """The answer to a call that went wrong."""
    return Answer(error=error.to_wire())


def fitting(value: Any, bytes_max: int) -> Answer:
    """The answer with a value, its longest texts cut until it fits, which `truncated` then says."""
    size = len(_ENCODE(value))
    if size <= bytes_max:
        return Answer(value=value, size=size)
    if not isinstance(value, Mapping):
        return failed(Rejected("too_large", "the result is larger than can be kept", bytes=size, max=bytes_max))
    shown: dict[str, Any] = {**value, "truncated": True}
    while (now := len(_ENCODE(shown))) > bytes_max:
        texts = {key: item for key, item in shown.items() if isinstance(item, str) and len(item) > CUT_KEEPS}
        if not texts:
            return failed(Rejected("too_large", "the result is larger than can be kept", bytes=size, max=bytes_max))
        longest = max(texts, key=lambda key: len(texts[key]))
        text = texts[longest]
        # A character takes at most six bytes of JSON: what is too much is taken off, at least an eighth of the text.
        shown[longest] = _shorter(text, max(CUT_KEEPS, len(text) - max((now - bytes_max) // 6, len(text) // 8)))
    return Answer(value=shown, cut=True, size=now)


def _shorter(text: str, chars_max: int) -> str:
    """Without a part of its middle: how a program ended stands last."""
    half = (chars_max - len(_LEFT_OUT)) // 2
    return f"{text[:half]}{_LEFT_OUT}{text[len(text) - half :]}"
