"""Named crash points: a place between "done" and "recorded" where a test can kill the process or stop it.

Outside tests a point costs one look-up in an empty dictionary. A point is armed by `arm` (in process) or by the
environment: `HTDAG_FAULT=executor.after_commit:3` kills this process with SIGKILL at the third pass.
"""

import os
import signal
from collections.abc import Callable
from typing import Final

POINTS: Final = (
    "actor.before_commit",
    "actor.after_commit",
    "actor.after_effects",
    "actor.before_settle",
    "llm_worker.before_ledger",
    "llm_worker.after_ledger",
    "llm_worker.before_provider",
    "llm_worker.after_provider",
    "llm_worker.after_kept",
    "llm_worker.after_answer",
    "llm_worker.after_journal",
    "llm_worker.after_reply",
    "policy_gateway.after_claim",
    "policy_gateway.after_decided",
    "policy_gateway.after_effect",
    "policy_gateway.after_record",
)
"""Every point of the product; a test walks all of them."""

_armed: dict[str, Callable[[], None]] = {}


def point(name: str) -> None:
    """Pass a crash point."""
    if _armed:
        action = _armed.get(name)
        if action is not None:
            action()


def arm(name: str, action: Callable[[], None]) -> None:
    """Run `action` whenever the point is passed."""
    if name not in POINTS:
        raise KeyError(name)
    _armed[name] = action


def disarm() -> None:
    """Forget every armed point."""
    _armed.clear()


def _kill_at(pass_no: int) -> Callable[[], None]:
    passes = 0

    def kill() -> None:
        nonlocal passes
        passes += 1
        if passes >= pass_no:
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


def arm_from_environment(value: str | None) -> None:
    """Arm what `HTDAG_FAULT` names: `point[:pass]`, several separated by commas."""
    for item in filter(None, (value or "").split(",")):
        name, _, pass_no = item.partition(":")
        arm(name, _kill_at(int(pass_no or 1)))
