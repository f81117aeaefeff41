"""The console's connection: which broker a command means, and a bus to it that ends with the command."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from contracts.errors import Rejected
from contracts.rights import BOOTSTRAP, OPERATOR, inbox
from contracts.subjects import rpc
from contracts.verbs import BY_SUBJECT
from services.console import principal
from services.console.interruption import ends_when_told
from services.console.options import Common
from services.console.supervision.broker import greeting
from services.runtime.redaction import masked

if TYPE_CHECKING:
    from services.runtime.bus import Bus
    from services.runtime.nkeys import KeyPair

CONNECT_S: Final = 2.5
RESTART_S: Final = 3.0
LOOK_AGAIN_S: Final = 0.2
DEFAULT_URL: Final = "nats://127.0.0.1:4222"


class Console:
    """A bus, and the request verbs by name. `refused` is what the broker has said against this connection."""

    def __init__(self, bus: "Bus", timeout_s: float, refused: Sequence[str] = ()) -> None:
        self.bus = bus
        self.timeout_s = timeout_s
        self._refused = refused

    async def check_heard(self, subject: str) -> None:
        """After a subscription: raises forbidden_subject when the broker does not let this user hear it."""
        await self.bus.flush()
        if any("permissions violation for subscription" in text.lower() for text in self._refused):
            hint = "what is said to identity, and others' answers, are nobody else's to hear"
            raise Rejected("forbidden_subject", f"this user may not hear {subject}", hint=hint, subject=subject)

    async def call(self, verb: str, body: Any, *, timeout_s: float | None = None) -> Any:
        """Ask a verb like `executor.run.get`; its reply as the type the contract names."""
        service, noun, name = verb.split(".")
        subject = rpc(service, noun, name)
        wait_s = timeout_s or self.timeout_s
        back_s = min(wait_s, RESTART_S)
        while True:
            try:
                return await self._call_once(service, subject, body, wait_s)
            except Rejected as error:
                # A supervisor brings a service back within a second or two: that is no reason to give up.
                if error.code != "service_unavailable" or "waited_s" in error.detail or back_s <= 0:
                    raise
            await asyncio.sleep(LOOK_AGAIN_S)
            back_s -= LOOK_AGAIN_S

    async def _call_once(self, service: str, subject: str, body: Any, wait_s: float) -> Any:
        try:
            return await self.bus.call(
                subject, body, timeout_s=wait_s, into=BY_SUBJECT[subject].reply, headers=principal.headers()
            )
        except Rejected as error:
            if error.code == "timeout":
                raise Rejected(
                    "service_unavailable",
                    f"{service} did not answer within {wait_s:g} s",
                    service=service,
                    waited_s=wait_s,
                ) from None
            if error.code == "service_unavailable":
                # Without JetStream no service can start: then that is what has to be said.
                await self.bus.api("INFO", timeout_s=wait_s)
            raise


def broker_url(common: Common) -> str:
    """The broker meant: that of `--home` when given, else NATS_URL, else that of the home, else port 4222.

    A home that is named, by flag or HTDAG_HOME, and does not run is not_running: what listens on its old port, or on
    4222, may be somebody else's.
    """
    if common.home is None and os.environ.get("NATS_URL"):
        return os.environ["NATS_URL"]
    record = common.place.record()
    if record is not None and record.running:
        return record.operator_url
    if (common.home is not None or os.environ.get("HTDAG_HOME")) and not os.environ.get("NATS_URL"):
        raise Rejected("not_running", home=str(common.place.root))
    return os.environ.get("NATS_URL") or DEFAULT_URL


@asynccontextmanager
async def connected(common: Common) -> AsyncIterator[Console]:
    """A console on the broker that `common` means. Raises nats_unavailable or nats_denied."""
    refused: list[str] = []
    with ends_when_told():
        async with bus_at(broker_url(common), log=refused.append) as bus:
            yield Console(bus, common.wait, refused)


@asynccontextmanager
async def bus_at(
    url: str, *, key: "KeyPair | None" = None, log: Callable[[str], None] = lambda _: None
) -> AsyncIterator["Bus"]:
    """A bus to one broker, as the operator or with the key `bootstrap`; what the broker says besides goes to `log`.

    Raises nats_unavailable or nats_denied, soon and without the password.
    """
    from services.runtime.bus import Bus
    from services.runtime.nats_client import connect

    # A URL with a user in it says who we are; the environment speaks only when it does not.
    user, password = (None, None) if "@" in url else (os.environ.get("NATS_USER"), _password())
    if key is not None:
        user, password = None, None
    elif "@" not in url and user is None:
        user, password = _operator()
    if _one_address(url):
        # A look at the port first: a refused connection is said at once, not after every try has failed.
        await greeting(url, timeout_s=CONNECT_S)
    try:
        client = await connect(
            url, name="htdag-console", user=user, password=password, key=key,
            inbox=inbox(BOOTSTRAP if key else OPERATOR), log=log, deadline_s=CONNECT_S,
        )  # fmt: skip
    except Rejected as error:
        if error.code == "nats_unavailable":
            raise Rejected("nats_unavailable", f"no NATS server answers at {masked(url)}") from error
        if error.code == "nats_denied":
            raise Rejected("nats_denied", f"NATS at {masked(url)} refused these credentials") from error
        raise
    bus = Bus(client)
    await bus.start()
    try:
        yield bus
    finally:
        await bus.close()


def _one_address(url: str) -> bool:
    return "," not in url and not url.startswith("ws")


async def started(url: str, patience_s: float) -> None:
    """Return when something answers at `url`, or when patience is over: then the connection says why."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + patience_s
    while _one_address(url) and loop.time() < end_s:
        try:
            await greeting(url, timeout_s=CONNECT_S)
        except Rejected:
            await asyncio.sleep(LOOK_AGAIN_S)
        else:
            return


def _operator() -> tuple[str | None, str | None]:
    """The operator of the folder that NATS_NKEY names, if `htdag bus keys` made it; services find their seeds there."""
    path = Path(os.environ.get("NATS_NKEY") or "/dev/null") / OPERATOR
    return (OPERATOR, _content("NATS_NKEY", path)) if path.is_file() else (None, None)


def _password() -> str | None:
    """NATS_PASSWORD, else the content of NATS_PASSWORD_FILE."""
    if os.environ.get("NATS_PASSWORD"):
        return os.environ["NATS_PASSWORD"]
    path = os.environ.get("NATS_PASSWORD_FILE")
    return _content("NATS_PASSWORD_FILE", Path(path)) if path else None


def _content(variable: str, path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Rejected("bad_config", f"{variable} cannot be read: {error}") from error
