"""Request verbs over NATS: discoverable by the services API, each request in its own bounded task, one reply shape.

A handler gets the decoded request and its Caller. What it returns is the reply's value; `Rejected` is a refusal;
everything else is code `internal` with an id that stands in the log, and nothing of the exception reaches the caller.
nats.micro serves one endpoint serially, so the endpoints here are our own and only its discovery is used.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, cast

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.micro.service import EndpointInfo, EndpointStats, Service, ServiceConfig, ServiceInfo, ServiceStats

from contracts import reply
from contracts.codec import Undecodable, UnknownType
from contracts.commit import HEADER_BY, HEADER_CORRELATION
from contracts.errors import CATALOGUE, Rejected, failure
from contracts.rights import is_inbox
from contracts.verbs import BY_SUBJECT, VerbSpec, verbs_of
from services.runtime import intake, telemetry
from services.runtime.clock import Clock
from services.runtime.genuine import redirected
from services.runtime.ids import Ids
from services.runtime.lifecycle import Log
from services.runtime.metrics import Metrics
from services.runtime.nats_client import settle

REQUESTS_AT_ONCE_MAX: Final = 256
REQUESTS_HELD_MAX: Final = 4_096
BYTES_HELD_MAX: Final = 64 << 20
REQUEST_TIMEOUT_S: Final = 120.0
UNSUBSCRIBE_TIMEOUT_S: Final = 2.0
HEADER_CHARS_MAX: Final = 256
PRINCIPAL_DEFAULT: Final = "anonymous"
HEADER_MESSAGE_ID: Final = "Nats-Msg-Id"


class Caller(NamedTuple):
    """Who asks, in which context, and where the answer goes."""

    by: str
    corr: str
    message_id: str
    reply: str
    headers: Mapping[str, str]


class Deferred:
    """Returned by a handler whose answer somebody else sends to `caller.reply`."""


DEFERRED: Final = Deferred()
Handler = Callable[[Any, Caller], Awaitable[Any]]


class _Endpoint:
    """One bound verb and what it did so far."""

    def __init__(self, spec: VerbSpec, handler: Handler) -> None:
        self.spec = spec
        self.handler = handler
        self.name = f"{spec.noun}.{spec.verb}"
        self.decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(spec.request)
        self.span_name = f"process {spec.subject}"
        self.span_attributes = {
            "messaging.system": "nats",
            "messaging.destination.template": spec.subject,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.consumer.group.name": spec.service,
        }
        self.requests = self.errors = self.busy_ns = 0
        self.last_error = ""


class _InboxesOnly:
    """The connection as the library's discovery sees it: what asks for an answer elsewhere is not heard."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def subscribe(self, subject: str, cb: Callable[[Msg], Awaitable[None]]) -> Subscription:
        """Subscribe as the client does."""

        async def hear(message: Msg) -> None:
            if is_inbox(message.reply):
                await cb(message)

        return await self._client.subscribe(subject, cb=hear)


class _Discovery(Service):
    """`$SRV.PING|INFO|STATS` of our endpoints."""

    def __init__(self, client: Client, config: ServiceConfig, endpoints: list[_Endpoint]) -> None:
        super().__init__(cast(Client, _InboxesOnly(client)), config)
        self._ours = endpoints
        self._group = config.name

    def info(self) -> ServiceInfo:
        """What can be asked of this service."""
        info = super().info()
        info.endpoints = [
            EndpointInfo(
                name=one.name.replace(".", "-"),
                subject=one.spec.subject,
                queue_group=self._group,
                metadata={"meaning": one.spec.meaning, "example": one.spec.example},
            )
            for one in self._ours
        ]
        return info

    def stats(self) -> ServiceStats:
        """What was asked so far, with true times: to the reply, not to the start of a task."""
        stats = super().stats()
        stats.endpoints = [
            EndpointStats(
                name=one.name.replace(".", "-"),
                subject=one.spec.subject,
                queue_group=self._group,
                num_requests=one.requests,
                num_errors=one.errors,
                processing_time=one.busy_ns,
                average_processing_time=one.busy_ns // max(one.requests, 1),
                last_error=one.last_error or None,
            )
            for one in self._ours
        ]
        return stats


class Rpc:
    """The request verbs of one service process. Bind with `handle`, then `start`."""

    def __init__(
        self, client: Client, *, service: str, version: str, metrics: Metrics, log: Log, clock: Clock, ids: Ids,
        metadata: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self._client = client
        self._service = service
        self._metrics, self._log, self._clock, self._ids = metrics, log, clock, ids
        self._endpoints: list[_Endpoint] = []
        self._subscriptions: list[Subscription] = []
        self._tasks: dict[asyncio.Task[None], int] = {}
        self._slots = asyncio.Semaphore(REQUESTS_AT_ONCE_MAX)
        self._bytes_held = 0
        config = ServiceConfig(
            name=service, version=version, description=f"htdag {service}", metadata=dict(metadata or {})
        )
        self._discovery = _Discovery(client, config, self._endpoints)

    def handle(self, noun: str, verb: str, handler: Handler) -> None:
        """Bind a verb of `contracts.verbs`; KeyError when this service has no such verb or it is bound already."""
        spec = next((one for one in verbs_of(self._service) if (one.noun, one.verb) == (noun, verb)), None)
        if spec is None or any(one.spec is spec for one in self._endpoints):
            raise KeyError(f"{self._service}.{noun}.{verb} is not a free verb of contracts.verbs")
        self._endpoints.append(_Endpoint(BY_SUBJECT[spec.subject], handler))

    async def start(self) -> None:
        """Become discoverable and answer."""
        await self._discovery.start()
        for endpoint in self._endpoints:
            self._subscriptions.append(
                await self._client.subscribe(endpoint.spec.subject, queue=self._service, cb=self._receiver(endpoint))
            )
        await settle(self._client)

    async def drain(self) -> None:
        """Take no more requests (others of the queue group get them) and finish those that were taken."""
        subscriptions, self._subscriptions = self._subscriptions, []
        try:
            async with asyncio.timeout(UNSUBSCRIBE_TIMEOUT_S):
                for subscription in subscriptions:
                    await self._client._send_unsubscribe(subscription._id)
                await settle(self._client)
                for subscription in subscriptions:
                    await subscription.drain()  # type: ignore[no-untyped-call]
        except (nats.errors.Error, TimeoutError) as error:
            # Without a connection nothing comes in any more either.
            self._log.warning("unsubscribe_failed", reason=type(error).__name__)
        while self._tasks:
            await asyncio.wait(self._tasks, timeout=REQUEST_TIMEOUT_S)

    async def stop(self) -> None:
        """Cut what is still being answered; its callers are told so."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=UNSUBSCRIBE_TIMEOUT_S)
        try:
            if self._client.is_connected:
                await self._discovery.stop()
        except nats.errors.Error as error:
            # The connection went away meanwhile, and the subscriptions with it.
            self._log.warning("unsubscribe_failed", reason=type(error).__name__)

    @property
    def in_flight(self) -> int:
        """Requests that were taken and not answered yet."""
        return len(self._tasks)

    def _receiver(self, endpoint: _Endpoint) -> Callable[[Msg], Awaitable[None]]:
        async def receive(message: Msg) -> None:
            if redirected(message.headers or {}, message.reply):
                self._log.error("request_redirected", verb=endpoint.name)
                return
            if message.reply and not is_inbox(message.reply):
                # What may be asked by the least of all keys would be said in our name where we alone may write.
                endpoint.requests += 1
                self._count(endpoint, 0, "reply_not_inbox")
                self._log.warning("reply_not_inbox", verb=endpoint.name, reply=message.reply[:200])
                return
            size = len(message.data)
            full = len(self._tasks) >= REQUESTS_HELD_MAX or (self._tasks and self._bytes_held + size > BYTES_HELD_MAX)
            if full:
                endpoint.requests += 1
                self._count(endpoint, 0, "mailbox_full")
                await self._send(message.reply, reply.refused(Rejected("mailbox_full", "too many requests wait here")))
                return
            task = asyncio.get_running_loop().create_task(self._answer(endpoint, message), name=endpoint.name)
            self._tasks[task] = size
            self._bytes_held += size
            task.add_done_callback(self._forget)

        return receive

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._bytes_held -= self._tasks.pop(task, 0)

    async def _answer(self, endpoint: _Endpoint, message: Msg) -> None:
        began_s = self._clock.monotonic_s()
        headers: Mapping[str, str] = message.headers or {}
        endpoint.requests += 1
        try:
            async with self._slots:
                with telemetry.span(
                    endpoint.span_name, kind="consumer", headers=headers, attributes=endpoint.span_attributes
                ):
                    answer, outcome = await self._run(endpoint, message, headers)
        except asyncio.CancelledError:
            stopping = failure("service_unavailable", "the service is stopping; ask again")
            await self._send(message.reply, reply.refused(stopping))
            raise
        if answer is not None:
            await self._send(message.reply, answer)
        self._count(endpoint, self._clock.monotonic_s() - began_s, outcome)

    async def _run(self, endpoint: _Endpoint, message: Msg, headers: Mapping[str, str]) -> tuple[bytes | None, str]:
        """The encoded reply (None when deferred) and the outcome under which it is counted."""
        deadline = asyncio.timeout(REQUEST_TIMEOUT_S)
        try:
            request = intake.read(message.data, endpoint.decoder)
            caller = self._caller(message, headers)
            async with deadline:
                value = await endpoint.handler(request, caller)
            if value is DEFERRED:
                return None, "deferred"
            return self._fitting(reply.ok(value)), "ok"
        except Rejected as error:
            return reply.refused(error), error.code
        except reply.RemoteRejected as error:
            # Another service's refusal is passed on as it stands.
            return reply.refused(error.error), error.code if error.code in CATALOGUE else "internal"
        except TimeoutError as error:
            if deadline.expired():
                return reply.refused(Rejected("timeout", max=int(REQUEST_TIMEOUT_S * 1000))), "timeout"
            return self._broken(endpoint, error), "internal"
        except (UnknownType, Undecodable) as error:
            return self._broken(endpoint, error, "poison"), "poison"
        except Exception as error:  # the edge of the process: what breaks here is ours, not the caller's
            return self._broken(endpoint, error), "internal"

    def _broken(self, endpoint: _Endpoint, error: Exception, code: str = "internal") -> bytes:
        error_id = self._ids.new()
        self._log.error("request_failed", verb=endpoint.name, error_id=error_id, exc_info=error)
        return reply.refused(failure(code, id=error_id))

    def _caller(self, message: Msg, headers: Mapping[str, str]) -> Caller:
        for name in (HEADER_BY, HEADER_CORRELATION, HEADER_MESSAGE_ID):
            if len(headers.get(name, "")) > HEADER_CHARS_MAX:
                raise Rejected("too_large", f"the header {name} is too long", field=name, max=HEADER_CHARS_MAX)
        message_id = headers.get(HEADER_MESSAGE_ID) or self._ids.new()
        return Caller(
            by=headers.get(HEADER_BY) or PRINCIPAL_DEFAULT,
            corr=headers.get(HEADER_CORRELATION) or message_id,
            message_id=message_id,
            reply=message.reply,
            headers=headers,
        )

    def _fitting(self, answer: bytes) -> bytes:
        if len(answer) > self._client.max_payload:
            raise Rejected("too_large", "the answer is larger than the broker carries", max=self._client.max_payload)
        return answer

    async def _send(self, subject: str, answer: bytes) -> None:
        if not subject:
            return
        try:
            await self._client.publish(subject, answer)
        except nats.errors.Error as error:
            # The connection is gone; the caller's own deadline tells it so.
            self._log.warning("reply_not_sent", reason=type(error).__name__)

    def _count(self, endpoint: _Endpoint, took_s: float, outcome: str) -> None:
        endpoint.busy_ns += int(took_s * 1e9)
        if outcome not in ("ok", "deferred"):
            endpoint.errors += 1
            endpoint.last_error = outcome
        self._metrics.inc("htdag_requests_total", service=self._service, verb=endpoint.name, outcome=outcome)
        self._metrics.observe("htdag_request_seconds", took_s, service=self._service, verb=endpoint.name)
