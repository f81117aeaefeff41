"""The world of tests in Docker."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.policy_gateway.tools import mounts as mounting
from services.policy_gateway.tools.image import build
from tests.support.docker_engine import DockerEngine
from tests.support.docker_world import BUSYBOX, World


@pytest.fixture(scope="session")
def busybox(docker_engine: DockerEngine) -> DockerEngine:
    asyncio.run(build(BUSYBOX, busybox=True, url=docker_engine.url))
    return docker_engine


@pytest.fixture
async def world(busybox: DockerEngine, tmp_path: Path) -> AsyncIterator[World]:
    made = World(busybox, tmp_path)
    yield made
    assert await made.containers() == []
    assert list(mounting.copies_of(made.workspace).glob("*")) == []
