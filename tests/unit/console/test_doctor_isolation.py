"""`htdag doctor isolation` knows a further copy for what it is, and every secret whatever its name."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.console.doctor.isolation import isolation
from services.console.home import Home, InstanceRecord, ServiceRecord
from services.console.processes import Process, identify


@pytest.fixture
def holder() -> Iterator[Process]:
    """A process with a key of a provider and the operator's password in its environment."""
    env = {"GOOD_API_KEY": "sk-canary", "HTDAG_OPERATOR_PASSWORD": "canary"}
    with subprocess.Popen(["/bin/sleep", "60"], env=env) as child:
        yield identify(child.pid)
        child.kill()


def test_a_further_copy_is_judged_as_its_service_and_the_broker_by_every_key(tmp_path: Path, holder: Process) -> None:
    home = Home(tmp_path)
    held = ServiceRecord(holder)
    services = {"llm-worker-2": held, "executor-2": held}
    url = "nats://127.0.0.1:4222"
    home.write_record(InstanceRecord(str(tmp_path), "foreground", identify(os.getpid()), url, held, services))
    found = {one.name: one for one in isolation(home)}
    assert found["llm-worker-2"].status == "ok"
    assert found["executor-2"].status == found["nats"].status == "fail"
    assert "it runs" not in found["executor-2"].message
    assert found["nats"].message == "its environment holds GOOD_API_KEY"


def test_a_further_copy_of_a_confined_service_is_confined(tmp_path: Path) -> None:
    with subprocess.Popen(["/bin/sleep", "60"], env={}) as child:
        home = Home(tmp_path)
        services = {"executor-2": ServiceRecord(identify(child.pid))}
        url = "nats://127.0.0.1:4222"
        home.write_record(InstanceRecord(str(tmp_path), "foreground", identify(os.getpid()), url, None, services))
        (found,) = (one for one in isolation(home) if one.name == "executor-2")
        child.kill()
    assert found.status == "ok"
    assert "speaks to the broker only" in found.message
