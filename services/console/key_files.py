"""Keys for a broker that operators run themselves: seeds for the services, an environment file for the broker."""

import secrets
from pathlib import Path
from typing import Final

from contracts.permissions import USERS
from contracts.rights import OPERATOR, User
from services.console.home import cannot_write, write_private

ENVIRONMENT: Final = "nats.env"


def variable(user: User) -> str:
    """The variable of `infra/nats/permissions.conf` that holds what a user logs in with."""
    if user.password:
        return f"HTDAG_{user.name.upper()}_PASSWORD"
    return f"HTDAG_NKEY_{user.name.replace('-', '_').upper()}"


def write(folder: Path) -> list[Path]:
    """Make the seeds and the password that are missing in `folder`, and what the broker needs; the files there."""
    from services.runtime import nkeys

    password = folder / OPERATOR
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not password.exists():
            write_private(password, secrets.token_hex(24) + "\n")
        known = {
            user.name: password.read_text(encoding="ascii").strip()
            if user.password
            else nkeys.keep(folder, user.name).public
            for user in USERS
        }
    except (OSError, UnicodeDecodeError) as error:
        raise cannot_write(folder, error) from error
    lines = [f"{variable(user)}={known[user.name]}\n" for user in USERS]
    write_private(folder / ENVIRONMENT, "".join(lines))
    seeds = [folder / f"{user.name}{nkeys.SUFFIX}" for user in USERS if not user.password]
    return [folder / ENVIRONMENT, password, *seeds]
