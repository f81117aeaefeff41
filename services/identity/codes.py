"""Codes as people type them, and which step one fits: this one or the one behind it, nothing else.

pyotp's own `verify(valid_window=1)` would also take the next step and would not say which one fitted; so both steps
are computed here and both are compared in constant time, whatever the first comparison gave.
"""

import re
from hmac import compare_digest
from typing import Final

import pyotp

from contracts.identity import CODE_DIGITS, STEP_S
from services.identity.account.state import step_of

_WHITE: Final = " \t\r\n\v\f"
_CODE: Final = re.compile(r"([0-9]{3}) ?([0-9]{3})\Z", re.ASCII)
_IMPOSSIBLE: Final = "-" * CODE_DIGITS
"""Compared when what was typed is no code, so that it costs the same. No code looks like this."""


def normalised(text: str) -> str:
    """The six digits in `text`: ASCII white space at the ends and one space in the middle are people's ways.

    Everything else becomes what fits no step: it is judged, and fails.
    """
    found = _CODE.match(text.strip(_WHITE))
    return found.group(1) + found.group(2) if found else _IMPOSSIBLE


def matched_step(secret: str, text: str, now_ms: int) -> int | None:
    """The newest step at `now_ms` or behind it whose code `text` is; None when it is neither's."""
    typed, step = normalised(text).encode(), step_of(now_ms)
    totp = pyotp.TOTP(secret)
    newest = compare_digest(totp.at(step * STEP_S).encode(), typed)
    before = compare_digest(totp.at((step - 1) * STEP_S).encode(), typed)
    return step if newest else step - 1 if before else None


def code_at(secret: str, now_ms: int) -> str:
    """The code of the step at `now_ms`."""
    return pyotp.TOTP(secret).at(step_of(now_ms) * STEP_S)


def new_secret() -> str:
    """160 random bits in base 32, as authenticator apps want them."""
    return pyotp.random_base32()


def provisioning_uri(secret: str, name: str, issuer: str) -> str:
    """The `otpauth://` address that an authenticator app takes in."""
    return pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name=issuer)
