"""What went wrong at a provider, as a code of the catalogue. Its own words are kept, short and without keys."""

import re
from typing import Any, Final

from contracts.errors import Rejected
from services.runtime.held_secrets import without_held

DETAIL_CHARS_MAX: Final = 300
SENSELESS: Final = (ValueError, AttributeError, TypeError, LookupError, AssertionError)
"""What the SDKs raise over an answer that is not what it should be: they do not check what they read."""
_KEYS: Final = re.compile(r"\b(sk|key|xai|gsk|AIza)[-_A-Za-z0-9*.]{6,}")


def of_status(status: int, body: Any, provider: str) -> Rejected:
    """An HTTP status that is no success."""
    detail = said(body)
    if status in (401, 403):
        return Rejected("provider_auth", provider=provider, status=status, detail=detail)
    if status in (429, 503, 529):
        return Rejected("provider_overloaded", provider=provider, status=status, detail=detail)
    if status in (408, 504):
        return Rejected("timeout", "the provider gave up", provider=provider, status=status, detail=detail)
    if 400 <= status < 500:
        return Rejected("provider_rejected", provider=provider, status=status, detail=detail)
    return Rejected("provider_error", provider=provider, status=status, detail=detail)


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
