"""Whether the keys are those that the accounts are sealed with: a wrong copy put back is a lost key.

Else identity would look well until somebody proves who they are. One sealed value that opens says enough; one that
does not, among others that do, is a matter of its account, and is said in the log.
"""

from typing import Final

from contracts.errors import Rejected
from services.identity.account.state import User
from services.identity.accounts import Accounts
from services.identity.sealing import Sealer
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


def _opens(sealer: Sealer, user: User) -> bool:
    try:
        if user.secret is not None:
            sealer.open(user.user_id, "totp", user.secret)
        if user.password is not None:
            sealer.open(user.user_id, "password", user.password)
    except Rejected:
        return False
    return True
