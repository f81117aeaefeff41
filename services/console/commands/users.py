"""`htdag users`: accounts of humans, and what a human does with one."""

import asyncio
import time
from typing import Annotated, Any

from cyclopts import App, Parameter

from contracts.errors import Rejected
from contracts.identity import BEGIN_ANEW_FILE
from services.console import keyboard, local_identity, proof
from services.console.connection import connected
from services.console.home import write_private
from services.console.options import DEFAULTS, Common
from services.console.output import columns, plain

app = App(name="users", help="Accounts: prove who you are, set up, unlock, reset.", help_format="plaintext")


@app.command(name="list")
async def list_(*, common: Common = DEFAULTS) -> None:
    """List all accounts, humans and agents.

    For example:
        htdag users list
    """
    async with connected(common) as console:
        users = plain(await console.call("identity.user.list", {}))
    links = local_identity.links(common.place)
    rows = [
        (
            user["name"],
            user["kind"],
            "on" if user["mfa_enabled"] else "off",
            _lock(user),
            links.get(user["user_id"], ""),
        )
        for user in users
    ]
    common.output.value(users, lambda _: columns(("NAME", "KIND", "PROOF", "LOCKED", "SET-UP LINK"), rows))


@app.command
async def status(name: str, /, *, common: Common = DEFAULTS) -> None:
    """Show one account: whether its proof is on, and whether it is locked.

    For example:
        htdag users status aka

    Parameters
    ----------
    name
        The account, in any case.
    """
    async with connected(common) as console:
        user = plain(await console.call("identity.user.status", {"name": name}))
    text = (
        f"{user['name']} ({user['kind']})  mfa_enabled {str(user['mfa_enabled']).lower()}  locked {_lock(user) or 'no'}"
    )
    common.output.value(user, text)


@app.command
async def create(name: str, /, *, common: Common = DEFAULTS) -> None:
    """Create a human account and print its one-time set-up link.

    For example:
        htdag users create Aka

    Parameters
    ----------
    name
        Begins with a letter; then letters, digits, _ and -.
    """
    async with connected(common) as console:
        user = plain(await console.call("identity.user.create", {"name": name}))
    link = local_identity.links(common.place).get(user["user_id"])
    common.output.value({**user, "set_up_link": link}, f"{user['name']} is created. Set up: {link or 'on its host'}")


@app.command
async def setup(name: str, /, *, common: Common = DEFAULTS) -> None:
    """Set an account up on this host: password, then the secret for an
    authenticator app, then a first code. Password and code are asked for, or
    read line by line from a pipe.

    For example:
        htdag users setup aka

    Parameters
    ----------
    name
        The account.
    """
    home = common.place
    fresh = name.lower() in local_identity.links(home)
    password = await keyboard.ask_password("Choose a password." if fresh else "Password.")
    if fresh:
        signed = await local_identity.bring_to_life(home, name, password)
    else:
        signed = await local_identity.post(home, "/auth/session/", {"user": name, "password": password})
    made = await local_identity.post(home, "/auth/mfa/setup/", {}, signed["session"])
    common.output.note(f"{_qr(made['provisioning_uri'])}\nsecret: {made['secret']}")
    code = await keyboard.ask("Enter the code of your app.")
    verified = await local_identity.post(home, "/auth/mfa/verify/", {"code": code}, signed["session"])
    common.output.value(verified, f"proof is on for {name}")


@app.command
async def passwd(name: str, /, *, common: Common = DEFAULTS) -> None:
    """Change an account's local password, with the old one and a code. All three
    are asked for, or read line by line from a pipe. On this host only.

    For example:
        htdag users passwd aka

    Parameters
    ----------
    name
        The account.
    """
    body = {"user": name, "password": await keyboard.ask_password("Password.")}
    body["new_password"] = await keyboard.ask_password("Choose a new password.")
    body["code"] = await keyboard.ask("Enter your code.")
    done = await local_identity.post(common.place, "/auth/password/change/", body)
    common.output.value(done, f"the password of {name} is changed")


@app.command
async def disable(name: str, /, *, common: Common = DEFAULTS) -> None:
    """Turn an account's proof off with a valid code, and erase its secret.

    For example:
        htdag users disable aka

    Parameters
    ----------
    name
        The account.
    """
    code = await keyboard.ask("Enter your code.")
    done = await local_identity.post(common.place, "/auth/mfa/disable/", {"user": name, "code": code})
    common.output.value(done, f"proof is off for {name}")


@app.command
async def reset(name: str, /, *, common: Common = DEFAULTS) -> None:
    """Turn an account's proof off without a code, by password and only on this
    host: for a lost phone.

    For example:
        htdag users reset aka

    Parameters
    ----------
    name
        The account.
    """
    password = await keyboard.ask_password("Password.")
    done = await local_identity.post(common.place, "/auth/mfa/reset/", {"user": name, "password": password})
    common.output.value(done, f"proof is off for {name}; `htdag users setup {name}` turns it on again")


@app.command
async def unlock(name: str, /, *, common: Common = DEFAULTS) -> None:
    """End an account's lock early, by password and only on this host.

    For example:
        htdag users unlock aka

    Parameters
    ----------
    name
        The account.
    """
    password = await keyboard.ask_password("Password.")
    done = await local_identity.post(common.place, "/auth/mfa/unlock/", {"user": name, "password": password})
    common.output.value(done, f"{name} is unlocked")


@app.command
async def converse(*, common: Common = DEFAULTS) -> int:
    """Prove who you are: a name, then a code. Exit code 4 when it did not work,
    75 after too many attempts.

    For example:
        htdag users converse
    """
    return await proof.converse(common, "identity.login.converse", {})


@app.command(name="try")
async def try_(name: str, code: str, /, *, common: Common = DEFAULTS) -> int:
    """Prove who you are in one command, for scripts: name and code at once.

    For example:
        htdag users try aka 123456

    Parameters
    ----------
    name
        The account.
    code
        The code. It stands on the command line: it is used up by this.
    """
    session = f"try-{time.time_ns()}"
    async with connected(common) as console:
        await console.call("identity.login.converse", {"session": session, "text": name})
        said = plain(await console.call("identity.login.converse", {"session": session, "text": code}))
    return proof.report(common, said)


@app.command
async def rotate(*, drop_old: Annotated[bool, Parameter(negative="")] = False, common: Common = DEFAULTS) -> None:
    """Put a new key in front of the key file. A running identity seals all
    secrets anew within seconds.

    For example:
        htdag users rotate
        htdag users rotate --drop-old

    Parameters
    ----------
    drop_old
        Keep only the newest key; what was sealed with an older one, also secrets that were erased, is lost for ever.
    """
    import importlib

    key_file: Any = importlib.import_module("services.identity.key_file")
    file = key_file.KeyFile(local_identity.key_path(common.place))
    if drop_old:
        with file.changing():
            await _all_rewrapped(common)
            dropped = file.drop_old()
        common.output.value({"dropped": dropped}, f"{dropped} old keys are dropped")
        return
    with file.changing():
        keys = file.rotate()
    common.output.value({"keys": keys}, f"a new key is in front; there are {keys}. Then: htdag users rotate --drop-old")


@app.command(name="begin-anew")
def begin_anew(*, common: Common = DEFAULTS) -> None:
    """Let identity begin with a new owner although its accounts were lost: only
    when the broker's store cannot be put back. Whoever runs this may read the
    keys of the home anyway.

    For example:
        htdag users begin-anew
    """
    wish = common.place.keys / BEGIN_ANEW_FILE
    if not common.place.keys.is_dir():
        raise Rejected("not_found", "this home has no keys", home=str(common.place.root))
    write_private(wish, "")
    common.output.value({"file": str(wish)}, "the next start of identity begins anew, whatever its log holds")


async def _all_rewrapped(common: Common) -> None:
    """Wait until nothing is sealed with an old key any more; dropping one earlier would lose accounts for ever."""
    until_s = time.monotonic() + common.wait
    while True:
        told = await local_identity.post(common.place, "/auth/keys/", {})
        if not told["accounts_on_old_keys"]:
            return
        if time.monotonic() >= until_s:
            raise Rejected("conflict", "accounts are still sealed with an old key", hint="wait, then again", **told)
        await asyncio.sleep(0.2)


def _lock(user: dict[str, Any]) -> str:
    if user["needs_unlock"]:
        return "until unlocked"
    return f"until {user['locked_until']}" if user["locked"] else ""


def _qr(uri: str) -> str:
    import io

    import segno

    out = io.StringIO()
    segno.make(uri, error="m").terminal(out=out, compact=True)
    return out.getvalue()
