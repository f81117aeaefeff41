"""Under which name the console's calls stand in the log."""

import pytest

from services.console.connection import Console
from services.console.principal import principal
from services.runtime.bus import Bus
from services.runtime.nats_client import connect
from tests.support.nats_server import NatsServer


@pytest.mark.parametrize(
    ("user", "said"),
    [("ann", "operator:ann"), ("a\r\nb: ü", "operator:a__b___"), ("x" * 300, "operator:" + "x" * 64)],
)
def test_the_name_is_the_user_of_the_machine_and_fits_a_header(monkeypatch, user, said):
    monkeypatch.setattr("getpass.getuser", lambda: user)
    assert principal() == said


def test_a_user_without_a_name_is_known_by_number(monkeypatch):
    def nameless():
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", nameless)
    monkeypatch.setattr("os.getuid", lambda: 4711)
    assert principal() == "operator:4711"


async def test_every_call_of_the_console_says_who_makes_it(nats_server: NatsServer):
    bus = Bus(await connect(nats_server.url, name="test"))
    await bus.start()
    heard: list[str] = []

    def answer(message):
        heard.append(message.headers["Htdag-By"])
        bus.publish(message.reply, b'{"ok":true,"value":[]}')

    await bus.subscribe("htdag.v1.executor.run.list", answer)
    await Console(bus, 5).call("executor.run.list", {})
    await bus.close()
    assert heard == [principal()]
