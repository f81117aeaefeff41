"""Checks of this machine and this installation; none of them needs a broker."""

import asyncio
import importlib
import importlib.metadata
import os
import shutil
import socket
import stat
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from contracts.errors import Rejected
from contracts.streams import STREAMS
from services.console.doctor.finding import Finding
from services.console.home import Home
from services.console.output import size
from services.console.supervision.broker import DEFAULT_PORT, find_program
from services.console.supervision.mending import ROOM_BYTES_MIN

BROKER_SHARE: Final = 0.75
"""Of the free disk, so much is JetStream's to give out when a broker starts."""
DISK_FAIL_BYTES: Final = int(sum(spec.config.get("max_bytes", 0) for spec in STREAMS) / BROKER_SHARE) + ROOM_BYTES_MIN
"""With less, a broker that starts cannot give the streams what they reserve, and one that runs soon stores nothing."""
DISK_WARN_BYTES: Final = 2 << 30
CLOCK_EARLIEST_S: Final = 1_767_225_600
"""2026-01-01: no clock can be right before this code was written."""
_SANDBOX_S: Final = 60.0


def python() -> Finding:
    """The interpreter and the installed version of htdag."""
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", "ok", f"Python {version}, htdag {importlib.metadata.version('htdag')}")


def clock() -> Finding:
    """A clock that is plainly wrong breaks deadlines, timers and TOTP."""
    now_s = time.time()
    if now_s < CLOCK_EARLIEST_S:
        return Finding("clock", "fail", "the clock is before 2026", "set the time, and keep it with NTP")
    return Finding("clock", "ok", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s)))


def disk(home: Home) -> Finding:
    """Room for the log."""
    place = home.root
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    message = f"{size(free)} free at {place}"
    if free < DISK_FAIL_BYTES:
        few = f"{message}; the broker needs {size(DISK_FAIL_BYTES)}"
        return Finding("disk", "fail", few, "free disk space, or choose another --home")
    if free < DISK_WARN_BYTES:
        few = f"{message}, less than {size(DISK_WARN_BYTES)}; the broker still stores"
        return Finding("disk", "warn", few, "free some disk space soon")
    return Finding("disk", "ok", message)


def home_rights(home: Home) -> Finding:
    """Keys and records must be readable by their owner only."""
    if not home.root.exists():
        return Finding("home", "note", f"{home.root} does not exist yet", "`htdag up` makes it")
    if not os.access(home.root, os.W_OK):
        return Finding("home", "fail", f"{home.root} cannot be written", "choose another --home, or give the rights")
    private = [*home.keys.glob("*"), home.instance_file]
    loose = [path for path in private if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077]
    if loose:
        return Finding("home", "fail", f"others can read {loose[0]}", f"chmod 600 {' '.join(map(str, loose))}")
    return Finding("home", "ok", str(home.root))


def broker_program() -> Finding:
    """The nats-server that `htdag up` would start."""
    try:
        return Finding("nats-server", "ok", str(find_program()))
    except Rejected as error:
        if os.environ.get("NATS_URL"):
            return Finding("nats-server", "note", "not installed; NATS_URL names another broker")
        return Finding("nats-server", "fail", error.message, str(error.detail.get("hint", "")))


def port(home: Home) -> Finding:
    """Whether the default port is free for `htdag up`."""
    record = home.record()
    if record is not None and record.running:
        return Finding("port", "ok", "this home is running")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", DEFAULT_PORT))
        except OSError:
            return Finding(
                "port",
                "note",
                f"{DEFAULT_PORT} is taken",
                "`htdag up --port 0` takes another, or use that broker: NATS_URL",
            )
    return Finding("port", "ok", f"{DEFAULT_PORT} is free")


def model() -> Finding:
    """The weights of the embedded model."""
    from services.runtime import weights

    local = os.environ.get("HTDAG_LOCAL_MODEL", "")
    try:
        return Finding("model", "ok", f"smollm2: {weights.find('smollm2', local)}")
    except Rejected as error:
        mend = "name a GGUF file in HTDAG_LOCAL_MODEL" if local else "`htdag models pull smollm2`"
        return Finding("model", "warn", error.message, mend)


async def sandbox() -> list[Finding]:
    """What the sandbox of tools promises, tried on this machine: one line when all of it holds, else one for each."""
    built = importlib.import_module("services.policy_gateway.sandbox.sandbox")
    tests = importlib.import_module("services.policy_gateway.sandbox.selftest")
    with tempfile.TemporaryDirectory(prefix="htdag-doctor-", ignore_cleanup_errors=True) as state:
        try:
            async with asyncio.timeout(_SANDBOX_S):
                found = await tests.selftest(built.Sandbox(Path(state)))
        except (OSError, TimeoutError, Rejected) as error:
            return [Finding("sandbox", "warn", f"it cannot be tried: {type(error).__name__}", "try again")]
    if not found[0].ok:
        mend = "allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1, or an AppArmor profile)"
        return [Finding("sandbox", "warn", f"no sandbox can be built: {found[0].reason}", mend)]
    broken = [one for one in found if not one.ok]
    if broken:
        return [Finding(f"sandbox {one.name}", "fail", one.reason, "shell and git calls are refused") for one in broken]
    names = ", ".join(one.name for one in found[1:])
    return [Finding("sandbox", "ok", f"holds: {names} ({found[0].reason})")]


async def docker() -> Finding:
    """The engine that the docker tool would use. It is optional: its absence is a note."""
    engine = importlib.import_module("services.policy_gateway.tools.engine")
    if engine.engine_url() is None:
        return Finding("docker", "note", "not installed; only the docker tool needs it")
    try:
        return Finding("docker", "ok", f"version {await engine.engine_version()}")
    except Rejected as error:
        return Finding("docker", "note", f"{error.message}; only the docker tool needs it")
