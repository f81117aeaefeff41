"""The Docker engine: where it is, and how its failures are told."""

import asyncio
import importlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from contracts.errors import Rejected

if TYPE_CHECKING:
    from aiodocker import Docker

SOCKETS: Final = (Path("/run/docker.sock"), Path("/var/run/docker.sock"))
ANSWER_S: Final = 5.0
"""An engine that does not answer a simple question in this time counts as absent."""
UNIX: Final = "unix://"
CANNOT_CONNECT: Final = 900  # what the client says for "no connection" in place of an HTTP status


def engine_url(configured: str | None = None) -> str | None:
    """The engine's URL: as configured, else DOCKER_HOST, else the socket where engines usually listen, else None."""
    if configured or os.environ.get("DOCKER_HOST"):
        return configured or os.environ["DOCKER_HOST"]
    return next((f"{UNIX}{path}" for path in SOCKETS if path.is_socket()), None)


def engine_sockets(url: str | None) -> tuple[Path, ...]:
    """Every path that leads to an engine: no container ever gets one of them."""
    own = (Path(url.removeprefix(UNIX)),) if url and url.startswith(UNIX) else ()
    return (*own, *SOCKETS)


async def engine_version(configured: str | None = None) -> str:
    """The version of the engine that answers; raises Rejected(docker_unavailable)."""
    async with engine(configured) as client:
        return str((await client.version())["Version"])


@asynccontextmanager
async def engine(configured: str | None = None) -> AsyncIterator["Docker"]:
    """A client for the length of a `with`. Raises Rejected(docker_unavailable) when no engine answers in time.

    What else the engine refuses comes as aiodocker's DockerError.
    """
    url = engine_url(configured)
    if url is None:
        raise Rejected("docker_unavailable")
    # Its import takes a third of a second, and only those who use Docker pay for it.
    aiodocker: Any = await asyncio.to_thread(importlib.import_module, "aiodocker")
    try:
        client = aiodocker.Docker(url=url)
    except ValueError:
        raise Rejected("docker_unavailable", "DOCKER_HOST is no address of an engine") from None
    try:
        try:
            async with asyncio.timeout(ANSWER_S):
                await client.version()
        except (aiodocker.DockerError, TimeoutError, OSError):
            raise Rejected("docker_unavailable") from None
        try:
            yield client
        except aiodocker.DockerError as why:
            if why.status != CANNOT_CONNECT:
                raise
            raise Rejected("docker_unavailable", "the Docker engine went away") from None
        except importlib.import_module("aiohttp").ClientError:
            raise Rejected("docker_unavailable", "the Docker engine went away") from None
    finally:
        await client.close()
