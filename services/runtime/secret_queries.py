"""What a log-in carries in a URL: `?code=…&state=…`, worth an account for a minute. Pure."""

import re
from typing import Final

_PARAMETER: Final = re.compile(r"(?<=[?&#])(?P<name>[A-Za-z_]{3,20})=(?P<value>[^\s&#\"'<>]++)")
_ALWAYS: Final = frozenset(
    {
        "assertion", "auth_code", "authorization_code", "client_assertion", "code_verifier", "device_code", "nonce",
        "oauth_verifier", "relaystate", "samlrequest", "samlresponse", "session_state", "ticket", "user_code",
    }
)  # fmt: skip
_EVERYDAY_CHARS_MAX: Final = {"code": 5, "state": 15}
"""`code=E0382` and `state=open` are everyday words; a longer code is none, and of a state only letters are."""


def secret_values(text: str) -> list[tuple[int, int]]:
    """Where the values of such parameters stand in a text, in order. A code and a state together are a log-in's."""
    if "=" not in text:
        return []
    found = [*_PARAMETER.finditer(text)]
    together = {one["name"].lower() for one in found}.issuperset(_EVERYDAY_CHARS_MAX)
    return [one.span("value") for one in found if _secret(one["name"].lower(), one["value"], together)]


def _secret(name: str, value: str, together: bool) -> bool:
    if name in _ALWAYS:
        return True
    chars_max = _EVERYDAY_CHARS_MAX.get(name)
    if chars_max is None:
        return False
    plain = name == "code" or not any(map(str.isdigit, value))
    return together or len(value) > chars_max or not plain
