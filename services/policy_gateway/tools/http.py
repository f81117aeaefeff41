"""The http tool: fetches what its plan says from an address that was looked at, and nothing else.

A name is resolved once, every address must be public, and the connection goes to one of these very addresses, with TLS
for the name. Redirects are followed by hand, each judged like a first URL. Proxies of the environment play no part.
"""

import asyncio
import base64
import importlib
import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

from contracts.errors import Rejected
from services.policy_gateway.decision.plans import FetchPlan
from services.policy_gateway.decision.verdict import Deny
from services.policy_gateway.tools.addresses import why_closed
from services.policy_gateway.tools.bodies import BODY_BYTES_MAX, Body
from services.policy_gateway.tools.tool import Ticket

Redirected = Callable[[FetchPlan, str], FetchPlan | Deny]
"""The plan for the place to which the answer to a plan sends us, judged in full."""
Resolve = Callable[[str, int], Sequence[str]]
"""The addresses of a host; runs in a thread; raises OSError."""

REDIRECTS_MAX: Final = 5
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
HEADER_BYTES_MAX: Final = 64 << 10
CONNECT_S: Final = 5.0
"""What one address of several may take to answer."""
THREADS_MAX: Final = 16
PORTS: Final = {"https": 443, "http": 80}
OURS: Final = frozenset({"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "expect"})
DEFAULTS: Final = {"user-agent": "htdag", "accept": "*/*"}


class Answer(NamedTuple):
    """One response, unpacked."""

    status: int
    headers: dict[str, str]
    body: bytes


class Http:
    """Carries out fetch plans.

    `redirected` judges redirects. `tls`, `resolve` and `why_closed` have the right defaults; tests that bring their
    own server, name and authority give others.
    """

    def __init__(
        self,
        redirected: Redirected,
        *,
        tls: ssl.SSLContext | None = None,
        resolve: Resolve | None = None,
        why_closed: Callable[[str], str | None] = why_closed,
    ) -> None:
        self._redirected = redirected
        self._tls = tls or ssl.create_default_context()
        self._resolve = resolve or addresses_of
        self._why_closed = why_closed
        # Threads of its own: names that take for ever hold up nobody else.
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="resolve")

    async def run(self, plan: FetchPlan, ticket: Ticket) -> dict[str, Any]:
        """Fetch and return `{status, headers, body, url}`, with `redirects` when there were some.

        `url` is the last one. A body that is no UTF-8 comes as base64 with `encoding`. Raises Rejected:
        resolved_address_denied, too_many_redirects, what `redirected` denies, fetch_failed, too_large, timeout.
        """
        began_s = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(ticket.deadline_s):
                return await self._follow(plan)
        except TimeoutError:
            raise Rejected("timeout", timeout_ms=round((ticket.deadline_s - began_s) * 1000)) from None

    def close(self) -> None:
        """Take no more calls."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _follow(self, plan: FetchPlan) -> dict[str, Any]:
        passed: list[str] = []
        while True:
            answer = await self._fetch(plan)
            location = answer.headers.get("location")
            if answer.status not in REDIRECTS or location is None:
                break
            if len(passed) == REDIRECTS_MAX:
                raise Rejected("too_many_redirects", url=url_of(plan), max=REDIRECTS_MAX)
            passed.append(url_of(plan))
            following = self._redirected(plan, location)
            if isinstance(following, Deny):
                raise Rejected(following.code, **following.detail, redirected_from=passed)
            plan = following
        value: dict[str, Any] = {"status": answer.status, "headers": answer.headers, "url": url_of(plan)}
        try:
            value["body"] = answer.body.decode("utf-8")
        except UnicodeDecodeError:
            value |= {"body": base64.b64encode(answer.body).decode("ascii"), "encoding": "base64"}
        return value | ({"redirects": passed} if passed else {})

    async def _fetch(self, plan: FetchPlan) -> Answer:
        addresses = await self._addresses(plan)
        # Its import takes a moment, and only those who fetch pay for it.
        core: Any = await asyncio.to_thread(importlib.import_module, "httpcore2")
        failures = (core.NetworkError, core.ProtocolError, core.TimeoutException, core.UnsupportedProtocol)
        try:
            async with (
                core.AsyncConnectionPool(
                    ssl_context=self._tls,
                    max_connections=1,
                    max_keepalive_connections=0,
                    http2=False,
                    network_backend=_dialler(core, addresses),
                ) as pool,
                pool.stream(
                    plan.method,
                    core.URL(scheme=plan.scheme, host=_bare(plan.host), port=plan.port, target=plan.target),
                    headers=_headers(plan),
                    content=plan.body,
                ) as response,
            ):
                return await _answer(plan, response)
        except failures as why:
            raise Rejected("fetch_failed", url=url_of(plan), reason=_reason(why)) from None

    async def _addresses(self, plan: FetchPlan) -> list[str]:
        """The addresses of the plan's host, in the resolver's order. All must be open, or none is dialled."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._threads, self._resolve, _bare(plan.host), plan.port)
        except (OSError, UnicodeError):
            raise Rejected("fetch_failed", url=url_of(plan), reason="the name has no address") from None
        addresses = list(dict.fromkeys(found))
        if not addresses:
            raise Rejected("fetch_failed", url=url_of(plan), reason="the name has no address")
        for address in addresses:
            why = self._why_closed(address)
            if why is not None:
                raise Rejected("resolved_address_denied", url=url_of(plan), host=plan.host, reason=why)
        return addresses


def addresses_of(host: str, port: int) -> list[str]:
    """The addresses of a host as the system resolves it. An address of this machine itself counts as loopback."""
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    return ["127.0.0.1" if _is_this_machine(address) else address for address in found]


def url_of(plan: FetchPlan) -> str:
    """The URL of a plan, without the port where that is the usual one."""
    port = "" if PORTS.get(plan.scheme) == plan.port else f":{plan.port}"
    return f"{plan.scheme}://{plan.host}{port}{plan.target}"


def _is_this_machine(address: str) -> bool:
    """Whether an interface here has the address: only then it can be bound. Our own services may listen there."""
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except (OSError, ValueError):
        return False
    return True


def _bare(host: str) -> str:
    return host.removeprefix("[").removesuffix("]")


def _headers(plan: FetchPlan) -> list[tuple[str, str]]:
    given = {name.lower(): value for name, value in plan.headers if name.lower() not in OURS}
    host = plan.host if PORTS.get(plan.scheme) == plan.port else f"{plan.host}:{plan.port}"
    own = {"host": host, "connection": "close", "accept-encoding": "gzip, deflate"}
    if plan.body is not None:
        own["content-length"] = str(len(plan.body))
    return list((own | DEFAULTS | given).items())


async def _answer(plan: FetchPlan, response: Any) -> Answer:
    if sum(len(name) + len(value) + 4 for name, value in response.headers) > HEADER_BYTES_MAX:
        raise Rejected("fetch_failed", url=url_of(plan), reason=f"more than {HEADER_BYTES_MAX} bytes of headers")
    headers: dict[str, str] = {}
    for raw_name, raw_value in response.headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if response.status in REDIRECTS and "location" in headers:
        return Answer(response.status, headers, b"")  # nobody reads it
    length = headers.get("content-length", "")
    has_body = plan.method != "HEAD" and response.status not in (204, 304)
    if has_body and length.isdecimal() and int(length[:20]) > BODY_BYTES_MAX:
        raise Rejected("too_large", f"the body is larger than {BODY_BYTES_MAX} bytes", max=BODY_BYTES_MAX)
    body = Body(headers.get("content-encoding", "") if has_body else "")
    async for piece in response.aiter_stream():
        body.add(piece)
    return Answer(response.status, headers, body.whole())


def _reason(why: Exception) -> str:
    """Why a fetch failed, in words that tell no more than the caller may know."""
    cause: BaseException | None = why
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate is not valid for this host: {cause.verify_message}"[:300]
        if isinstance(cause, ssl.SSLError):
            return "the server does not speak TLS as it should"
        cause = cause.__cause__ or cause.__context__
    kinds = {
        "Connect": "no connection to the host",
        "Protocol": "the answer is not HTTP",
        "Read": "the answer broke off",
    }
    return next((text for kind, text in kinds.items() if kind in type(why).__name__), "the connection broke off")


def _dialler(core: Any, addresses: Sequence[str]) -> Any:
    """A network backend that connects to these addresses in their order, whatever name it is asked for."""

    class Dialler(core.AsyncNetworkBackend):  # type: ignore[misc]
        async def connect_tcp(
            self,
            host: str,
            port: int,
            timeout: float | None = None,  # noqa: ASYNC109  # the library's name; the call has its own deadline
            local_address: str | None = None,
            socket_options: Iterable[Any] | None = None,
        ) -> Any:
            last: Exception | None = None
            for address in addresses:
                try:
                    return await core.AnyIOBackend().connect_tcp(
                        address, port, CONNECT_S, local_address, socket_options
                    )
                except (core.ConnectError, core.ConnectTimeout) as why:
                    last = why
            raise last or core.ConnectError("no address")

    return Dialler()
