"""The composition root of policy-gateway: everything is wired here and nowhere else."""

import asyncio
from typing import Final

from contracts.errors import Rejected
from contracts.limits import TOOL_VALUE_MAX_BYTES
from contracts.policy import PolicyEvent
from contracts.streams import EVENTS_POLICY_GATEWAY, TOOL_CALLS
from services.policy_gateway.audit.denials import Denials
from services.policy_gateway.audit.log import AuditLog
from services.policy_gateway.audit.reading import AuditReader
from services.policy_gateway.audit.signing import Signer, load_signer, signer_of
from services.policy_gateway.calls.calls import Calls
from services.policy_gateway.calls.door import Door
from services.policy_gateway.calls.fetch_counts import FetchCounts
from services.policy_gateway.calls.flights import Flights
from services.policy_gateway.calls.judging import Judge
from services.policy_gateway.calls.owners import Owners
from services.policy_gateway.calls.records import CallRecords
from services.policy_gateway.calls.recovery import recover
from services.policy_gateway.calls.repeats import Repeats
from services.policy_gateway.calls.unjudged import Unjudged
from services.policy_gateway.calls.withdrawals import Withdrawals
from services.policy_gateway.config import SECTION, Config
from services.policy_gateway.decision.decide import decide
from services.policy_gateway.decision.roles import SHIPPED
from services.policy_gateway.handlers.audit import AuditHandlers
from services.policy_gateway.handlers.calls import CallHandlers
from services.policy_gateway.handlers.drill import DrillHandlers
from services.policy_gateway.handlers.policies import PolicyHandlers
from services.policy_gateway.hands import Hands, real_hands
from services.policy_gateway.policy.book import POLICY_CODEC, POLICY_SUBJECT, PolicyBook
from services.policy_gateway.policy.decider import POLICY, Policy, PutPolicy
from services.policy_gateway.releases import Releases
from services.policy_gateway.run_facts import RunFacts
from services.policy_gateway.tools.engine import engine_sockets, engine_url
from services.runtime.actor import ActorHost
from services.runtime.app import App
from services.runtime.grants import Grants
from services.runtime.jetstream import JetStreamEventStore

SERVICE: Final = "policy-gateway"
CATCH_UP_S: Final = 30.0
KEY_PATIENCE_S: Final = 15.0
"""As long as identity may need to come back: without its key a release is not known to be one, and its call fails."""
CHECKPOINT_LOOK_S: Final = 5.0
DRAIN_SHARE: Final = 0.4
"""Of the drain time, what calls under way may use; verbs have had half of it before."""
ENVELOPE_BYTES: Final = 64 << 10


async def build(app: App) -> None:
    """Wire the gateway with its real tools."""
    config = app.config.section(SECTION, Config)
    await assemble(app, config, await real_hands(app, config, _value_bytes_max(app)))


def _value_bytes_max(app: App) -> int:
    return min(TOOL_VALUE_MAX_BYTES, app.bus.payload_max - ENVELOPE_BYTES)


async def assemble(app: App, config: Config, hands: Hands) -> None:
    """Wire the gateway around its tools, close what dead gateways left open, and take calls."""
    if config.auto_admin:
        app.log.warning("auto_admin", hint="admin tasks run without the approval of a human")
    signer = signer_of(config.audit_key) if config.audit_key else load_signer(app.home / "keys")
    audit = AuditLog(
        store=JetStreamEventStore(app.bus, EVENTS_POLICY_GATEWAY), clock=app.clock, signer=signer,
        gateway=app.instance, metrics=app.metrics, log=app.log, payload_max=app.bus.payload_max,
    )  # fmt: skip
    await audit.start()
    app.on_ready("audit", audit.not_ready)
    book = await _book(app)
    reader = AuditReader(app.bus, app.clock, app.log)
    runs = RunFacts(app.bus, app.log)
    releases = Releases(app.bus, Grants(app.bus, app.clock, config.approval_keys, KEY_PATIENCE_S))
    judge = Judge(
        decide=decide, book=book, runs=runs, releases=releases, workspaces=hands.workspaces,
        fetches=FetchCounts(app.bus), clock=app.clock, metrics=app.metrics, auto_admin=config.auto_admin,
        admin_calls=config.admin_calls,
        engine_sockets=tuple(map(str, engine_sockets(engine_url(config.docker_host or None)))),
    )  # fmt: skip
    unjudged = Unjudged(
        audit=audit, book=book, clock=app.clock, ids=app.ids, log=app.log, gateway=app.instance,
        fingerprint=signer.fingerprint,
    )  # fmt: skip
    calls, owners, repeats = await _calls(app, audit, reader, judge, hands, unjudged, runs, signer)
    door = Door(
        bus=app.bus, calls=calls, unjudged=unjudged, ids=app.ids, metrics=app.metrics, log=app.log,
        roles=lambda: book.current.roles.rights, held_max=config.calls_held, group=SERVICE,
    )  # fmt: skip
    _bind(app, judge, book, reader, signer, config)
    drills = DrillHandlers(
        calls=calls, workspaces=config.workspaces_path(app.home), nats_url=app.core.nats_url, clock=app.clock,
        ids=app.ids,
    )  # fmt: skip
    app.handle("policy", "drill", drills.drill)
    await door.open()
    _ = app.spawn(_recover(app, reader, repeats, owners), "recover")
    _ = app.spawn(_checkpoints(app, audit, unjudged), "checkpoints")

    async def drain() -> None:
        await door.close()
        await calls.drain(app.core.drain_s * DRAIN_SHARE)
        await door.answered(app.core.grace_s)
        await unjudged.fold(at_once=True)
        await audit.checkpoint_if_due(at_once=True)
        await audit.drain()
        await app.bus.flush()

    app.on_drain(drain)


async def _book(app: App) -> PolicyBook:
    """The policy in force, followed. Raises Rejected when it cannot be read in time."""
    book = PolicyBook(shipped=SHIPPED.read_text(encoding="utf-8"), metrics=app.metrics, log=app.log)
    follower = await app.bus.follow(EVENTS_POLICY_GATEWAY, POLICY_SUBJECT, book.take)
    try:
        async with asyncio.timeout(CATCH_UP_S):
            await follower.caught_up.wait()
    except TimeoutError as error:
        raise Rejected("nats_unavailable", "the policy cannot be read in time") from error
    app.on_ready("policy", book.not_ready)
    return book


async def _calls(
    app: App,
    audit: AuditLog,
    reader: AuditReader,
    judge: Judge,
    hands: Hands,
    unjudged: Unjudged,
    runs: RunFacts,
    signer: Signer,
) -> tuple[Calls, Owners, Repeats]:
    flights = Flights()
    records = CallRecords(JetStreamEventStore(app.bus, TOOL_CALLS), app.clock, app.instance)
    withdrawals = Withdrawals(flights, runs, app.log)
    owners = Owners(app.bus, app.instance, flights.future, withdrawals.withdraw)
    await owners.start()
    handlers = CallHandlers(records=records, owners=owners, ids=app.ids, gateway=app.instance)
    app.handle("call", "withdraw", handlers.withdraw)
    _ = app.spawn(withdrawals.watch(), "withdrawals")
    repeats = Repeats(
        records=records, owners=owners, audit=audit, reader=reader, clock=app.clock, gateway=app.instance,
        bury=hands.bury,
    )  # fmt: skip
    calls = Calls(
        judge=judge, toolkit=hands.toolkit, audit=audit, records=records, repeats=repeats, flights=flights,
        denials=Denials(clock=app.clock, log=app.log, gateway=app.instance), unjudged=unjudged,
        clock=app.clock, metrics=app.metrics,
        log=app.log, gateway=app.instance, sandbox=hands.sandbox,
        value_bytes_max=_value_bytes_max(app), fingerprint=signer.fingerprint,
    )  # fmt: skip
    return calls, owners, repeats


def _bind(app: App, judge: Judge, book: PolicyBook, reader: AuditReader, signer: Signer, config: Config) -> None:
    host: ActorHost[PutPolicy, Policy, PolicyEvent] = ActorHost(
        service=SERVICE, aggregate="policy", decider=POLICY, codec=POLICY_CODEC,
        store=JetStreamEventStore(app.bus, EVENTS_POLICY_GATEWAY), clock=app.clock, ids=app.ids,
    )  # fmt: skip
    app.on_drain(host.drain)
    policies = PolicyHandlers(judge=judge, book=book, host=host, reader=reader)
    app.handle("policy", "decide", policies.decide)
    app.handle("policy", "roles", policies.roles)
    app.handle("policy", "put", policies.put)
    app.handle("policy", "diff", policies.diff)
    trusted = frozenset({signer.public, *config.audit_keys_trusted})
    handlers = AuditHandlers(bus=app.bus, reader=reader, trusted=trusted)
    app.handle("policy", "stats", handlers.stats)
    app.handle("policy", "audit", handlers.rows)
    app.handle("policy", "verify", handlers.verify)


async def _recover(app: App, reader: AuditReader, repeats: Repeats, owners: Owners) -> None:
    closed = await recover(app.bus, reader, repeats, owners, app.log)
    if closed:
        app.log.warning("calls_closed", count=closed, hint="their gateway died in the middle of them")


async def _checkpoints(app: App, audit: AuditLog, unjudged: Unjudged) -> None:
    """Sign the chain every so often, and store what was only counted; a broker that is away only puts it off."""
    while True:
        await asyncio.sleep(CHECKPOINT_LOOK_S)
        await unjudged.fold()
        try:
            await audit.checkpoint_if_due()
        except Rejected as error:
            app.log.warning("checkpoint_failed", code=error.code, reason=error.message)
