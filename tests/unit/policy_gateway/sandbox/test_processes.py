"""Counting what a box takes, by what /proc says of processes that may call themselves anything."""

import subprocess
import sys

import pytest

from services.policy_gateway.sandbox.processes import usage

pytestmark = pytest.mark.box

HOLDS_30_MIB = """
import sys
open("/proc/self/comm", "wb").write(bytes.fromhex(sys.argv[1]))
held = bytearray(b"x") * (30 << 20)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    "name", [b"plain", b"\xff", b"\x0cThreads: -99", b"\rThreads: -99", b"\x0cRssAnon: -9999", b"\nRssAnon: -9999"]
)
def test_no_name_of_a_process_is_taken_for_a_number(name: bytes) -> None:
    command = [sys.executable, "-ISc", HOLDS_30_MIB, name.hex()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        found = usage(child.pid, 100)
    assert found.processes == 1
    assert found.memory_bytes > 30 << 20
