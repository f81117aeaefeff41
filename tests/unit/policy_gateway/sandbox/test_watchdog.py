"""The watchdog of a box."""

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from services.policy_gateway.sandbox import processes
from services.policy_gateway.sandbox.ledger import Ledger
from services.policy_gateway.sandbox.limits import Limits
from services.policy_gateway.sandbox.watchdog import Watch, Watchdog


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["/bin/sleep", "30"]) as child:
        yield child
        child.kill()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_watchdog_that_breaks_ends_its_box(
    sleeper: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_root: int, _most: int) -> processes.Usage:
        raise ValueError("cannot be counted")

    monkeypatch.setattr(processes, "usage", broken)
    pidfd = os.pidfd_open(sleeper.pid)
    watchdog = Watchdog(sleeper.pid, pidfd, Limits(), Watch(memory=True, processes=True, folders=(), ledger=Ledger()))
    watchdog.start()
    assert sleeper.wait(timeout=10) == -signal.SIGKILL
    assert watchdog.reason == "watchdog"
    os.close(pidfd)
