"""The self-test bites where a property does not hold, and holds in every shape that a container may force upon us."""

import os
import socket
from pathlib import Path

import pytest

from services.policy_gateway.sandbox import probe
from services.policy_gateway.sandbox.box import SHAPES, Shape
from services.policy_gateway.sandbox.sandbox import Sandbox
from services.policy_gateway.sandbox.selftest import available, selftest


@pytest.mark.box
@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_every_property_holds_in_a_poorer_box_too(tmp_path: Path, shape: Shape) -> None:
    findings = await selftest(Sandbox(tmp_path, shapes=(shape,)))
    assert [finding for finding in findings if not finding.ok] == []
    assert os.listdir(tmp_path) == ["etc"]


async def test_where_no_box_can_be_built_it_says_why(tmp_path: Path) -> None:
    findings = await selftest(Sandbox(tmp_path, bwrap=Path("/bin/false")))
    assert [(finding.name, finding.ok) for finding in findings] == [("sandbox", False)]
    assert findings[0].reason


@pytest.mark.box
async def test_a_probe_that_is_late_is_a_finding_and_no_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = Sandbox(tmp_path)
    await sandbox.ready()
    monkeypatch.setattr("services.policy_gateway.sandbox.selftest.PROBE_S", 0.001)
    findings = await selftest(sandbox)
    assert [finding.ok for finding in findings] == [True, False]
    assert "too busy" in findings[1].reason
    assert os.listdir(tmp_path) == ["etc"]


@pytest.mark.box
async def test_it_says_what_holds_each_bound(tmp_path: Path) -> None:
    found = await available(Sandbox(tmp_path, cgroups=False))
    assert (found.ok, "watchdog" in found.reason, "affinity" in found.reason) == (True, True, True)


def test_the_probe_finds_an_open_network() -> None:
    name = f"htdag-probe-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as loopback, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind("\0" + name)
        abstract.listen()
        found = list(probe.network({"loopback": loopback.getsockname()[1], "abstract": name}))
    assert found[0] == "the loopback of the machine answers"
    assert "an abstract socket of the machine answers" in found


@pytest.mark.box
def test_the_probe_finds_what_can_be_seen(tmp_path: Path) -> None:
    found = list(probe.sight({"hidden": [str(tmp_path)], "environment": []}))
    assert f"{tmp_path} can be seen" in found
    assert "the variable PATH came along" in found
    assert any(said.endswith("processes can be seen") for said in found)
