"""`htdag doctor`: what is wrong, and what to do."""

import asyncio
from typing import Annotated

from cyclopts import App, Parameter

from contracts.errors import FAILED, OK
from services.console.doctor.finding import Finding
from services.console.home import Home
from services.console.options import DEFAULTS, Common
from services.console.output import Output, plain

app = App(name="doctor", help_format="plaintext")


@app.default
async def doctor(*, mend: Annotated[bool, Parameter(negative="")] = False, common: Common = DEFAULTS) -> int:
    """Find what is wrong and say what to do: machine, home, broker, streams,
    services, sandbox, model, identity, open waits.

    Exit code 1 when something failed; a warning or a note is no failure.

    For example:
        htdag doctor
        htdag doctor waits
        htdag doctor isolation

    Parameters
    ----------
    mend
        First start the broker anew if it has stopped storing on a full disk that has room again, and make what it
        lost of its streams. The services stay, and store what they hold.
    """
    from services.console.doctor import identity, machine, system

    home = common.place
    if mend:
        await _mend(home, common)
    near = [
        machine.python(),
        machine.clock(),
        machine.home_rights(home),
        machine.disk(home),
        machine.broker_program(),
        machine.port(home),
        machine.model(),
        identity.keys(home),
    ]
    sandbox, docker, far = await asyncio.gather(machine.sandbox(), machine.docker(), system.examine(common))
    findings = [*near, *sandbox, docker, *far]
    return _show(common.output, findings)


@app.command
async def waits(*, common: Common = DEFAULTS) -> None:
    """List everything that waits in any run, with its deadline.

    For example:
        htdag doctor waits
    """
    from services.console.commands.runs import waits as runs_waits

    await runs_waits(None, common=common)


@app.command
def isolation(*, common: Common = DEFAULTS) -> int:
    """Look at the running services of this home: none holds a secret of another
    (keys of providers are llm-worker's alone), and planner, executor and identity
    run no program and speak to the broker only.

    For example:
        htdag doctor isolation
    """
    from services.console.doctor.isolation import isolation as look

    return _show(common.output, look(common.place))


async def _mend(home: Home, common: Common) -> None:
    from services.console import stream_keeper
    from services.console.commands.up import current
    from services.console.supervision.mending import mend_broker

    mended = await mend_broker(home, await current(home))
    made = await stream_keeper.make_missing(common)
    if made:
        common.output.note(f"made again: {', '.join(made)}")
    if mended:
        common.output.note("the broker was started anew and stores again")
    elif not made:
        common.output.note("the broker stores: nothing to mend")


def _show(output: Output, findings: list[Finding]) -> int:
    """Print what was found; the exit code."""
    failed = any(finding.status == "fail" for finding in findings)
    if output.json:
        output.value({"ok": not failed, "checks": plain(findings)})
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            _print(output, finding.name.ljust(width), finding.status, finding.message, finding.mend)
    return FAILED if failed else OK


def _print(output: Output, name: str, status: str, message: str, mend: str) -> None:
    # Padded before it is painted: the codes of colours have no width on the screen.
    output.line(f"{output.state(status)}{' ' * (5 - len(status))} {name}  {message}")
    if mend and status in ("warn", "fail", "note"):
        output.line(f"      {' ' * len(name)}  {output.paint(mend, 'dim')}")
