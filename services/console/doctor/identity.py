"""Checks of identity: its keys, accounts that are not set up yet, sessions, and gates that wait."""

import importlib
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from contracts.errors import Rejected
from contracts.identity import BEGAN_FILE
from contracts.reply import RemoteRejected
from contracts.streams import CONVERSATIONS
from services.console import local_identity
from services.console.approval_text import left_s
from services.console.connection import Console
from services.console.doctor.finding import Finding
from services.console.gate_list import listed
from services.console.home import Home
from services.console.output import duration, plain

_ANSWER_S = 5.0


class _Began(msgspec.Struct, frozen=True):
    """What identity noted of its keys; see `services.identity.beginning`."""

    public_key: str = ""
    newest: str = ""


def keys(home: Home) -> Finding:
    """The key file must be there, private, whole, this home's, and the newest; else no secret can be opened."""
    try:
        path = local_identity.key_path(home)
    except Rejected as error:
        return Finding("identity keys", "fail", error.message, str(error.detail.get("hint") or error.kind.hint))
    try:
        began = msgspec.json.decode((home.keys / BEGAN_FILE).read_bytes(), type=_Began)
    except FileNotFoundError:
        began = None
    except (OSError, msgspec.MsgspecError):
        mend = f"put {home.keys / BEGAN_FILE} back from its copy"
        return Finding("identity keys", "fail", f"{BEGAN_FILE} cannot be read", mend)
    if began is None and not path.exists():
        mend = f"the first start of identity makes it; where there were accounts, put {path} back from its copy first"
        return Finding("identity keys", "note", "there is no key file here", mend)
    key_file: Any = importlib.import_module("services.identity.key_file")
    sealing: Any = importlib.import_module("services.identity.sealing")
    file = key_file.KeyFile(path)
    try:
        found, public_key = file.read(), sealing.Sealer(file).public_key
    except Rejected as error:
        return Finding("identity keys", "fail", error.message, str(error.detail.get("hint") or error.kind.hint))
    if began is not None and began.public_key not in ("", public_key):
        mend = f"put {path} back from its copy; without it no secret can be opened"
        return Finding("identity keys", "fail", "the key file of identity is another home's", mend)
    if began is not None and began.newest and not key_file.knows(found, began.newest):
        mend = f"put {path} back from its newest copy; without it no secret can be opened"
        return Finding(
            "identity keys", "fail", "the key file of identity is an older copy: it lacks the key in use", mend
        )
    return Finding("identity keys", "ok", f"{path}, private; keep a copy of it")


async def accounts(console: Console, home: Home) -> Finding:
    """Somebody must be able to approve."""
    try:
        users = plain(await console.call("identity.user.list", {}, timeout_s=_ANSWER_S))
    except (Rejected, RemoteRejected) as error:
        return Finding("accounts", "warn", str(error), "`htdag ps`; look at identity's log")
    humans = [user for user in users if user["kind"] == "human"]
    ready = [user["name"] for user in humans if user["mfa_enabled"]]
    locked = [user["name"] for user in users if user["locked"]]
    if not ready:
        waiting = ", ".join(local_identity.links(home)) or "nobody"
        mend = "open the link that `htdag users list` shows, or `htdag users setup NAME`"
        return Finding("accounts", "note", f"no human can prove who they are yet; set-up links: {waiting}", mend)
    if locked:
        return Finding("accounts", "warn", f"locked: {', '.join(locked)}", "wait, or `htdag users unlock NAME` here")
    return Finding("accounts", "ok", f"{len(ready)} of {len(humans)} humans can approve, {len(users)} accounts")


async def sessions(console: Console) -> Finding:
    """While a session may have been forgotten, a code counts only beside its gate."""
    try:
        info = await console.bus.api(f"STREAM.INFO.{CONVERSATIONS}")
    except Rejected as error:
        return Finding("sessions", "warn", error.message, error.kind.hint)
    config, state = info["config"], info["state"]
    count, most = int(state["messages"]), int(config["max_msgs"])
    if count < most:
        return Finding("sessions", "ok", f"{count} remembered, of {most} at most")
    # The oldest goes first, by its age as by their number: what was pushed out would be gone by then.
    oldest = datetime.fromisoformat(state["first_ts"])
    until = oldest + timedelta(microseconds=int(config["max_age"]) / 1_000)
    message = (
        f"{CONVERSATIONS} is full: {most} sessions were spoken in within a day, older ones are forgotten, and a code"
        f" alone counts for no gate before {until.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    )
    mend = "say the gate with the code, as `htdag approvals grant` does; find out who speaks in so many sessions"
    return Finding("sessions", "warn", message, mend)


async def gates(console: Console) -> Finding:
    """What waits for a human, and until when."""
    try:
        waiting = await listed(console, timeout_s=_ANSWER_S)
    except (Rejected, RemoteRejected) as error:
        return Finding("approvals", "warn", str(error), "`htdag ps`; look at identity's log")
    if not waiting:
        return Finding("approvals", "ok", "no gate waits")
    left = duration(left_s(waiting[0], time.time() * 1000))
    message = f"{len(waiting)} gates wait for a human, the first runs out in {left}"
    return Finding("approvals", "note", message, "`htdag approvals list`")
