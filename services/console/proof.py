"""The conversation in a terminal: what is asked is shown, what is typed is said, until it is over."""

import secrets
import sys
from typing import Any

from contracts.approval import action_digest
from contracts.errors import DENIED, OK, Rejected, exit_code_of
from services.console.approval_text import whole
from services.console.connection import Console, connected
from services.console.keyboard import ask
from services.console.options import Common
from services.console.output import plain
from services.console.rows import broken, columns_of


async def converse(common: Common, verb: str, body: dict[str, Any]) -> int:
    """Carry out both turns of a conversation and print what came of it; the exit code."""
    session = secrets.token_hex(16)
    async with connected(common) as console:
        said = plain(await console.call(verb, {"session": session, "text": "", **body}))
        while said["state"] in ("await_name", "await_code"):
            if said["state"] == "await_name" and said["gates"]:
                body = {**body, "gates": await _show(console, said["gates"])}
            text = await ask(said["say"])
            if said["state"] == "await_name" and not text.strip():
                raise Rejected("bad_request", "no name was given", field="text")
            said = plain(await console.call(verb, {"session": session, "text": text, **body}))
    return report(common, said)


def report(common: Common, said: dict[str, Any]) -> int:
    """Print the end of a conversation; the exit code is that of what it tells, also where one gate of several was."""
    code = said["code"]
    extra = f" ({code})" if code else ""
    after = f"; again in {said['retry_after']} s" if said["retry_after"] is not None else ""
    common.output.value(said, f"{said['say']}{extra}{after}")
    if code:
        return exit_code_of(said)
    return OK if said["state"] == "confirmed" else DENIED


async def _show(console: Console, gates: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Show the whole of what would be done; what is answered then is exactly this. Raises approval_stale."""
    for listed in gates:
        asked = {"approval_id": listed["approval_id"]}
        cut = listed["action"] is None or listed.get("read_more")
        gate = plain(await console.call("identity.approval.show", asked)) if cut else listed
        if action_digest(gate["action"]) != gate["digest"]:
            raise Rejected("approval_stale", "the action is not that of the digest", approval_id=gate["approval_id"])
        sys.stderr.write(f"{broken(whole(gate), columns_of(sys.stderr))}\n")
    return [{"approval_id": gate["approval_id"], "digest": gate["digest"]} for gate in gates]
