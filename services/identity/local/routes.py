"""The routes of the local listener: JSON in, JSON out, refusals as problem documents (RFC 9457) with their code."""

from collections.abc import Awaitable, Callable
from hmac import compare_digest
from typing import Any, Final

import msgspec
from litestar import Litestar, MediaType, Request, Response, get, post
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from contracts.errors import Rejected
from contracts.listener import ROUTES
from services.identity.local.desk import Desk
from services.identity.local.guard import check_local
from services.identity.local.page import PAGE, POLICY
from services.identity.local.sessions import Sessions

BODY_BYTES_MAX: Final = 16 << 10
HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_STATUS: Final = {
    "bad_json": 400, "bad_request": 400, "too_large": 413, "weak_password": 400, "not_signed_in": 401,
    "rate_limited": 429, "mfa_already_enabled": 409, "mfa_not_enabled": 409, "mfa_not_set_up": 409, "conflict": 409,
    "password_already_set": 409, "user_not_found": 404, "internal": 500, "bad_config": 500, "nats_unavailable": 503,
    "jetstream_unavailable": 503, "timeout": 503, "storage_full": 503, "stream_missing": 503, "mailbox_full": 503,
}  # fmt: skip
"""Every other code is 403."""


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What any of the routes may be told."""

    user: str | None = None
    password: str | None = None
    code: str | None = None
    token: str | None = None
    new_password: str | None = None
    presence: str | None = None
    """What stands in the home of the instance: see `Whereabouts`."""


_DECODE: Final = msgspec.json.Decoder(Body).decode
Act = Callable[[Body, str | None], Awaitable[dict[str, Any]]]


def application(desk: Desk, sessions: Sessions, presence: str, port: Callable[[], int]) -> ASGIApp:
    """The whole listener as an ASGI application. `presence` is what only readers of the home can say."""

    def home(body: Body) -> bool:
        return compare_digest((body.presence or "").encode(), presence.encode())

    def answering(act: Act) -> Callable[[Request[Any, Any, Any]], Awaitable[Response[Any]]]:
        async def answer(request: Request[Any, Any, Any]) -> Response[Any]:
            try:
                body = await _body(request)
                return Response(await act(body, _signed_in(request, sessions)), headers=HEADERS, status_code=200)
            except Rejected as error:
                return problem(error)

        return answer

    async def page(request: Request[Any, Any, Any]) -> Response[str]:
        headers = {**HEADERS, "Content-Security-Policy": POLICY, "X-Frame-Options": "DENY"}
        return Response(PAGE, media_type=MediaType.HTML, headers=headers)

    acts: dict[str, Act] = {
        "/auth/password/": lambda body, _: desk.set_password(body.user or "", body.token or "", body.password or ""),
        "/auth/session/": lambda body, _: desk.sign_in(body.user, body.password, home=home(body)),
        "/auth/password/change/": lambda body, who: desk.change_password(
            who, body.user, body.password, body.new_password, body.code, home=home(body)
        ),
        "/auth/keys/": lambda _body, _who: desk.keys(),
        "/auth/mfa/setup/": lambda _, who: desk.set_up(who),
        "/auth/mfa/verify/": lambda body, who: desk.verify(who, body.code),
        "/auth/mfa/disable/": lambda body, who: desk.disable(who, body.user, body.code),
        "/auth/mfa/reset/": lambda body, who: desk.reset(who, body.user, body.password, home=home(body)),
        "/auth/mfa/unlock/": lambda body, who: desk.unlock(who, body.user, body.password, home=home(body)),
    }
    posts = [route.path for route in ROUTES if route.method == "POST"]
    handlers = [post(path, name=path)(answering(acts[path])) for path in posts]
    status = get("/auth/mfa/status/")(answering(lambda _, who: desk.status(who)))
    made = Litestar([*handlers, status, get("/auth/setup/")(page)], openapi_config=None, logging_config=None)
    return guarded(made, port)


def guarded(inner: ASGIApp, port: Callable[[], int]) -> ASGIApp:
    """Let through only what comes from this host itself."""

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP:
            client = scope.get("client")
            try:
                check_local(client[0] if client else None, scope["headers"], port())
            except Rejected as error:
                await problem(error).to_asgi_response(app=None, request=Request(scope))(scope, receive, send)
                return
        await inner(scope, receive, send)

    return outer


def problem(error: Rejected) -> Response[bytes]:
    """A refusal as a problem document."""
    status = _STATUS.get(error.code, 403)
    wire = {"type": "about:blank", "title": error.message, "status": status, **error.to_wire()}
    headers = dict(HEADERS)
    if error.detail.get("retry_after") is not None:
        headers["Retry-After"] = str(error.detail["retry_after"])
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(
        msgspec.json.encode(wire), status_code=status, headers=headers, media_type="application/problem+json"
    )


async def _body(request: Request[Any, Any, Any]) -> Body:
    """The body as JSON, whatever its content type says. Raises too_large, bad_json or bad_request; repeats nothing."""
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > BODY_BYTES_MAX:
            raise Rejected("too_large", max=BODY_BYTES_MAX)
    try:
        return _DECODE(data or b"{}")
    except msgspec.ValidationError as error:
        raise Rejected("bad_request", str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected("bad_json") from error


def _signed_in(request: Request[Any, Any, Any], sessions: Sessions) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return sessions.user_of(token.strip()) if scheme.lower() == "bearer" else None
