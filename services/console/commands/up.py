"""`htdag up`, `down` and `ps`: the embedded instance."""

import contextlib
from typing import Annotated, Literal

from cyclopts import App, Parameter

from contracts.errors import NOT_FOUND, OK, Rejected
from services.console.home import Home, InstanceRecord
from services.console.options import DEFAULTS, Common
from services.console.processes import stop
from services.console.supervision import status

up_app = App(name="up", help_format="plaintext")
down_app = App(name="down", help_format="plaintext")
ps_app = App(name="ps", help_format="plaintext")


@up_app.default
async def up(
    *,
    detach: Annotated[bool, Parameter(alias="-d", negative="")] = False,
    port: int = 4222,
    sync: Literal["always", "1s"] = "always",
    only: str | None = None,
    model: str | None = None,
    scale: list[str] | None = None,
    ready_timeout: float = 60.0,
    common: Common = DEFAULTS,
) -> int:
    """Start a whole instance: broker, planner, policy-gateway, executor, and
    llm-worker with a small local model.

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
    scale
        Copies of a service: llm-worker=3, executor=2, or llm-worker=1..4 to add workers while calls wait and to drain
        them when idle. On an instance that runs it changes the number.
    ready_timeout
        Seconds until everything must be ready (with -d).
    """
    from services.console.supervision import background, foreground
    from services.console.supervision.plan import UpPlan, chosen_services
    from services.console.supervision.scale import parse

    wishes = parse(scale or [])
    plan = UpPlan(chosen_services(only), port, sync, model, wishes)
    output, home = common.output, common.place
    running = home.record() if wishes else None
    if running is not None and running.running:
        record = await background.rescale(home, running, wishes, ready_timeout)
        output.value(status.document(record), lambda _: status.table(record, output))
        return OK
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
    left = await _end(home, record)
    if left:
        raise Rejected("internal", "some processes cannot be ended", pids=left)
    if not was_running:
        output.note("it was not running; what it had left behind was ended")
    output.value({"home": str(home.root), "stopped": True}, "stopped")
    return OK


@ps_app.default
async def ps(*, pids: Annotated[bool, Parameter(negative="")] = False, common: Common = DEFAULTS) -> int:
    """Show the processes of this home. Exit code 3 when something is not ready.

    For example:
        htdag ps
        htdag ps --json

    Parameters
    ----------
    pids
        Only process ids, one per line: the supervising process first, the broker last.
    """
    output = common.output
    record = await _current(common.place)
    if pids:
        numbers = [process.pid for process in record.processes if process.start_ticks]
        output.value(numbers, "\n".join(map(str, numbers)))
        return OK
    output.value(status.document(record), lambda _: status.table(record, output))
    everything = [*record.services.values(), *([record.broker] if record.broker else [])]
    return OK if all(status.state_of(service) == "ready" for service in everything) else NOT_FOUND


async def _current(home: Home) -> InstanceRecord:
    record = home.running()
    if record.mode == "foreground":
        return record
    from services.console.supervision import background

    fresh = await background.current(home, record)
    with contextlib.suppress(Rejected):
        home.write_record(fresh)  # a full disk must not keep anybody from looking
    return fresh


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
