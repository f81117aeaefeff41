"""In this process: what a service refuses in circumstances that nobody can bring an instance to within seconds.

The very functions of the services are called. They are looked up by name, as `htdag serve` does it: no service is
imported by another package.
"""

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from contracts.approval import DIGEST_CHARS, TakeApproval
from services.console.conformance.errors.scenario import Scenario, Sight
from services.console.supervision.broker import free_port
from services.runtime.clock import SystemClock
from services.runtime.grants import Grants

FETCH_S: Final = 10.0
OPEN: Final = "localhost"
REDIRECT: Final = b"HTTP/1.1 302 -\r\nLocation: /again\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
HEADER_LINES_MAX: Final = 100
TRUSTED: Final = "00" * 32


def part_of(name: str) -> Any:
    """A module of a service."""
    return importlib.import_module(f"services.{name}")


async def _fetches(folder: Path, sight: Sight) -> None:
    """The http tool, once as it is, and once for a network in which loopback is open."""
    http = part_of("policy_gateway.tools.http")
    real = http.Http(_followed)
    lenient = http.Http(_followed, why_closed=lambda _: None)
    try:
        closed = real.run(_plan(free_port()), _ticket(folder))
        await sight.refused("resolved_address_denied", closed, "tool http to a host of a private network")
        nobody = lenient.run(_plan(free_port()), _ticket(folder))
        await sight.refused("fetch_failed", nobody, "tool http to a port where nobody listens")
        async with _circle() as port:
            await sight.refused(
                "too_many_redirects", lenient.run(_plan(port), _ticket(folder)), "tool http in a circle"
            )
    finally:
        real.close()
        lenient.close()


def _followed(plan: Any, _location: str) -> Any:
    return plan


def _plan(port: int) -> Any:
    plans = part_of("policy_gateway.decision.plans")
    return plans.FetchPlan("GET", "http", OPEN, port, "/", (), None, None)


def _ticket(folder: Path) -> Any:
    tool = part_of("policy_gateway.tools.tool")
    workspace = tool.Workspace("conformance", folder, folder, "seed")
    return tool.Ticket("conformance", "researcher", workspace, asyncio.get_running_loop().time() + FETCH_S)


@asynccontextmanager
async def _circle() -> AsyncIterator[int]:
    """A server that sends everybody back to itself; its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for _ in range(HEADER_LINES_MAX):
                if not (await reader.readline()).strip():
                    break
            writer.write(REDIRECT)
            await writer.drain()
        except OSError:
            return  # who asked has gone
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def _accounts(folder: Path, sight: Sight) -> None:
    """An account that has come to life is invited once more; and identity finds its log empty."""
    decider, state = part_of("identity.account.decider"), part_of("identity.account.state")
    user, now_ms = state.User("conformance"), SystemClock().now_ms()
    invited = decider.CreateUser("conformance", "human", invitation="first")
    for command in (invited, decider.SetPassword("sealed", "first")):
        for event in decider.decide(command, user, now_ms):
            user = state.evolve(user, event)
    again = decider.InviteUser("second")
    where = "a new set-up link for an account that has a password"
    sight.raised("password_already_set", lambda: decider.decide(again, user, now_ms), where)

    beginning = part_of("identity.beginning").Beginning
    beginning(folder, accounts=True, first_seq=1).done(TRUSTED, TRUSTED)
    emptied = beginning(folder, accounts=False, first_seq=1)
    sight.raised("accounts_lost", emptied.check, "identity on a log that somebody emptied")


async def _release(folder: Path, sight: Sight) -> None:
    """A release in a run's mailbox that identity has not signed."""
    release = TakeApproval(
        "apr-conformance", "conformance", "a", 1, "granted", "0" * DIGEST_CHARS, 0,
        user="conformance", kind="human", step=1, signature="00" * 64, key=TRUSTED,
    )  # fmt: skip
    check = Grants(_Nobody(), SystemClock(), (TRUSTED,)).check(release)
    await sight.refused("approval_not_genuine", check, "a release that identity did not sign")


class _Nobody:
    """Whose key is configured is asked nothing."""

    async def call(self, subject: str, body: Any, **_: Any) -> Any:
        raise OSError(f"{subject} is not to be asked")


SERVICES: Final = (
    Scenario(("resolved_address_denied", "fetch_failed", "too_many_redirects"), _fetches),
    Scenario(("password_already_set", "accounts_lost"), _accounts),
    Scenario(("approval_not_genuine",), _release),
)
