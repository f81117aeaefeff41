"""`htdag doctor isolation` knows a further copy for what it is, and every secret whatever its name."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.console.doctor.isolation import isolation
from services.console.home import Home, InstanceRecord, ServiceRecord
from services.console.processes import Process, identify
from services.runtime.telemetry import collector_port


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


@pytest.mark.parametrize("told", [True, False])
def test_a_confined_service_may_speak_to_the_collector_it_was_told_of_and_to_nobody_else(
    tmp_path: Path, told: bool
) -> None:
    speak = "import socket,sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); s.recv(1)"
    with socket.create_server(("127.0.0.1", 0)) as collector:
        port = collector.getsockname()[1]
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"} if told else {}
        with subprocess.Popen([sys.executable, "-S", "-c", speak, str(port)], env=env) as child:
            accepted, _ = collector.accept()
            home = Home(tmp_path)
            services = {"executor": ServiceRecord(identify(child.pid))}
            url = "nats://127.0.0.1:4222"
            home.write_record(InstanceRecord(str(tmp_path), "foreground", identify(os.getpid()), url, None, services))
            (found,) = (one for one in isolation(home) if one.name == "executor")
            accepted.close()
    assert found.status == ("ok" if told else "fail")
    expected = "speaks to the broker and the collector of traces only" if told else f"it is connected to port {port}"
    assert expected in found.message


@pytest.mark.parametrize(
    ("env", "port"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:23805/otlp"}, 23805),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector"}, 443),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b:2"}, 2),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1", "OTEL_SDK_DISABLED": "true"}, None),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, 4318),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:port"}, None),
    ],
)
def test_the_collector_is_known_from_the_environment(env: dict[str, str], port: int | None) -> None:
    assert collector_port(env) == port
