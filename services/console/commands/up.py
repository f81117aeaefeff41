"""`htdag up`, `down` and `ps`: the embedded instance."""

import contextlib
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter, validators

from contracts.errors import NOT_FOUND, OK, Rejected
from services.console.home import Home, InstanceRecord
from services.console.options import DEFAULTS, Common
from services.console.output import Output
from services.console.processes import stop
from services.console.supervision import status

up_app = App(name="up", help_format="plaintext")
down_app = App(name="down", help_format="plaintext")
ps_app = App(name="ps", help_format="plaintext")


@up_app.default
async def up(
    *,
    detach: Annotated[bool, Parameter(alias="-d", negative="")] = False,
    port: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65535))] = 4222,
    sync: Literal["always", "1s"] = "always",
    only: str | None = None,
    model: str | None = None,
    test_clock: Path | None = None,
    scale: list[str] | None = None,
    ready_timeout: float = 60.0,
    common: Common = DEFAULTS,
) -> int:
    """Start a whole instance: broker, planner, policy-gateway, executor, llm-worker
    with a small local model, and identity.

    In the foreground it shows what runs, restarts what falls, and drains on
    Ctrl-C. NATS_URL set means: use that broker and start none.

    For example:
        htdag up
        htdag up -d --json --home /tmp/a --port 0

    Parameters
    ----------
    detach
        Run under supervisord and return when everything is ready.
    port
        Port of the broker on loopback; 0 takes a free one.
    sync
        always: what was acknowledged survives power loss. 1s: faster, up to one second of it may be lost.
    only
        Start only these services, separated by commas.
    model
        Model that answers for the ones that strategies name (claude-sonnet-4.5, gemini-2.5-pro, gemini-1.5-flash);
        else smollm2 does, for those without a key.
    test_clock
        For tests only: identity takes the time from this file of epoch seconds. Refused beyond loopback.
    scale
        Copies of a service: llm-worker=3, executor=2, identity=2, or llm-worker=1..4 to add workers while calls wait
        and to drain them when idle. On an instance that runs it changes the number.
    ready_timeout
        Seconds until everything must be ready (with -d).
    """
    from services.console.supervision import background, foreground
    from services.console.supervision.clock_file import accepted
    from services.console.supervision.plan import UpPlan, check_configuration, chosen_services
    from services.console.supervision.scale import parse

    output, home = common.output, common.place
    wishes = parse(scale or [])
    running = home.record() if wishes else None
    if running is not None and running.running:
        record = await background.rescale(home, running, wishes, ready_timeout)
        output.value(status.document(record), lambda _: status.table(record, output))
        return OK
    clock = None if test_clock is None else await accepted(test_clock, output)
    plan = UpPlan(chosen_services(only), port, sync, model, wishes, test_clock=clock)
    for warning in check_configuration(home, plan):
        output.note(warning)
    if not detach:
        return await foreground.up(home, plan, output)
    record = await background.up(home, plan, deadline_s=ready_timeout)
    output.value(status.document(record), lambda _: status.table(record, output))
    return OK


@down_app.default
async def down(*, common: Common = DEFAULTS) -> int:
    """Stop the instance of this home: drain it, then end whatever is left.

    For example:
        htdag down --home /tmp/a
    """
    home, output = common.place, common.output
    record = home.record()
    if record is None:
        raise Rejected("not_running", home=str(home.root))
    was_running = record.running
    if was_running:
        await _make_room(home, output)
    left = await _end(home, record)
    if left:
        raise Rejected("internal", "some processes cannot be ended", pids=left)
    if not was_running:
        output.note("it was not running; what it had left behind was ended")
    output.value({"home": str(home.root), "stopped": True}, "stopped")
    return OK


@ps_app.default
async def ps(*, pids: Annotated[bool, Parameter(negative="")] = False, common: Common = DEFAULTS) -> int:
    """Show the processes of this home. Exit code 3 when something is not ready;
    what `up --only` left out is absent, which is no failure.

    For example:
        htdag ps
        htdag ps --json

    Parameters
    ----------
    pids
        Only process ids, one per line: the supervising process first, the broker last.
    """
    output = common.output
    record = await current(common.place)
    if pids:
        numbers = [process.pid for process in record.processes if process.start_ticks]
        output.value(numbers, "\n".join(map(str, numbers)))
        return OK
    output.value(status.document_of_all(record), lambda _: status.table_of_all(record, output))
    everything = [*record.services.values(), *([record.broker] if record.broker else [])]
    return OK if all(status.state_of(service) == "ready" for service in everything) else NOT_FOUND


async def current(home: Home) -> InstanceRecord:
    """What runs in this home now. Raises Rejected("not_running")."""
    record = home.running()
    if record.mode == "foreground":
        return record
    from services.console.supervision import background

    fresh = await background.current(home, record)
    with contextlib.suppress(Rejected):
        home.write_record(fresh)  # a full disk must not keep anybody from looking
    return fresh


async def _make_room(home: Home, output: Output) -> None:
    """A broker that was full stores nothing, so a drain would lose what services hold: it is started anew first."""
    from services.console.supervision.mending import mend_broker

    try:
        if await mend_broker(home, await current(home)):
            output.note("the broker had stopped storing on a full disk; it was started anew before the drain")
    except Rejected as error:
        if error.code not in ("storage_full", "nats_unavailable", "not_running", "internal"):
            raise
        output.note(f"warning: {error.message}; answers that are held and not stored may have to be paid again")


async def _end(home: Home, record: InstanceRecord) -> list[int]:
    from services.console.supervision import background
    from services.console.supervision.strays import TERM_S, strays, sweep

    if not record.running:
        await sweep(home)
        home.instance_file.unlink(missing_ok=True)
        return []
    if record.mode == "background":
        return [process.pid for process in await background.down(home, record)]
    # The foreground `up` drains its children itself; only what it leaves is ended here.
    await stop([record.supervisor], term_s=background.STOP_S)
    left = await stop([record.supervisor, *strays(home)], term_s=TERM_S)
    home.instance_file.unlink(missing_ok=True)
    return [process.pid for process in left]
