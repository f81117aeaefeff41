"""A private nats-server: own port, own store, killed and started again at will."""

import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from contracts.limits import REQUEST_BYTES_MAX

START_TIMEOUT_S: Final = 20.0
STOP_TIMEOUT_S: Final = 20.0
PORT_TRIES_MAX: Final = 5
PORTS: Final = range(10_000, 32_000)
"""Below the ephemeral range: a client that reconnects to a dead ephemeral port can connect to itself."""
MEMORY: Final = Path("/dev/shm")
MEMORY_FREE_BYTES_MIN: Final = 4 << 30
LEFT_AFTER_S: Final = 3_600.0
"""No test takes nearly as long: a store in memory of that age is nobody's."""
_PREFIX: Final = "htdag-nats-"
_PR_SET_PDEATHSIG: Final = 1


def nats_server_binary() -> str:
    """Path of nats-server: `NATS_SERVER`, or the one of this virtual environment."""
    return os.environ.get("NATS_SERVER") or str(Path(sys.executable).parent / "nats-server")


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    for _ in range(100):
        port = random.choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free loopback port")


def answers(port: int) -> bool:
    """Whether a NATS server greets on this port now."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            return connection.recv(4) == b"INFO"
    except OSError:
        return False


def die_with_parent() -> None:
    """Runs in the child: the kernel kills it when the test process is gone, however that went."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _place(folder: Path) -> Path:
    """Where a store goes: into memory where that has room, else into `folder`.

    Half of what a test with a broker takes is waiting for fsync. Brokers are killed here, and machines are not: what
    lies in memory outlives the one and not the other.
    """
    if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= MEMORY_FREE_BYTES_MIN:
        for left in MEMORY.glob(f"{_PREFIX}*"):  # by a test run that was killed
            with suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > LEFT_AFTER_S:
                    shutil.rmtree(left, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=MEMORY))
    return folder


class NatsServer:
    """One server process. Port and store stay the same over `kill()` and `start()`.

    `sync_interval` is "always" as the embedded default, or a duration such as "1s"; `extra` is appended to the
    configuration as it stands.
    """

    def __init__(
        self, folder: Path, *, jetstream: bool = True, sync_interval: str = "always", extra: str = "", port: int = 0
    ) -> None:
        self.folder = folder
        self.port = port or free_port()
        self._port_is_ours = bool(port)
        self._place = _place(folder)
        self.store_dir = self._place / "store"
        self.log_path = folder / "nats-server.log"
        self._conf_path = folder / "nats-server.conf"
        self._jetstream = jetstream
        self._sync_interval = sync_interval
        self._extra = extra
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL a client connects to."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        return self._running().pid

    def start(self) -> None:
        """Start the server and return when it answers; raises RuntimeError with its log when it does not."""
        if self._process is not None:
            raise RuntimeError("already started")
        for _ in range(PORT_TRIES_MAX):
            self._launch()
            if self._wait():
                self._port_is_ours = True
                return
            self.kill()
            if self._port_is_ours or "address already in use" not in self.log_path.read_text():
                break
            # Somebody took the port between the look and the start; nobody knows this one yet.
            self.port = free_port()
        raise RuntimeError(f"nats-server did not start:\n{self.log_path.read_text()[-2000:]}")

    def _launch(self) -> None:
        self._write_conf()
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [nats_server_binary(), "-c", str(self._conf_path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,  # noqa: PLW1509  # one prctl call, no lock taken
            )

    def _wait(self) -> bool:
        """Whether it answers before the deadline and its own end."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while self._running().poll() is None and time.monotonic() < deadline_s:
            if answers(self.port):
                return self._running().poll() is None
            time.sleep(0.01)
        return False

    def kill(self) -> None:
        """Kill it with SIGKILL, as a power cut would; does nothing when it is dead already."""
        self._stop(signal.SIGKILL)

    def terminate(self) -> None:
        """Stop it softly with SIGTERM."""
        self._stop(signal.SIGTERM)

    def remove(self) -> None:
        """Kill it, and take its store out of the memory."""
        self.kill()
        if self._place != self.folder:
            shutil.rmtree(self._place)

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections stay open and nothing answers, as in a network hole."""
        self._running().send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it run again after `pause()`."""
        self._running().send_signal(signal.SIGCONT)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("not running")
        return self._process

    def _stop(self, signal_no: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal_no)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)
        self._process = None

    def _write_conf(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [f"listen: 127.0.0.1:{self.port}", f"max_payload: {REQUEST_BYTES_MAX}", "max_pending: 64MB"]
        if self._jetstream:
            store = f'jetstream {{ store_dir: "{self.store_dir}", sync_interval: {self._sync_interval} }}'
            lines.append(store)
        self._conf_path.write_text("\n".join([*lines, self._extra, ""]))
