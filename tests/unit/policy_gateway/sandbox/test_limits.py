"""The part of a box's limits that the kernel holds for every process by itself."""

import os
import subprocess
import sys

import pytest

from services.policy_gateway.sandbox.limits import niceness

SET_LIMITS = """
import os
from services.policy_gateway.sandbox.limits import Limits, confine
if os.geteuid() == 0:
    os.setuid(65534)  # root may do what others may not
os.setpriority(os.PRIO_PROCESS, 0, max(10, os.getpriority(os.PRIO_PROCESS, 0)))  # the tests may be nice as well
confine(os.getpid(), Limits(), memory_counted=False)
print(os.getpriority(os.PRIO_PROCESS, 0))
"""


@pytest.mark.parametrize(("mine", "root", "wanted"), [(0, False, 5), (10, False, 10), (0, True, 19), (19, True, 19)])
def test_a_box_is_never_asked_to_be_less_nice_than_htdag_itself(mine: int, root: bool, wanted: int) -> None:
    """Only root may lower the niceness of a process, its own included."""
    assert niceness(mine, root=root) == wanted


def test_limits_can_be_set_where_htdag_itself_was_started_nice() -> None:
    done = subprocess.run([sys.executable, "-c", SET_LIMITS], capture_output=True, text=True, check=False, timeout=30)
    nice = max(10, os.getpriority(os.PRIO_PROCESS, 0))
    assert (done.returncode, done.stdout) == (0, f"{nice}\n"), done.stderr
