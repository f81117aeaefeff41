"""What another library imports in case is read when it is used."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.support.nats_server import NatsServer, free_port

WITHOUT = """
import sys
import services.executor.service
assert not [name for name in sys.modules if name.startswith("aiohttp.")], "nobody has used it"
assert not [name for name in sys.modules if name.partition(".")[0] in ("rich", "pygments")], "logs have no colours"
import warnings, inspect
warnings.simplefilter("error"); inspect.getmodule(int); [hasattr(module, "__file__") for module in sys.modules.values()]
assert not [name for name in sys.modules if name.startswith("aiohttp.")], "looking at it is no use of it"
"""
USES = (
    "import aiohttp; assert aiohttp.ClientSession.__module__ == 'aiohttp.client'",
    "from aiohttp import ClientSession; assert ClientSession.__module__ == 'aiohttp.client'",
    "import aiohttp.web; assert aiohttp.web.Application and aiohttp.ClientSession",
    "from aiohttp import web; assert web.Application",
    "from nats.aio.transport import aiohttp; assert aiohttp.ClientSession is __import__('aiohttp').ClientSession",
    "import aiodocker; assert aiodocker.Docker",
    "import services.runtime.logs; from rich.traceback import Traceback",
)

THERE_AND_BACK = """
import asyncio
from services.runtime import nats_client

async def main():
    client = await nats_client.connect("ws://127.0.0.1:{port}", name="test")
    heard = await client.subscribe("here")
    await client.publish("here", b"behind a web socket")
    assert (await heard.next_msg(timeout=10)).data == b"behind a web socket"
    await client.close()

asyncio.run(main())
"""


def python(program: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=50)
    return done.returncode, done.stderr


def test_a_service_imports_neither_web_sockets_nor_colours() -> None:
    assert python(WITHOUT) == (0, "")


@pytest.mark.parametrize("use", USES)
def test_whoever_uses_it_gets_all_of_it(use: str) -> None:
    assert python(f"import services.runtime\n{use}") == (0, "")


def test_a_broker_behind_a_web_socket_is_reached(start_nats_server: Callable[..., NatsServer]) -> None:
    port = free_port()
    start_nats_server(extra=f"websocket {{ listen: 127.0.0.1:{port}, no_tls: true }}")
    assert python(THERE_AND_BACK.format(port=port)) == (0, "")
