"""Listeners on loopback that must never hear anything while the drill runs, and what they heard."""

import asyncio
from types import TracebackType
from typing import Final, Self

LOOPBACK: Final = "127.0.0.1"
OTHER_MACHINE: Final = "127.0.0.2"
"""Stands for another machine of the network: an address of this one that a sandbox must not reach either."""
KNOCK_EVERY_S: Final = 0.1


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, heard: list[str]) -> None:
        self._heard = heard

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Something came."""
        self._heard.append(f"a datagram of {len(data)} bytes left the sandbox")


class Traps:
    """Opens the listeners on enter, closes them on exit. `places` maps the words of the attempts to ports."""

    def __init__(self, broker_port: int) -> None:
        self.places: dict[str, str] = {"@BROKER@": str(broker_port)}
        self._heard: list[str] = []
        self._servers: list[asyncio.Server] = []
        self._datagrams: asyncio.DatagramTransport | None = None
        self._knocking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        for word, host in (("@TCP@", LOOPBACK), ("@LAN@", OTHER_MACHINE)):
            server = await asyncio.start_server(self._connected, host, 0)
            self._servers.append(server)
            self.places[word] = str(server.sockets[0].getsockname()[1])
        loop = asyncio.get_running_loop()
        self._datagrams, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self._heard), local_addr=(LOOPBACK, 0)
        )
        self.places["@UDP@"] = str(self._datagrams.get_extra_info("sockname")[1])
        free = await asyncio.start_server(self._connected, LOOPBACK, 0)
        port = free.sockets[0].getsockname()[1]
        free.close()
        await free.wait_closed()
        self.places["@LISTEN@"] = str(port)
        self._knocking = loop.create_task(self._knock(port), name="drill-knock")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._knocking is not None:
            self._knocking.cancel()
            await asyncio.wait([self._knocking])
        if self._datagrams is not None:
            self._datagrams.close()
        for server in self._servers:
            server.close()
            await server.wait_closed()

    def heard(self) -> list[str]:
        """What was heard since the last time somebody asked."""
        told, self._heard[:] = list(dict.fromkeys(self._heard)), []
        return told

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._heard.append("a connection came out of the sandbox")
        writer.close()

    async def _knock(self, port: int) -> None:
        """Try the port of the backdoor from outside, all the time."""
        while True:
            try:
                _, writer = await asyncio.open_connection(LOOPBACK, port)
                writer.close()
                self._heard.append(f"a backdoor answered on port {port}")
            except OSError:
                pass  # nobody listens: as it should be
            await asyncio.sleep(KNOCK_EVERY_S)
