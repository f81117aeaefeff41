"""What went wrong at a provider, as a code of the catalogue. Its own words are kept, short and without keys."""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

from contracts.errors import Rejected
from services.runtime.held_secrets import without_held

DETAIL_CHARS_MAX: Final = 300
SENSELESS: Final = (ValueError, AttributeError, TypeError, LookupError, AssertionError, RecursionError)
"""What the SDKs raise over an answer that is not what it should be: they do not check what they read."""
RETRY_AFTER_DIGITS_MAX: Final = 9
_WORDS: Final = {
    "authentication_error": "provider_auth",
    "permission_error": "provider_auth",
    "invalid_api_key": "provider_auth",
    "overloaded_error": "provider_overloaded",
    "rate_limit_error": "provider_overloaded",
    "rate_limit_exceeded": "provider_overloaded",
    "insufficient_quota": "provider_overloaded",
    "timeout_error": "timeout",
    "invalid_request_error": "provider_rejected",
    "not_found_error": "provider_rejected",
    "request_too_large": "provider_rejected",
    "billing_error": "provider_rejected",
}
"""How providers name their errors, where they have no status for them."""
_KEYS: Final = re.compile(r"\b(sk|key|xai|gsk|AIza)[-_A-Za-z0-9*.]{6,}")


def of_status(status: int, body: Any, provider: str, headers: Mapping[str, str] | None = None) -> Rejected:
    """An HTTP status that is no success; of one that is, what the stream behind it said."""
    if status < 400:
        return of_stream(body, provider)
    detail: dict[str, Any] = {"provider": provider, "status": status, "detail": said(body)}
    after_s = retry_after_s(headers or {})
    if after_s is not None:
        detail["retry_after"] = after_s
    code = _code_of(status)
    return Rejected(code, "the provider gave up" if code == "timeout" else None, **detail)


def of_stream(body: Any, provider: str) -> Rejected:
    """An error inside a stream that had begun well: there is no status, but a word or a number for what it is."""
    inner = body.get("error") if isinstance(body, dict) and isinstance(body.get("error"), dict) else body
    told = [inner.get("type"), inner.get("code")] if isinstance(inner, dict) else []
    named = next((_WORDS[word] for word in told if isinstance(word, str) and word in _WORDS), None)
    number = next((_code_of(word) for word in told if type(word) is int and 400 <= word < 600), None)
    return Rejected(named or number or "provider_error", provider=provider, detail=said(body))


def _code_of(status: int) -> str:
    if status in (401, 403):
        return "provider_auth"
    if status in (429, 503, 529):
        return "provider_overloaded"
    if status in (408, 504):
        return "timeout"
    return "provider_rejected" if 400 <= status < 500 else "provider_error"


def retry_after_s(headers: Mapping[str, str]) -> int | None:
    """When the provider wants to be asked again, in whole seconds; None when it does not say so."""
    told = headers.get("retry-after", "").strip()
    if told.isdecimal() and len(told) <= RETRY_AFTER_DIGITS_MAX:
        return int(told)
    try:
        # Both by the provider's own clock.
        at, now = parsedate_to_datetime(told), parsedate_to_datetime(headers.get("date", ""))
        return max(0, round((at - now).total_seconds()))
    except (ValueError, TypeError):
        return None


def of_connection(error: BaseException, provider: str) -> Rejected:
    """No connection, or one that broke; or we broke it off, and know why."""
    if isinstance(error.__cause__, Rejected):
        return error.__cause__
    return Rejected("provider_unreachable", provider=provider, detail=said(str(error.__cause__ or error)))


def said(body: Any) -> str:
    """The provider's words: the message of an error object where there is one."""
    for _ in range(2):
        if isinstance(body, dict):
            body = body.get("error") or body.get("message") or body
    return _KEYS.sub("***", without_held(str(body)))[:DETAIL_CHARS_MAX]
