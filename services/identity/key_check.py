"""Whether the keys are those that the accounts are sealed with: a wrong copy put back is a lost key.

Else identity would look well until somebody proves who they are. One sealed value that opens says enough; one that
does not, among others that do, is a matter of its account, and is said in the log.
"""

import contextlib
from typing import Final

from contracts.errors import Rejected
from services.identity.account.state import User
from services.identity.accounts import Accounts
from services.identity.sealing import Kind, Sealer
from services.runtime.lifecycle import Log

LOOKED_AT_MAX: Final = 20


async def check_keys(accounts: Accounts, log: Log) -> None:
    """Return when the keys open what is sealed, or nothing is. Raises bad_config."""
    sealed = [entry.user_id for entry in await accounts.directory.entries() if entry.mfa or entry.password]
    opened = 0
    for user_id in sealed[:LOOKED_AT_MAX]:
        if _opens(accounts.sealer, await accounts.get(user_id)):
            opened += 1
        else:
            log.error("secrets_unreadable", user=user_id)
    if sealed and not opened:
        raise Rejected(
            "bad_config",
            "the key file of identity is not the one that its accounts are sealed with",
            hint="put it back from its copy; without it no secret can be opened",
        )


def readable(sealer: Sealer, user: User) -> dict[Kind, str]:
    """What is sealed of an account and opens: with its secret, by its kind."""
    tokens: dict[Kind, str | None] = {"totp": user.secret, "password": user.password}
    found: dict[Kind, str] = {}
    for kind, token in tokens.items():
        if token is not None:
            with contextlib.suppress(Rejected):
                found[kind] = sealer.open(user.user_id, kind, token)
    return found


def on_old_keys(sealer: Sealer, user: User) -> dict[Kind, str]:
    """The secrets of an account that open and are not sealed with the newest key. What no key opens waits for none."""
    tokens: dict[Kind, str | None] = {"totp": user.secret, "password": user.password}
    return {kind: secret for kind, secret in readable(sealer, user).items() if not sealer.is_newest(tokens[kind] or "")}


def _opens(sealer: Sealer, user: User) -> bool:
    return len(readable(sealer, user)) == sum(one is not None for one in (user.secret, user.password))
