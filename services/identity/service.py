"""The composition root of identity: everything is wired here and nowhere else."""

import asyncio
import getpass
import secrets
from pathlib import Path
from typing import Any, Final

from contracts.errors import Rejected
from contracts.streams import CONSUMERS, EVENTS_IDENTITY, IDENTITY_SHADOWS
from contracts.subjects import ROOT
from services.identity.account import snapshot
from services.identity.account.decider import USER
from services.identity.account.state import User
from services.identity.accounts import Accounts, UserHost
from services.identity.approval.decider import APPROVAL
from services.identity.approval_book import APPROVAL_CODEC, ApprovalBook
from services.identity.beginning import Beginning
from services.identity.config import Config
from services.identity.conversation import Login
from services.identity.conversations import Conversations
from services.identity.directory import Directory
from services.identity.gates import ApprovalHost, Gates
from services.identity.handlers.agents import AgentHandlers
from services.identity.handlers.approvals import ApprovalHandlers
from services.identity.handlers.users import UserHandlers
from services.identity.invitations import Invitations
from services.identity.key_check import check_keys
from services.identity.key_file import KEY_FILE, KeyFile
from services.identity.local.desk import Desk
from services.identity.local.server import LocalServer
from services.identity.local.sessions import Sessions
from services.identity.local.whereabouts import living, tell_where
from services.identity.mailbox import Answers, Mailbox
from services.identity.names import key_of
from services.identity.observer import CommitObserver
from services.identity.passwords import Passwords
from services.identity.proofs import USER_CODEC, Proofs
from services.identity.sealing import Sealer
from services.identity.watch import Follow, Watch
from services.runtime.actor import ActorHost
from services.runtime.app import App
from services.runtime.clock import Clock
from services.runtime.file_clock import FileClock, refuse_beyond_loopback
from services.runtime.host_limits import HostLimits
from services.runtime.housekeeping import tidy
from services.runtime.jetstream import JetStreamEventStore
from services.runtime.rpc import Caller
from services.runtime.snapshots import JetStreamSnapshots

CATCH_UP_S: Final = 60.0
HOUSEKEEPING_S: Final = 10.0
IDLE_S: Final = 86_400.0
"""Accounts are few and small, and one that must be read anew answers later than one that nobody has."""
LINKS_S: Final = 2.0
SNAPSHOT_EVERY: Final = 32
"""Events of an account, at most so many are read behind its snapshot: as fast after years as on the first day."""
OWNER: Final = "owner"
STARTER: Final = Caller(by="identity", corr="start", message_id="start", reply="", headers={})


async def build(app: App) -> None:
    """Wire identity; when this returns it judges."""
    config = app.config.section("identity", Config)
    clock = _clock(app, config)
    store = JetStreamEventStore(app.bus, EVENTS_IDENTITY)
    directory = Directory(store)
    log = await app.bus.api(f"STREAM.INFO.{EVENTS_IDENTITY}")
    beginning = await _beginning(app, directory, log["state"]["first_seq"])
    sealer = await _sealer(app, config, directory)
    users = _users(app, "user", EVENTS_IDENTITY, clock, _snapshots(app, log["created"]))
    shadows = _users(app, "shadow", IDENTITY_SHADOWS, clock)
    accounts = Accounts(
        users=users, shadows=shadows, directory=directory, sealer=sealer, clock=clock, metrics=app.metrics, log=app.log
    )
    await check_keys(accounts, app.log)
    app.on_ready("keys", sealer.reason)
    approvals = _approvals(app, clock)
    hosts: tuple[ActorHost[Any, Any, Any], ...] = (users, shadows, approvals)
    for host in hosts:
        app.on_drain(host.drain)
    book = ApprovalBook()
    proofs = Proofs(approvals, book, sealer)
    await _follow(app, Follow(book, proofs))
    watch = Watch(
        host=approvals, book=book, proofs=proofs, accounts=accounts, clock=clock, ids=app.ids, metrics=app.metrics,
        log=app.log, beginning=beginning,
    )  # fmt: skip
    await watch.look(at_start=True)
    await _take_requests(app, Mailbox(app.bus, approvals, clock, app.metrics, app.log, app.spawn))

    invitations = Invitations(accounts, app.home / "keys", clock, config.set_up_link_s)
    _listen(app, config, clock, accounts, invitations)
    await _first_start(app, config, accounts, invitations)
    beginning.done(sealer.public_key, sealer.newest)
    conversations = Conversations(app.bus, app.ids, app.clock)
    user_handlers = UserHandlers(accounts, invitations, clock)
    _bind_accounts(app, user_handlers, AgentHandlers(accounts, user_handlers, clock), Login(accounts, conversations))
    gates = Gates(host=approvals, accounts=accounts, conversations=conversations, proofs=proofs, clock=clock)
    shown = ApprovalHandlers(approvals, book, sealer.public_key, clock)
    app.handle("approval", "list", shown.page)
    app.handle("approval", "show", shown.show)
    app.handle("approval", "key", shown.key)
    app.handle("approval", "converse", gates.converse)
    app.handle("approval", "deny", gates.deny)
    _ = app.spawn(watch.run(), "watch")
    _ = app.spawn(_housekeeping(app, *hosts), "housekeeping")
    _ = app.spawn(_look_after_links(app, invitations), "links")


def _bind_accounts(app: App, users: UserHandlers, agents: AgentHandlers, login: Login) -> None:
    app.handle("user", "create", users.create)
    app.handle("user", "status", users.status)
    app.handle("user", "list", users.page)
    app.handle("agent", "create", agents.create)
    app.handle("agent", "code", agents.code)
    app.handle("agent", "challenge", agents.challenge)
    app.handle("login", "converse", login.converse)


def _clock(app: App, config: Config) -> Clock:
    """The machine's clock, or a test's, which is refused when anybody from elsewhere could profit from it."""
    if not config.test_clock:
        return app.clock
    said = app.bus.client._server_info
    refuse_beyond_loopback(
        {
            "the broker": app.core.nats_url,
            "what the broker listens on": str(said.get("host", "")),
            "core.http_host": app.core.http_host,
        }
    )
    clock = FileClock(Path(config.test_clock))
    app.log.warning(
        "TEST_CLOCK", file=config.test_clock, now_ms=clock.now_ms(),
        meaning="identity takes the time from a file: whoever writes it can pass off old codes. For tests only.",
    )  # fmt: skip
    return clock


async def _beginning(app: App, directory: Directory, first_seq: int) -> Beginning:
    """Refuse to go on over a log that was emptied or cut."""
    accounts = bool(await directory.entries())
    beginning = Beginning(app.home / "keys", accounts=accounts, first_seq=first_seq)
    beginning.check()
    return beginning


async def _sealer(app: App, config: Config, directory: Directory) -> Sealer:
    """The keys; made at the very first start, and never again once there are accounts they must open."""
    file = KeyFile(_key_path(app, config))
    if not await directory.entries():
        file.create()
    return Sealer(file)


def _key_path(app: App, config: Config) -> Path:
    return Path(config.key_file).expanduser() if config.key_file else app.home / "keys" / KEY_FILE


def _users(
    app: App, aggregate: str, stream: str, clock: Clock, snapshots: JetStreamSnapshots[User] | None = None
) -> UserHost:
    """Accounts or shadows. Each replica judges any of them; logs of shadows stay short by themselves."""
    codec = USER_CODEC
    return ActorHost(
        service="identity", aggregate=aggregate, decider=USER, codec=codec,
        store=JetStreamEventStore(app.bus, stream), clock=clock, ids=app.ids, snapshots=snapshots,
        observer=CommitObserver(aggregate, stream, codec.tags, app.metrics, app.log),
        limits=HostLimits(idle_s=IDLE_S, snapshot_every_events=SNAPSHOT_EVERY), shared=True,
    )  # fmt: skip


def _snapshots(app: App, created: str) -> JetStreamSnapshots[User]:
    """Snapshots of the log that was created then and no other: one begun anew has other secrets, and counts from 1."""
    return JetStreamSnapshots(
        app.bus,
        format_id=f"{snapshot.FORMAT} {created}",
        dump=snapshot.dump,
        restore=snapshot.restore,
        bytes_max=app.bus.payload_max // 2,
        log=lambda text: app.log.warning("snapshot", detail=text),
    )


def _approvals(app: App, clock: Clock) -> ApprovalHost:
    answers = Answers(app.bus, app.log)
    app.on_stop(answers.stop)
    return ActorHost(
        service="identity", aggregate="approval", decider=APPROVAL, codec=APPROVAL_CODEC,
        store=JetStreamEventStore(app.bus, EVENTS_IDENTITY), clock=clock, ids=app.ids, effects=answers,
        observer=CommitObserver("approval", EVENTS_IDENTITY, APPROVAL_CODEC.tags, app.metrics, app.log),
    )  # fmt: skip


async def _follow(app: App, follow: Follow) -> None:
    follower = await app.bus.follow(EVENTS_IDENTITY, f"{ROOT}.evt.identity.*.*", follow.take)
    try:
        async with asyncio.timeout(CATCH_UP_S):
            await follower.caught_up.wait()
    except TimeoutError as error:
        raise Rejected("nats_unavailable", "identity's events cannot be read in time") from error


async def _take_requests(app: App, mailbox: Mailbox) -> None:
    consumer = next(one for one in CONSUMERS if one.owner == "identity")
    puller = await app.bus.pull(consumer, mailbox.take, credit=256)

    async def drain() -> None:
        try:
            await puller.drain()
        except TimeoutError:
            app.log.warning("drain_cut", hint="what was on its way comes again after its deadline")

    app.on_drain(drain)


def _listen(app: App, config: Config, clock: Clock, accounts: Accounts, invitations: Invitations) -> None:
    """Open the local listener and say where it is."""
    from services.identity.local.routes import application

    server = LocalServer()
    server.open(config.port)
    app.on_stop(server.stop)
    url = f"http://127.0.0.1:{server.port}"
    invitations.retarget(url)
    sessions = Sessions(app.clock, config.session_s)
    desk = Desk(
        accounts=accounts, invitations=invitations, sessions=sessions, passwords=Passwords(config.password_memory_kib),
        clock=clock, ids=app.ids, issuer=config.issuer,
    )  # fmt: skip
    presence = secrets.token_urlsafe(32)
    server.start(application(desk, sessions, presence, lambda: server.port), app.spawn)
    key_path = _key_path(app, config)
    app.on_stop(tell_where(app.home / "run", app.instance, url, config.test_clock, presence, key_path))
    app.log.info("local_listener", url=url)


async def _first_start(app: App, config: Config, accounts: Accounts, invitations: Invitations) -> None:
    """An owner at the very first start; a link for every human who has neither password nor link."""
    entries = await accounts.directory.entries()
    if not entries:
        try:
            await invitations.create(_owner(config), STARTER)
        except Rejected as error:
            if error.code != "duplicate_id":  # another replica was first
                raise
        entries = await accounts.directory.entries()
    for entry in entries:
        if entry.kind == "human" and not entry.password:
            if not invitations.path(entry.user_id).exists():
                await invitations.renew(entry.user_id, STARTER)
            app.log.warning("set_up_link", user=entry.user_id, file=str(invitations.path(entry.user_id)))
    await invitations.renew_old(STARTER)


def _owner(config: Config) -> str:
    if config.owner:
        return config.owner
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        return OWNER
    return name if key_of(name) else OWNER


async def _look_after_links(app: App, invitations: Invitations) -> None:
    """Replace set-up links that have run out, and have none lead to a listener that is gone."""
    while True:
        await asyncio.sleep(LINKS_S)
        try:
            await invitations.renew_old(STARTER)
            invitations.retarget(invitations.base_url, living(app.home / "run"))
        except Rejected as error:
            app.log.warning("links_not_renewed", code=error.code)


async def _housekeeping(app: App, *hosts: ActorHost[Any, Any, Any]) -> None:
    """Forget actors at rest, and say how many there are."""
    while True:
        await asyncio.sleep(HOUSEKEEPING_S)
        tidy(app.metrics, *hosts)
