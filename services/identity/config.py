"""The section `identity` of the configuration."""

from typing import Annotated, Final

import msgspec

from contracts.identity import SET_UP_LINK_S
from services.runtime.config import Port

MEMORY_KIB: Final = 64 << 10
MEMORY_KIB_MIN: Final = 19 << 10
"""What OWASP asks at least for Argon2id; we iterate more often than it does."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """`port` is that of the local listener (127.0.0.1 and ::1), 0 any free one; `owner` names the first account.

    `test_clock` is for tests only: a file of epoch seconds from which identity takes the time. It is refused when
    anything of the instance listens beyond loopback. Every replica needs the same `key_file`, which is `keys/identity`
    in the home. A set-up link is good for `set_up_link_s`; then another one takes its place. Who signs in at the
    listener stays so for `session_s`; `issuer` is what authenticator apps show. Comparing a password takes
    `password_memory_kib`; one that is set keeps what it was set with, and its name takes another time than others.
    """

    port: Port = 0
    owner: str = ""
    test_clock: str | None = None
    session_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 900.0
    set_up_link_s: Annotated[float, msgspec.Meta(ge=1, le=90 * 86_400)] = SET_UP_LINK_S
    issuer: str = "htdag"
    key_file: str = ""
    password_memory_kib: Annotated[int, msgspec.Meta(ge=MEMORY_KIB_MIN, le=1 << 20)] = MEMORY_KIB
