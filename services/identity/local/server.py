"""uvicorn inside the service's loop, on 127.0.0.1 and ::1 and nothing else."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final

import uvicorn
from litestar.types import ASGIApp

from contracts.errors import Rejected
from services.identity.local.connections import BoundedConnection

STOP_S: Final = 3
PORT_TRIES_MAX: Final = 20
Spawn = Callable[[Coroutine[Any, Any, Any], str], "asyncio.Task[Any]"]


class LocalServer:
    """The listener. `port` is known when `open` returns."""

    def __init__(self) -> None:
        self.port = 0
        self._sockets: list[socket.socket] = []
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[Any] | None = None

    def open(self, port: int) -> None:
        """Bind both families to one port; without IPv6 only 127.0.0.1. Raises Rejected("port_in_use")."""
        for _ in range(PORT_TRIES_MAX):
            four = _bound(socket.AF_INET, "127.0.0.1", port)
            number = int(four.getsockname()[1])
            try:
                six = _bound(socket.AF_INET6, "::1", number) if _has_ipv6() else None
            except Rejected:
                four.close()
                if port:
                    raise
                continue  # the free port of one family was taken in the other
            self._sockets = [four] if six is None else [four, six]
            self.port = number
            return
        raise Rejected("port_in_use", "no port is free on both 127.0.0.1 and ::1")

    def start(self, app: ASGIApp, spawn: Spawn) -> None:
        """Answer."""
        config = uvicorn.Config(
            app,
            http=BoundedConnection,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            access_log=False,
            log_config=None,
            log_level="warning",
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=STOP_S,
            timeout_keep_alive=STOP_S,
            limit_concurrency=64,
        )
        self._server = _Server(config)
        self._task = spawn(self._server.serve(sockets=self._sockets), "local-http")

    async def stop(self) -> None:
        """Close the port and end what is under way."""
        if self._server is not None:
            self._server.should_exit = True
        if self._task is not None:
            await asyncio.wait([self._task], timeout=STOP_S + 1)
        for one in self._sockets:
            one.close()


class _Server(uvicorn.Server):
    """Signals belong to the life cycle of the service."""

    def capture_signals(self) -> Any:
        """Nothing is captured."""
        return contextlib.nullcontext()


def _bound(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    one = socket.socket(family)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Without this an IPv4 peer could come in as ::ffff:a.b.c.d.
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind((host, port))
        one.listen(64)
        one.setblocking(False)
    except OSError as error:
        one.close()
        raise Rejected("port_in_use", f"{host}:{port} cannot be opened: {error.strerror}", port=port) from error
    return one


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
