"""The tools of the tests keep their own promises."""

import nats
import pytest

from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer


async def test_a_killed_server_comes_back_with_its_store(nats_server: NatsServer) -> None:
    port, first_pid = nats_server.port, nats_server.pid
    client = await nats.connect(nats_server.url)
    jetstream = client.jetstream()
    await jetstream.add_stream(name="S", subjects=["s"])
    await jetstream.publish("s", b"kept")
    await client.close()

    nats_server.kill()
    nats_server.start()

    assert nats_server.port == port
    assert nats_server.pid != first_pid
    client = await nats.connect(nats_server.url)
    assert (await client.jetstream().get_last_msg("S", "s")).data == b"kept"
    assert client.max_payload == 8 << 20
    await client.close()


async def test_eventually_gives_the_value_it_waited_for() -> None:
    answers = iter([None, 0, "ready"])
    assert await eventually(lambda: next(answers), timeout_s=1) == "ready"


async def test_eventually_says_what_it_saw_last() -> None:
    with pytest.raises(AssertionError, match=r"not true after 0\.05 s; last value: \[\]"):
        await eventually(list, timeout_s=0.05)


async def test_eventually_takes_a_failed_assertion_as_not_yet() -> None:
    seen: list[int] = []

    def third_time() -> bool:
        seen.append(1)
        assert len(seen) == 3, f"only {len(seen)}"
        return True

    assert await eventually(third_time, timeout_s=1)
    assert len(seen) == 3
