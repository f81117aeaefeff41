"""A word is no broker's URL."""

import pytest

from contracts.errors import Rejected
from services.console import cli
from services.runtime import nats_client, server_url


@pytest.mark.parametrize(
    "url",
    [
        "nats://127.0.0.1:4222", "nats://broker", "tls://ann:pw@broker:4222", "broker:4222", "[::1]:4222",
        "nats://a:1,nats://b:2", "ws://broker:80",
    ],
)  # fmt: skip
def test_it_has_a_host_and_a_scheme_or_a_port(url):
    server_url.check(url)


@pytest.mark.parametrize(
    "url", ["banana", "", "nats://", "http://broker:4222", "nats://a:x", "nats://a:1,b", "a:99999"]
)
async def test_anything_else_is_a_wrong_configuration(url):
    with pytest.raises(Rejected) as refused:
        await nats_client.connect(url, name="test")
    assert refused.value.code == "bad_config"
    assert "NATS_URL" in refused.value.message


def test_the_console_says_which_variable(monkeypatch, capsys):
    monkeypatch.setenv("NATS_URL", "banana")
    assert cli.run(["bus", "ls"]) == 78
    assert "error: bad_config: NATS_URL is no broker's URL" in capsys.readouterr().err
