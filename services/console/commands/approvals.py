"""`htdag approvals`: gates before dangerous actions, answered by people who prove who they are."""

import sys
import time
from typing import Annotated, Any

from cyclopts import App, Parameter

from services.console import proof
from services.console.approval_text import HEADS, row, shown
from services.console.connection import connected
from services.console.gate_list import listed
from services.console.options import DEFAULTS, Common
from services.console.output import columns, plain
from services.console.rows import broken, columns_of

app = App(name="approvals", help="Gates that wait for a human: look, release, deny.", help_format="plaintext")


@app.command(name="list")
async def list_(
    *, all_: Annotated[bool, Parameter(name="--all", negative="")] = False, run: str | None = None,
    common: Common = DEFAULTS,
) -> None:  # fmt: skip
    """List the gates that wait, the one that expires first first.

    For example:
        htdag approvals list
        htdag approvals list --all --json

    Parameters
    ----------
    all_
        Also those that were answered or ran out.
    run
        Only those of this run.
    """
    async with connected(common) as console:
        gates = await listed(console, everything=all_, run_id=run)
    now_ms = time.time() * 1000
    table = columns(HEADS, [row(gate, now_ms) for gate in gates])
    common.output.value(gates, broken(table, columns_of(sys.stdout)))


@app.command
async def show(approval_id: str, /, *, common: Common = DEFAULTS) -> None:
    """Show one gate: exactly what would be done, and what became of it.

    For example:
        htdag approvals show apr-7

    Parameters
    ----------
    approval_id
        The gate.
    """
    async with connected(common) as console:
        gate = plain(await console.call("identity.approval.show", {"approval_id": approval_id}))
    common.output.value(gate, lambda gate: broken(shown(gate), columns_of(sys.stdout)))


@app.command
async def grant(*approval_ids: str, common: Common = DEFAULTS) -> int:
    """Release gates: what each of them would do is shown, then name and a fresh
    code are asked for. One code releases all that are named. When it did not
    work, also for one of several, the exit code is that of the refusal: 3 no such
    gate, 4 a wrong code, 5 not what was shown, 75 too many attempts, 124 too late.

    For example:
        htdag approvals grant apr-7
        htdag approvals grant apr-7 apr-8

    Parameters
    ----------
    approval_ids
        The gates.
    """
    return await proof.converse(common, "identity.approval.converse", _gates(approval_ids))


@app.command
async def deny(*approval_ids: str, reason: str = "", common: Common = DEFAULTS) -> int:
    """Deny gates: name and a fresh code are asked for, as for a release. Exit
    codes are those of grant.

    For example:
        htdag approvals deny apr-7 --reason "not on a Friday"

    Parameters
    ----------
    approval_ids
        The gates.
    reason
        Why; it stands in the log and in the task's error.
    """
    return await proof.converse(common, "identity.approval.deny", {**_gates(approval_ids), "reason": reason})


def _gates(approval_ids: tuple[str, ...]) -> dict[str, Any]:
    return {"gates": [{"approval_id": approval_id} for approval_id in approval_ids]}
