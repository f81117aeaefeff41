"""Identity's listener on loopback, as data: every route, what it is told, what it answers. No subject leads there.

A body is one JSON object with the fields named here and no others; all are text. Whoever is signed in sends
`Authorization: Bearer SESSION`. A refusal is a problem document (RFC 9457) that holds the error of the one shape.
"""

from typing import Final

import msgspec


class RouteSpec(msgspec.Struct, frozen=True):
    """One route. `fields` in brackets may be left out; `answer` is an example."""

    path: str
    meaning: str
    answer: str
    fields: str = ""
    signed_in: bool = False
    method: str = "POST"


_SESSION: Final = '{"session":"…","user":"aka","expires_in":900}'

ROUTES: Final[tuple[RouteSpec, ...]] = (
    RouteSpec("/auth/setup/", "the page behind a set-up link, for a browser", "HTML", method="GET"),
    RouteSpec(
        "/auth/password/",
        "the first password of an account, by the token of its set-up link (what stands behind `#`)",
        _SESSION,
        "user, token, password",
    ),
    RouteSpec("/auth/session/", "sign in", _SESSION, "[user], password, [presence]"),
    RouteSpec(
        "/auth/password/change/",
        "a new password, by the old one and a fresh code",
        '{"password_changed":true}',
        "[user], password, new_password, code, [presence]",
    ),
    RouteSpec(
        "/auth/mfa/status/", "whether proof is on", '{"user":"Aka","kind":"human","mfa_enabled":true}',
        signed_in=True, method="GET",
    ),
    RouteSpec(
        "/auth/mfa/setup/",
        "a secret for an authenticator; proof is not on yet",
        '{"secret":"…","provisioning_uri":"otpauth://totp/…","qr_svg":"<svg…","mfa_enabled":false}',
        signed_in=True,
    ),
    RouteSpec("/auth/mfa/verify/", "a first code turns proof on", '{"mfa_enabled":true}', "code", signed_in=True),
    RouteSpec("/auth/mfa/disable/", "proof off, by a fresh code", '{"mfa_enabled":false}', "[user], code"),
    RouteSpec(
        "/auth/mfa/reset/",
        "proof off without a code, by the password: the phone is lost",
        '{"mfa_enabled":false,"locked":false}',
        "[user], password, [presence]",
    ),
    RouteSpec(
        "/auth/mfa/unlock/", "end a lock early, by the password", '{"locked":false}', "[user], password, [presence]"
    ),
    RouteSpec(
        "/auth/keys/",
        "how many keys there are, and how many accounts wait to be sealed with the newest",
        '{"keys":1,"accounts_on_old_keys":0}',
    ),
)  # fmt: skip
